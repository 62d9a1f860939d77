"""queue-eval k8s drive"""

import asyncio
import logging
import os
import threading
import time

import click

from queue_eval.cli.follow import followed, saying
from queue_eval.cli.inputs import case_file, loaded, selection
from queue_eval.cli.k8s.options import cluster, cluster_options, workers_option
from queue_eval.cli.logs import log_json_lines
from queue_eval.cli.produce import from_file
from queue_eval.cli.say_report import say_report
from queue_eval.config.commit import commit_sha
from queue_eval.config.load import LoadedSettings
from queue_eval.core.errors import UsageError
from queue_eval.core.manifest import Manifest
from queue_eval.core.naming import checked_run_id
from queue_eval.core.report import Report
from queue_eval.core.run import RunState, RunStats
from queue_eval.kubernetes.driver import Driver, time_left_s
from queue_eval.kubernetes.jobs import STATUS_EVERY_S
from queue_eval.kubernetes.plan import RunPlan, plan_of
from queue_eval.ports import Store
from queue_eval.queue.connection import check
from queue_eval.queue.server import check_server
from queue_eval.wiring import queues, stores
from queue_eval.wiring.queues import RunQueue

log = logging.getLogger("queue_eval.kubernetes")

REDIS_WITHIN_S = 300.0


@click.command()
@click.argument("eval_yaml")
@click.option(
    "--run-id",
    metavar="R",
    help="[default: the name of this pod's Job, so that a restarted pod goes on with the same run]",
)
@click.option("--dataset", metavar="FILE", help="other cases than the file's")
@workers_option
@cluster_options
def command(
    eval_yaml: str, run_id: str | None, dataset: str | None, workers: int | None, context: str | None, namespace: str | None
) -> int:  # fmt: skip
    """In a pod of the cluster: produce the run of EVAL_YAML, start its workers, wait, finalize, and exit with the verdict.

    Safe to be killed and started again at any point.
    """
    run_id = run_id or os.environ.get("JOB_NAME")
    if not run_id:
        raise UsageError("k8s drive is for a pod of a Job; name the run with --run-id elsewhere")
    settings = loaded(eval_yaml)
    in_the_pods = settings.settings.kubernetes.dataset if settings.settings.kubernetes else None
    cases = dataset or in_the_pods or settings.dataset
    plan = plan_of(
        settings, checked_run_id(run_id), dataset=cases, commit_sha=commit_sha(os.environ, settings.path.parent)
    )
    log_json_lines(run_id=plan.run_id, commit=plan.commit_sha)
    driver = Driver(cluster(context, namespace), plan, sleep=time.sleep)
    report = asyncio.run(_drive(driver, plan, settings, cases, workers))
    say_report(report, plan.store, as_json=True)
    return report.exit_code


async def _drive(driver: Driver, plan: RunPlan, settings: LoadedSettings, cases: str, workers: int | None) -> Report:
    store = stores.open_store(plan.store, plan.run_id)
    await stores.probe_store(store, plan.store)
    owner = await asyncio.to_thread(driver.adopt_own_job, os.environ)
    async with queues.redis_client(
        plan.redis_url, os.environ, password_env=settings.settings.redis.password_env
    ) as client:
        await stores.build_patience(give_up_after_s=REDIS_WITHIN_S).insist(lambda: check(client, plan.redis_url))
        await check_server(client, plan.redis_url, lambda text: log.warning(text, extra={"event": "notice"}))
        queue = RunQueue.of(client, plan.run_id, queues.retention_of(settings.settings.redis))
        produce = from_file(
            settings, case_file(settings, cases), selection(None, None, 0, ()), run_id=plan.run_id, store_location=plan.store, source=cases
        )  # fmt: skip
        produced = await produce(queue, store)
        log.info("produced", extra={"event": "produced", "reason": f"{produced.manifest.dataset.cases} cases"})
        if not produced.state.over:
            new = await asyncio.to_thread(driver.start_workers, owner, size=workers)
            log.info("workers", extra={"event": "workers", "reason": "started" if new else "there already"})
        left_s = time_left_s(owner, time.time())
        return await _until_report(driver, produced.manifest, queue, store, timeout_s=left_s)


async def _until_report(
    driver: Driver, manifest: Manifest, queue: RunQueue, store: Store, *, timeout_s: float | None
) -> Report:
    """What the run is waited for with, and what its Jobs are tended with, at once. Beyond help, the report says what there is."""
    state: list[RunState] = []
    say = saying(queue, manifest)

    async def tell(stats: RunStats) -> None:
        state[:] = [stats.state]
        await say(stats)

    stopped = threading.Event()
    tending = asyncio.create_task(asyncio.to_thread(driver.tend, lambda: state[0] if state else None, stopped.is_set))
    following = asyncio.create_task(
        followed(manifest, queue, store, timeout_s=timeout_s, tell=tell, tell_every_s=STATUS_EVERY_S)
    )
    try:
        await asyncio.wait({tending, following}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done() and (why := await tending):
            log.error("beyond help", extra={"event": "beyond-help", "reason": why})
            following.cancel()
            return await followed(manifest, queue, store, timeout_s=0.0, tell=None, tell_every_s=None)
        return await following
    finally:
        stopped.set()  # the interpreter waits for its threads, and this one would watch for ever
