"""Neural networks that run here: onnxruntime sessions that share a machine with many calls."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from stayline.errors import ConfigError

INSTALL = 'Install them with: pip install "stayline[offline]"'


def packaged_file(package: str, *parts: str) -> Path:
    """A file inside an installed package, without importing it (some load native libraries or look for updates).

    Raises:
        ConfigError: the package, or the file in it, is not installed.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"The offline speech engines are not installed (no package {package!r}).", fix=INSTALL)
    path = Path(spec.submodule_search_locations[0], *parts)
    if not path.is_file():
        raise ConfigError(f"Package {package!r} is installed, but holds no {'/'.join(parts)}.", fix=INSTALL)
    return path


def open_session(path: Path) -> Any:
    """An `onnxruntime.InferenceSession` that uses the calling thread and no other.

    Sessions with threads of their own, or that spin while they wait, take the cores from each other and from
    the audio loop. One session may be run from several threads at once.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("The offline speech engines need onnxruntime.", fix=INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
