"""A day as a picture: load, wish and clairvoyant over the hours, in replicas. Plain SVG, no library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.scaling.clairvoyant import arriving_work
from benchmarks.scaling.measure import Measured
from benchmarks.scaling.traces import Trace

_WIDTH, _HEIGHT = 1200, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 56, 40
_PLOT_W, _PLOT_H = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_COLOURS = ("#9aa5b1", "#d9822b", "#1f6feb")
_STEP_S = 60
_GRID = 'stroke="#e4e7eb"'


def draw_day(file: Path, trace: Trace, measured: Measured) -> None:
    """One policy's wish on a day, the load and the clairvoyant under it."""
    minute = np.convolve(arriving_work(trace), np.ones(_STEP_S) / _STEP_S, "same")
    lines = {
        "load, work that arrives": minute,
        f"wish of {measured.line['policy']}": measured.wishes.astype(np.float64),
    }
    if measured.clairvoyant is not None:
        lines["clairvoyant"] = measured.clairvoyant.astype(np.float64)
    where = trace.name if trace.day is None else f"{trace.name}, day {trace.day}"
    draw(file, f"{where}, cold start {measured.line['cold_start_s']:.0f} s: replicas", lines)


def draw(file: Path, title: str, lines: Mapping[str, NDArray[np.float64]]) -> None:
    """Write one SVG. `lines`: name → replicas at each second, drawn as the mean of each minute, the last on top."""
    seconds = max(len(values) for values in lines.values())
    highest = max(float(_minutes(values).max()) for values in lines.values())
    top = max(5 * int(np.ceil(highest / 5)), 5)
    hours = seconds / 3600
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#323f4b">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{title}</text>',
    ]
    for value in range(0, top + 1, 5):
        y = _y(value, top)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" {_GRID}/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    every = 3 if hours > 6 else 1 / 4
    for tick in range(int(hours / every) + 1):
        x = _LEFT + tick * every / hours * _PLOT_W
        label = f"{tick * every:.0f} h" if every >= 1 else f"{tick * every * 60:.0f} min"
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{label}</text>')
    for number, (name, values) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        x = _LEFT + 190 * number
        parts.append(f'<rect x="{x}" y="32" width="22" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 28}" y="39">{name}</text>')
        parts.append(f'<path d="{_path(_minutes(values), seconds, top)}" fill="none" stroke="{colour}"/>')
    file.write_text("\n".join([*parts, "</svg>", ""]))


def _minutes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    starts = np.arange(0, len(values), _STEP_S)
    sizes = np.diff(np.append(starts, len(values)))
    means: NDArray[np.float64] = np.add.reduceat(values.astype(np.float64), starts) / sizes
    return means


def _path(minutes: NDArray[np.float64], seconds: int, top: float) -> str:
    points = [
        f"{_LEFT + number * _STEP_S / seconds * _PLOT_W:.1f},{_y(value, top):.1f}"
        for number, value in enumerate(minutes.tolist())
    ]
    return "M" + "L".join(points)


def _y(value: float, top: float) -> float:
    return _TOP + (1 - value / top) * _PLOT_H
