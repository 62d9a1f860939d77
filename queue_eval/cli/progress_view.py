"""How a run goes on, on the terminal or as lines."""

import time
from dataclasses import asdict
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from queue_eval.cli.output import print_json, print_notice
from queue_eval.core.progress import Progress
from queue_eval.report.escape import for_terminal

PLAIN_EVERY_S = 5.0


class ProgressView:
    """A live line on a terminal, a plain line now and then elsewhere, events with --json."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = Console(stderr=True)
        self._live = (
            Live(console=self._console, refresh_per_second=8, transient=True)
            if not as_json and self._console.is_terminal
            else None
        )
        self._last_at = 0.0
        self._last = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        if self._live:
            self._live.update(_bar(progress, self._console.width))
            return
        line, now = progress.line, time.monotonic()
        due = now - self._last_at >= PLAIN_EVERY_S or progress.done == progress.total
        if line == self._last or not due:
            return
        self._last, self._last_at = line, now
        if self._json:
            print_json({"event": "progress", **asdict(progress)})
        else:
            print_notice(line)

    def notice(self, text: str) -> None:
        if self._json:
            print_json({"event": "notice", "text": text})
        elif self._live:
            self._console.print(Text(for_terminal(text)))
        else:
            print_notice(text)


def _bar(progress: Progress, width: int) -> Text:
    size = max(10, min(30, width // 4))
    full = size * progress.done // max(1, progress.total)
    text = Text()
    text.append("█" * full, "green").append("░" * (size - full), "dim").append(" ")
    return text.append(for_terminal(progress.line), "yellow" if progress.hold else "")
