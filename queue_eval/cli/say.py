"""What the verbs print: for people, or JSON for programs."""

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from queue_eval.cli.logs import frames, json_line, of_the_pod
from queue_eval.core.location import of_run
from queue_eval.core.progress import Progress
from queue_eval.core.report import Report, cost_text
from queue_eval.report.escape import for_terminal

PLAIN_EVERY_S = 5.0
REASONS = 10  # of a verdict, as a line of a log carries them
_COLOUR = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say_json(body: Mapping[str, Any]) -> None:
    say(json.dumps({**body, **of_the_pod()}, ensure_ascii=True))


def say_error(message: str) -> None:
    """One line per fault, on standard error, each with our name in front."""
    try:
        for line in message.splitlines():
            _tell("error", f"queue-eval: {line}")
    except BrokenPipeError:
        unread(sys.stderr)  # the exit code says it all the same


def say_defect(error: Exception) -> None:
    """A traceback; in a pod without its words, for a log has more readers than a terminal."""
    said = "queue-eval: this is a defect of queue-eval; please report it with"
    if of_the_pod():
        _tell("error", f"{said} this line", traceback=frames(error))
        return
    sys.stderr.write("".join(traceback.format_exception(error)) + "\n")
    _tell("error", f"{said} the lines above")


def unread(stream: TextIO) -> None:
    """Its reader has left: what the interpreter still writes to it at the end goes nowhere, and is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say_notice(text: str) -> None:
    """Something to know, on standard error: programs read the other one."""
    _tell("notice", text)


def _tell(level: str, text: str, **more: str) -> None:
    """On standard error, which of a pod is a log: JSON lines."""
    pod = of_the_pod()
    line = json_line(time.time(), level, text, event=level, **pod, **more) if pod else for_terminal(text)
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class _Piped(Console):
    """Whose reader may leave: rich would exit with 1, a verdict's code."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


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
            say_json({"event": "progress", **asdict(progress)})
        else:
            say_notice(line)

    def notice(self, text: str) -> None:
        if self._json:
            say_json({"event": "notice", "text": text})
        elif self._live:
            self._console.print(Text(for_terminal(text)))
        else:
            say_notice(text)


def _bar(progress: Progress, width: int) -> Text:
    size = max(10, min(30, width // 4))
    full = size * progress.done // max(1, progress.total)
    text = Text()
    text.append("█" * full, "green").append("░" * (size - full), "dim").append(" ")
    return text.append(for_terminal(progress.line), "yellow" if progress.hold else "")


def say_report(report: Report, location: str, *, as_json: bool) -> None:
    """The verdict, the figures, and where the rest is."""
    if as_json:
        say_json(
            {
                "event": "report",
                "report": f"{of_run(location, report.run_id)}/report.json",
                "run_id": report.run_id,
                "verdict": report.verdict,
                "exit_code": report.exit_code,
                "reasons": report.gate.reasons[:REASONS],
            }
        )
        return
    console = _Piped(highlight=False, soft_wrap=True)
    console.print(Text.assemble("verdict: ", (report.verdict, _COLOUR[report.verdict]), *_note(report)))
    for reason in report.gate.reasons:
        console.print(Text(f"  {for_terminal(reason)}"))
    width = max(map(len, report.metrics), default=0)
    for name, metric in report.metrics.items():
        figures = (
            f"mean {metric.mean:.3f}, {metric.pass_rate:.1%} pass"
            if metric.mean is not None and metric.pass_rate is not None
            else "no scores"
        )
        errors = f", {metric.errors} errors" if metric.errors else ""
        console.print(Text(f"  {for_terminal(name):{width}}  {figures} of {metric.n}{errors}"))
    a = report.accounting
    duplicates = f" ({a.duplicates} identical to others)" if a.duplicates else ""
    console.print(
        Text(
            f"  {a.cases} cases{duplicates} = {a.scored} scored + {a.dead} dead + {a.missing} missing; {a.judge_calls:,} judge calls, {a.retries_429} x 429, {cost_text(a)}"
        )
    )
    console.print(
        Text(f"  {report.elapsed_s:.1f} s; the bound with {report.in_flight} in flight is {report.bound_s:.1f} s")
    )
    if a.dead:
        console.print(Text(f"next: queue-eval retry {report.run_id} --store {shell_quoted(location)}"))
    console.print(Text(f"report: {of_run(location, report.run_id)}/report.html"))


def _note(report: Report) -> list[str]:
    return [f"  (judge: {report.judge['warning']})"] if report.judge.get("warning") else []


def shell_quoted(word: str | os.PathLike[str]) -> str:
    text = str(word)
    return text if re.fullmatch(r"[\w./:@%+=,-]+", text) else "'" + text.replace("'", "'\\''") + "'"
