"""A run on a cluster, as lines for people."""

from queue_eval.core.errors import EXIT_FAILED, EXIT_INCONCLUSIVE
from queue_eval.core.gate import Verdict
from queue_eval.core.limiter_stats import LimiterStats, in_words
from queue_eval.core.status_line import StatusLine
from queue_eval.kubernetes.overview import Overview
from queue_eval.kubernetes.status import JobSeen
from queue_eval.report.escape import for_terminal

VERDICTS = {0: Verdict.PASS, EXIT_FAILED: Verdict.FAIL, EXIT_INCONCLUSIVE: Verdict.INCONCLUSIVE}


def status_line(status: StatusLine) -> str:
    stats, workers = status.stats, status.workers_in_all
    known = stats.total if stats.total is not None else f"{stats.ready + stats.leased} so far"
    parts = [
        f"{stats.terminal}/{known} done",
        f"{stats.leased} in flight on {workers.count} workers",
        f"{int(stats.counters.get('judge_calls', 0)):,} judge calls",
    ]
    if workers.waiting:
        parts.append(f"{workers.waiting} calls wait for the limiter")
    if refused := int(stats.counters.get("retries_429", 0)):
        parts.append(f"rate-limited {refused:,} times")
    if stats.hold:
        parts.append(f"HELD: {stats.hold}")
    return for_terminal(" · ".join(parts))


def screen(view: Overview) -> list[str]:
    unknown = "its state is unknown" if view.is_enqueued or view.verdict is not None else "not enqueued yet"
    lines = [f"run {view.run_id}: {view.state or unknown}"]
    if status := view.status:
        stats = status.stats
        lines.append(f"  {status_line(status)}")
        lines.append(
            f"  cases {stats.total} = {stats.scored} scored + {stats.dead} dead + {stats.leased} leased +"
            f" {stats.delayed} delayed + {stats.ready} ready"
        )
        lines += _limiter(status.limiter)
    if report := view.report:
        lines.append(f"  verdict {report['verdict']}: {report['report']}")
        lines += [f"    {reason}" for reason in report.get("reasons") or ()]
    elif view.verdict is not None:
        lines.append(f"  verdict {VERDICTS[view.verdict]}: its report is in the store")
    lines.append(f"  worker pods: {view.running} running, {view.pending} pending")
    lines += [f"  {_job(job)}" for job in view.jobs]
    for name, end in view.ends:
        lines.append(
            f"  ended: {name}: exit code {end.code} {end.reason}{' (disrupted)' if end.disrupted else ''}"
            f" {end.last_words}"
        )
    lines += [f"  TROUBLE {trouble}" for trouble in view.troubles]
    return [for_terminal(line) for line in lines]


def _limiter(limiter: LimiterStats | None) -> list[str]:
    if not limiter:
        return []
    slowed = f", controller at {limiter.factor:.0%}" if limiter.factor < 1 else ""
    paused = f", PAUSED for {limiter.paused_s:.0f} s" if limiter.paused_s else ""
    rates = in_words(limiter.rate, among=limiter.limits)
    return [f"  limiter: {rates}{slowed}{paused}, {limiter.waiting} calls wait, rate-limited {limiter.refused:,} times"]


def _job(job: JobSeen) -> str:
    ended = f", {job.ended}{f' ({job.reason})' if job.reason and job.ended == 'Failed' else ''}" if job.ended else ""
    return (
        f"Job {job.name}: {job.active} of {job.parallelism} active, {job.succeeded} succeeded, {job.failed}"
        f" failed{ended}"
    )
