"""Reading a scenario file: what is wrong with it is said with the file, the place in it, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from media_bridge.providers.offline.scenario import Intent, Scenario, State, ToolUse
from media_bridge.providers.offline.scenario_checks import faults_of
from stayline.errors import ConfigError
from stayline.suggest import closest


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file (YAML or JSON).

    Raises:
        ConfigError: it cannot be read, or something in it is wrong: which file, where in it, and what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"The scenario {path} cannot be read ({why}).",
            fix="Give an absolute path, e.g. one built from __file__.",
        ) from error
    try:
        data = yaml.load(text, Loader=_Loader)
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # a date that is none, a key that is a list
        raise ConfigError(f"The scenario {path} is no valid YAML: {' '.join(str(error).split())}.") from error
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"The scenario {path}: {_first_fault(error)}") from error
    faults = faults_of(scenario)
    if faults:
        raise ConfigError(f"The scenario {path}: " + " ".join(faults))
    return scenario


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    steps = [str(step) for step in first["loc"]]
    where = ".".join(steps) or "the file"
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"states": State, "intents": Intent, "tools": ToolUse}
        model = Scenario if len(steps) == 1 else parts.get(steps[0])
        return f"{where}: there is no such key. " + (closest(steps[-1], list(model.model_fields)) if model else "")
    return f"{where}: {first['msg'].removeprefix('Value error, ')}."


class _Loader(yaml.SafeLoader):
    """YAML in which `on`, `off`, `yes` and `no` are words, as in YAML 1.2, and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
