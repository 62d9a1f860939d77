"""Charts of measurements, as SVG that any browser shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 260, 56, 150, 30, 40
COLOURS = ("#3b82c4", "#c0632b", "#5a9e5a", "#8a63b8", "#777777", "#b83b5e", "#2b9c9c", "#a08a2b")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    title: str
    x: str  # what is along, with its unit
    y: str
    log_x: bool = False
    stepped: bool = False
    bound: float | None = None  # a dashed line
    bound_name: str = ""

    def write(self, path: Path, series: Mapping[str, Points]) -> None:
        points = [point for line in series.values() for point in line]
        xs = [self._along(x) for x, _ in points]
        left, right = min(xs), max(xs)
        top = 1.1 * max([y for _, y in points] + ([self.bound] if self.bound else []))

        def place(x: float, y: float) -> tuple[float, float]:
            along = (self._along(x) - left) / ((right - left) or 1.0)
            return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y / top

        parts = [*self._frame(place, points, top)]
        for number, (name, line) in enumerate(series.items()):
            parts += self._line(place, line, name, number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
        )

    def _along(self, x: float) -> float:
        return math.log10(x) if self.log_x else x

    def _frame(self, place: Callable[[float, float], tuple[float, float]], points: Points, top: float) -> list[str]:
        right = WIDTH - RIGHT
        parts = [_text(LEFT, 16, self.title, weight="bold"), _text(right, HEIGHT - 8, self.x, anchor="end")]
        parts.append(_text(4, TOP - 2, self.y))
        for y in _ticks(top):
            _, at = place(points[0][0], y)
            parts.append(
                f'<path d="M{LEFT},{at:.1f}H{right}" stroke="#e4e4e4"/>{_text(LEFT - 5, at + 4, f"{y:g}", anchor="end")}'
            )
        xs = sorted({x for x, _ in points})
        for x in xs if self.log_x and len(xs) <= 8 else _ticks(max(xs)):
            at, _ = place(max(x, xs[0]), 0)
            parts.append(_text(at, HEIGHT - BOTTOM + 14, f"{x:g}", anchor="middle"))
        if self.bound is not None:
            _, at = place(points[0][0], self.bound)
            parts.append(f'<path d="M{LEFT},{at:.1f}H{right}" stroke="#888" stroke-dasharray="4 3"/>')
            parts.append(_text(right + 6, at + 4, self.bound_name, colour="#777"))
        return parts

    def _line(
        self, place: Callable[[float, float], tuple[float, float]], line: Points, name: str, number: int
    ) -> list[str]:
        colour = COLOURS[number % len(COLOURS)]
        placed = [place(x, y) for x, y in line]
        drawn = f"M{placed[0][0]:.1f},{placed[0][1]:.1f}"
        for x, y in placed[1:]:
            drawn += f"H{x:.1f}V{y:.1f}" if self.stepped else f"L{x:.1f},{y:.1f}"
        legend = TOP + 14 + 16 * number
        return [
            f'<path d="{drawn}" fill="none" stroke="{colour}" stroke-width="1.6"/>',
            f'<rect x="{WIDTH - RIGHT + 8}" y="{legend - 8}" width="10" height="3" fill="{colour}"/>',
            _text(WIDTH - RIGHT + 24, legend - 3, name),
        ]


def _ticks(top: float) -> list[float]:
    """Four to eight round figures from 0 to `top`."""
    step = 10 ** math.floor(math.log10(top / 4))
    step *= next((times for times in (1, 2, 5) if top / (step * times) <= 8), 10)
    return [n * step for n in range(int(top / step) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
