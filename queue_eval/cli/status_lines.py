"""The run's status as JSON lines, in the log of the process that follows it."""

from queue_eval.cli.output import print_json
from queue_eval.core.run import RunStats
from queue_eval.core.status_line import StatusLine
from queue_eval.runs.follow import Show
from queue_eval.runs.run import Run
from queue_eval.wiring.limiter_views import limiter_now

WORKERS_NAMED = 20  # of a run with hundreds, a line of the log would be too long


def status_lines(run: Run) -> Show:
    """Return a listener that prints each status as a JSON line: an operator far away reads this process' log."""

    async def show(stats: RunStats) -> None:
        limiter = await limiter_now(run.limiter)
        line = StatusLine.of(run.run_id, stats, limiter, most_workers=WORKERS_NAMED)
        print_json({"event": "status", **line.to_json()})

    return show
