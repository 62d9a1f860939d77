"""How a run on a cluster is told to people."""

from typing import Any

from queue_eval.core.errors import EXIT_FAILED, EXIT_INCONCLUSIVE
from queue_eval.core.gate import Verdict
from queue_eval.kubernetes.overview import Overview
from queue_eval.kubernetes.status import JobSeen
from queue_eval.report.escape import for_terminal

VERDICTS = {0: Verdict.PASS, EXIT_FAILED: Verdict.FAIL, EXIT_INCONCLUSIVE: Verdict.INCONCLUSIVE}


def status_line(status: dict[str, Any]) -> str:
    known = status["total"] if status["total"] is not None else f"{status['ready'] + status['leased']} so far"
    done = status["scored"] + status["dead"]
    workers = status["workers_in_all"]
    parts = [
        f"{done}/{known} done",
        f"{status['leased']} in flight on {workers['count']} workers",
        f"{int(status['counters'].get('judge_calls', 0)):,} judge calls",
    ]
    if workers["waiting"]:
        parts.append(f"{workers['waiting']} calls wait for the limiter")
    if refused := int(status["counters"].get("retries_429", 0)):
        parts.append(f"{refused} x 429")
    if status["hold"]:
        parts.append(f"HELD: {status['hold']}")
    return for_terminal(" · ".join(parts))


def screen(view: Overview) -> list[str]:
    unknown = "nobody says how it stands" if view.is_enqueued or view.verdict is not None else "not enqueued yet"
    lines = [f"run {view.run_id}: {view.state or unknown}"]
    if status := view.status:
        lines.append(f"  {status_line(status)}")
        lines.append(
            f"  cases {status['total']} = {status['scored']} scored + {status['dead']} dead + {status['leased']} leased + {status['delayed']} delayed + {status['ready']} ready"
        )
        lines += _limiter(status.get("limiter"))
    if report := view.report:
        lines.append(f"  verdict {report['verdict']}: {report['report']}")
        lines += [f"    {reason}" for reason in report.get("reasons") or ()]
    elif view.verdict is not None:
        lines.append(f"  verdict {VERDICTS[view.verdict]}: its report is in the store")
    lines.append(f"  worker pods: {view.running} running, {view.pending} pending")
    lines += [f"  {_job(job)}" for job in view.jobs]
    for name, end in view.ends:
        lines.append(
            f"  ended: {name}: exit code {end.code} {end.reason}{' (disrupted)' if end.disrupted else ''} {end.last_words}"
        )
    lines += [f"  TROUBLE {trouble}" for trouble in view.troubles]
    return [for_terminal(line) for line in lines]


def _limiter(limiter: dict[str, Any] | None) -> list[str]:
    if not limiter:
        return []
    rates = ", ".join(
        f"{limiter['rate'][d] or 0:,.0f} of {limit:,.0f} {d}/min" for d, limit in limiter["limits"].items() if limit
    )
    slowed = f", controller at {limiter['factor']:.0%}" if limiter["factor"] < 1 else ""
    paused = f", PAUSED for {limiter['paused_s']:.0f} s" if limiter["paused_s"] else ""
    return [
        f"  limiter: {rates or 'no limit'}{slowed}{paused}, {limiter['waiting']} calls wait, {limiter['refused']} answers 429"
    ]


def _job(job: JobSeen) -> str:
    ended = f", {job.ended}{f' ({job.reason})' if job.reason and job.ended == 'Failed' else ''}" if job.ended else ""
    return f"Job {job.name}: {job.active} of {job.parallelism} active, {job.succeeded} succeeded, {job.failed} failed{ended}"
