"""A picture of each dashboard's layout with the answers that its queries gave: plain SVG, for review.

It is not what Grafana draws: only what stands where, and which numbers. Grafana draws axes, legends and colours.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana.dashboards import BOARDS
from grafana.panels import GRID_WIDTH, Board, Note, Panel, places
from grafana.server import Series

if TYPE_CHECKING:
    from grafana.check import Asked

CELL: Final = 52  # pixels of a column
ROW: Final = 26  # of a row
COLOURS: Final = ("#3274d9", "#56a64b", "#e0752d", "#b877d9", "#e02f44", "#0f9d9d", "#8f6b32")
GONE: Final = "#c4162a"
LINES: Final = 7  # of text, or of series, that a panel shows at most
CAPTION: Final = "layout and real answers, drawn by grafana/picture.py; no picture of Grafana"

Box = tuple[float, float, float, float]  # x, y, width, height


def write(folder: Path, asked: Sequence["Asked"]) -> None:
    """One SVG a dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        mine = [each for each in asked if each.board is board]
        path = folder / f"{board.uid.removeprefix('tapewatch-')}.svg"
        path.write_text(draw(board, mine), encoding="utf-8")


def draw(board: Board, asked: Sequence["Asked"]) -> str:
    """The dashboard as SVG."""
    grid = places(board.panels)
    height = 40 + ROW * max(place.y + place.h for place in grid)
    parts = [_text(12, 26, f"Tapewatch: {board.title}", 18), _text(420, 26, CAPTION, 12, "#888")]
    for panel, place in zip(board.panels, grid, strict=True):
        box = place.x * CELL + 4.0, 40 + place.y * ROW + 4.0, place.w * CELL - 8.0, place.h * ROW - 8.0
        parts.append(_draw_panel(panel, [each for each in asked if each.panel is panel], box))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{GRID_WIDTH * CELL}" height="{height}" '
        f'font-family="DejaVu Sans, sans-serif"><rect width="100%" height="100%" fill="#f4f5f5"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _draw_panel(panel: Panel | Note, asked: Sequence["Asked"], box: Box) -> str:
    x, y, width, height = box
    parts = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="white" stroke="#d8d9da"/>',
        _text(x + 8, y + 17, panel.title, 13),
    ]
    inner = x + 8, y + 24, width - 16, height - 32
    if isinstance(panel, Note):
        return "".join([*parts, _paragraph(panel.markdown, inner)])
    parts.append(_text(x + width - 8, y + 17, f"{panel.kind}, {panel.unit}", 10, "#888", "end"))
    named = [(_name(each.query.legend, series), series) for each in asked for series in each.series]
    wrong = [each.problem for each in asked if each.problem]
    if wrong:
        parts.append(_text(x + 8, y + height - 8, wrong[0], 11, GONE))
    drawn = _lines if any(len(series.points) > 1 for _, series in named) else _values
    return "".join([*parts, drawn(panel, named, inner)])


def _name(legend: str, series: Series) -> str:
    for label, value in series.labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend.strip()


def _lines(panel: Panel, named: Sequence[tuple[str, Series]], box: Box) -> str:
    """Every series as a line between the least and the greatest value of all, and the newest values."""
    x, y, width, height = box
    points = [point for _, series in named for point in series.points if math.isfinite(point[1])]
    if not points:
        return ""
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    wide = width - 170
    parts = [_text(x, y + 10, _number(high), 9, "#888"), _text(x, y + height, _number(low), 9, "#888")]
    for number, (name, series) in enumerate(named):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(
            f"{x + wide * (at - first) / max(last - first, 1e-9):.1f},"
            f"{y + 14 + (height - 28) * (1 - (value - low) / max(high - low, 1e-300)):.1f}"
            for at, value in series.points
            if math.isfinite(value)
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        if number < LINES * 2:
            newest = _shown(panel, series.points[-1][1])
            parts.append(_text(x + wide + 8, y + 10 + 13 * number, f"{name[:16]} {newest}", 10, colour))
    return "".join(parts)


def _values(panel: Panel, named: Sequence[tuple[str, Series]], box: Box) -> str:
    x, y, _, height = box
    room = max(1, int(height // 15))
    lines = [
        _text(x, y + 14 + 15 * number, f"{_shown(panel, series.points[-1][1])}  {name}", 12)
        for number, (name, series) in enumerate(named[:room])
    ]
    return "".join(lines)


def _shown(panel: Panel, value: float) -> str:
    word = (panel.mappings or {}).get(f"{value:g}")
    return _number(value) if word is None else word[0]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _paragraph(markdown: str, box: Box) -> str:
    x, y, width, _ = box
    words, lines = markdown.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width / 7:
            lines.append("")
        lines[-1] += f"{word} "
    return "".join(_text(x, y + 14 + 16 * number, line, 12) for number, line in enumerate(lines[:LINES]))


def _text(x: float, y: float, text: str, size: int, colour: str = "#222", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'
