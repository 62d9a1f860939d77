"""Pictures of measurements, as SVG."""

from pathlib import Path

from loadtest.limiter.scenario import Outcome

WIDTH, HEIGHT, LEFT, TOP = 760, 220, 46, 26
STEP_S = 0.5


def releases(path: Path, title: str, outcome: Outcome) -> None:
    """Admitted requests in half-second steps against the configured rate."""
    _draw(path, f"{title}: calls per second that reach the provider", outcome, limits=())


def adaptation(path: Path, outcome: Outcome) -> None:
    scenario = outcome.scenario
    _draw(path, "The true limit falls to 60 % and comes back", outcome, limits=scenario.changes)


def _draw(path: Path, title: str, outcome: Outcome, *, limits: tuple[tuple[float, float], ...]) -> None:
    scenario = outcome.scenario
    full = scenario.limit / scenario.window_s
    steps = [
        (n * STEP_S, sum(n * STEP_S <= at < (n + 1) * STEP_S for at in outcome.arrivals) / STEP_S)
        for n in range(int(scenario.seconds / STEP_S))
    ]
    top = max(1.3 * full, *(rate for _, rate in steps))

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * at / scenario.seconds

    def y(rate: float) -> float:
        return HEIGHT - 24 - (HEIGHT - 24 - TOP) * rate / top

    truth, share, since = [], 1.0, 0.0
    for after_s, new in (*limits, (scenario.seconds, 1.0)):
        truth.append(f"M{x(since):.1f},{y(share * full):.1f}H{x(after_s):.1f}")
        share, since = new, after_s
    line = " ".join(f"{x(at):.1f},{y(rate):.1f} {x(at + STEP_S):.1f},{y(rate):.1f}" for at, rate in steps)
    marks = "".join(
        f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{TOP + 8}" stroke="#c0392b"/>'
        for at in outcome.refused_at
    )
    ticks = "".join(
        f'<text x="{x(scenario.seconds * n / 5):.0f}" y="{HEIGHT - 8}" text-anchor="{"end" if n == 5 else "middle"}">{scenario.seconds * n / 5:.0f} s</text>'
        for n in range(6)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/><text x="{LEFT}" y="14" font-weight="bold">{title}</text>'
        f'<text x="{LEFT - 4}" y="{y(full) + 4:.1f}" text-anchor="end">{full:.0f}/s</text>'
        f'<text x="{LEFT - 4}" y="{y(0) + 4:.1f}" text-anchor="end">0</text>'
        f'<path d="{"".join(truth)}" stroke="#888" stroke-dasharray="4 3" fill="none"/>'
        f'<polyline points="{line}" fill="none" stroke="#3b82c4" stroke-width="1.5"/>{marks}{ticks}'
        f'<text x="{WIDTH - 10}" y="14" text-anchor="end" fill="#555">dashed: the limit; red: answers 429 ({len(outcome.refused_at)})</text></svg>\n'
    )
