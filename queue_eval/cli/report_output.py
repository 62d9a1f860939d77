"""What `run`, `finalize` and `retry` print at their end."""

from rich.console import Console
from rich.text import Text

from queue_eval.cli.output import print_json, shell_quoted, writing_output
from queue_eval.core.location import of_run, url_without_secret
from queue_eval.core.report import Report, cost_text
from queue_eval.report.escape import for_terminal

REASONS = 10  # of a verdict, as a line of a log carries them
_COLOUR = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}


class _Piped(Console):
    """Whose reader may leave: rich would exit with 1, a verdict's code."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_report(report: Report, location: str, *, as_json: bool, redis_url: str | None = None) -> None:
    """The verdict, the figures, and where the rest is. `redis_url`: a shared one, where the run is known."""
    shared = f" --redis {shell_quoted(url_without_secret(redis_url))}" if redis_url else ""
    where = f"{report.run_id}{shared} --store {shell_quoted(location)}"
    retry = f"queue-eval retry {where}" if report.lacks_scores else None
    if as_json:
        print_json(
            {
                "event": "report",
                "report": f"{of_run(location, report.run_id)}/report.json",
                "run_id": report.run_id,
                "verdict": report.verdict,
                "exit_code": report.exit_code,
                "reasons": report.gate.reasons[:REASONS],
                "next": retry,
            }
        )
        return
    with writing_output():
        _print_for_people(report, location, retry)


def _print_for_people(report: Report, location: str, retry: str | None) -> None:
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
    outcomes = f"{a.cases} cases{duplicates} = {a.scored} scored + {a.dead} dead + {a.missing} missing"
    console.print(
        Text(f"  {outcomes}; {a.judge_calls:,} judge calls, rate-limited {a.retries_429:,} times, {cost_text(a)}")
    )
    console.print(
        Text(
            f"  {report.elapsed_s:.1f} s; the bound with {report.in_flight} in flight,"
            f" within the limits, is {report.bound_s:.1f} s"
        )
    )
    if retry:
        console.print(Text(f"next: {retry}  (asks again for the metrics without a score)"))
    console.print(Text(f"report: {of_run(location, report.run_id)}/report.html"))


def _note(report: Report) -> list[str]:
    return [f"  (judge: {report.judge['warning']})"] if report.judge.get("warning") else []
