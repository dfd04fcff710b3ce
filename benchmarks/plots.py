"""Plots of the results as SVG, the same bytes for the same figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "stayline", "svg.fonttype": "none", "font.size": 9})

from matplotlib import pyplot as plt  # noqa: E402


def latency(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> Path:
    """Added latency over calls at once: the median as a line, up to the 99th percentile shaded."""
    points: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in rows:
        if "answer_ms" in row:
            points[row["server"]].append((row["calls"], row["answer_ms"]["p50"], row["answer_ms"]["p99"]))
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for server, found in points.items():
        calls, middle, high = zip(*sorted(found), strict=True)
        (line,) = axes.plot(calls, middle, marker="o", markersize=3, label=server)
        axes.fill_between(calls, middle, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="calls at once", ylabel="added latency, ms (p50; shaded to p99)")
    ticks = sorted({row["calls"] for row in rows})
    axes.set_xticks(ticks, [str(calls) for calls in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
