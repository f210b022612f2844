"""Latency against load as a picture: an SVG of three panels, written by hand."""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from penstock.bench.load import LoadResult
from penstock.bench.timing import Distribution

_PANELS = {
    "Time to first token": "first_token_s",
    "Time between tokens": "inter_token_s",
    "Whole request": "end_to_end_s",
}
_LINES = {"p50": "#1b7f5c", "p90": "#d98200", "p99": "#c22f3d"}
_WIDTH, _HEIGHT = 300, 200  # of the area that a panel's lines are drawn in
_LEFT, _TOP, _BOTTOM = 70, 76, 56
_LABEL_ROOM = 26  # labels of loads closer than this would overlap
_NUM_TICKS = 5

Point = tuple[float, float]


def latency_plot(results: Sequence[LoadResult], title: str) -> str:
    """The whole document. Loads at which nothing was answered leave a gap."""
    panel_width = _LEFT + _WIDTH + 20
    width, height = panel_width * len(_PANELS), _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_LEFT, 24, title, 'font-size="15" font-weight="bold"'),
    ]
    x_label = "requests per second" if results[0].rate is not None else "clients"
    for number, (name, attribute) in enumerate(_PANELS.items()):
        measured = {each.load: getattr(each.summary, attribute) for each in results}
        parts.append(f'<g transform="translate({number * panel_width + _LEFT},{_TOP})">')
        parts += _panel(name, x_label, dict(sorted(measured.items())))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, x_label: str, measured: dict[float, Distribution]) -> list[str]:
    highest = max((each.p99 or 0.0 for each in measured.values()), default=0.0) or 1.0
    step = _tick_step(highest)
    top = step * math.ceil(highest / step)
    unit, scale = ("s", 1.0) if top >= 1 else ("ms", 1000.0)
    places = _places(list(measured))
    parts = [_text(0, -14, f"{name} ({unit})", 'font-weight="bold"')]
    for tick in range(round(top / step) + 1):
        y = _HEIGHT * (1 - tick * step / top)
        parts.append(f'<path d="M0 {y:.1f}H{_WIDTH}" stroke="#ddd"/>')
        parts.append(_text(-8, y + 4, f"{tick * step * scale:g}", 'text-anchor="end"'))
    parts += _x_axis(places, x_label)
    for line, (percent, colour) in enumerate(_LINES.items()):
        values = {load: getattr(each, percent) for load, each in measured.items()}
        points = [
            (places[load], _HEIGHT * (1 - value / top))
            for load, value in values.items()
            if value is not None
        ]
        parts += _line(points, colour)
        x = _WIDTH - 40 * (len(_LINES) - line)
        parts.append(_text(x + 16, -14, percent, f'fill="{colour}" font-weight="bold"'))
    return parts


def _x_axis(places: dict[float, float], label: str) -> list[str]:
    parts = [f'<path d="M0 0V{_HEIGHT}H{_WIDTH}" fill="none" stroke="black"/>']
    last = -math.inf
    for load, x in places.items():
        parts.append(f'<path d="M{x:.1f} {_HEIGHT}v5" stroke="black"/>')
        if x - last >= _LABEL_ROOM:
            parts.append(_text(x, _HEIGHT + 19, f"{load:g}", 'text-anchor="middle"'))
            last = x
    parts.append(_text(_WIDTH / 2, _HEIGHT + 40, label, 'text-anchor="middle"'))
    return parts


def _line(points: list[Point], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    return [line] + [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points
    ]


def _places(loads: list[float]) -> dict[float, float]:
    """Where loads stand on the axis. It is logarithmic, since people double loads."""
    lowest, highest = math.log(min(loads)), math.log(max(loads))
    margin, room = 15, _WIDTH - 30
    if lowest == highest:
        return dict.fromkeys(loads, _WIDTH / 2)
    return {load: margin + room * (math.log(load) - lowest) / (highest - lowest) for load in loads}


def _tick_step(highest: float) -> float:
    """A round step of which about five reach the highest value."""
    rough = highest / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
