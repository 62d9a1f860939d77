"""queue-eval demo"""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files

import click

from queue_eval.cli.inputs import EVERY_CASE, case_file, run_id_or_new
from queue_eval.cli.options import json_option
from queue_eval.cli.output import print_json
from queue_eval.cli.produced import produced_lines
from queue_eval.cli.progress_view import ProgressView
from queue_eval.cli.report_output import print_report
from queue_eval.cli.template import worker_template
from queue_eval.config.load import LoadedSettings, load
from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core.location import DEFAULT_STORE
from queue_eval.core.progress import Progress
from queue_eval.core.report import Report
from queue_eval.local.forks import Template
from queue_eval.local.plan import Listeners, LocalPlan
from queue_eval.local.run import LocalRun
from queue_eval.local.worker_pool import WorkerPool
from queue_eval.producer.producer import Produced
from queue_eval.runs.produce import from_file

LATENCY_S = 0.12
KILL_AFTER = 6  # cases


@click.command()
@click.option("--store", default=DEFAULT_STORE, show_default=True, metavar="DIR")
@json_option
def command(store: str, as_json: bool) -> int:
    """24 cases of a support bot, three workers of which one is killed, a judge that is slow and rate-limited, a
    verdict.

    Needs no key and no server. The judge compares words. It stands behind HTTP on loopback like a real one.

    """
    run_id = run_id_or_new(None).replace("run-", "demo-", 1)
    with (
        worker_template() as template,
        as_file(files("queue_eval.local") / "demo") as folder,
        _endpoint() as base_url,
    ):
        loaded = _with_judge_at(base_url, load(folder / "eval.yaml", environment=os.environ))
        report = _run(loaded, run_id, store, template, as_json=as_json)
    print_report(report, store, as_json=as_json)
    return report.exit_code


def _with_judge_at(base_url: str, loaded: LoadedSettings) -> LoadedSettings:
    judge = loaded.settings.judge.model_copy(update={"base_url": base_url})
    return LoadedSettings(loaded.settings.model_copy(update={"judge": judge}), loaded.path)


def _run(loaded: LoadedSettings, run_id: str, store: str, template: Template | None, *, as_json: bool) -> Report:
    cases = case_file(loaded, None)
    produce = from_file(
        loaded, cases, EVERY_CASE, run_id=run_id, location=store, source="the demo's cases", environment=os.environ
    )  # fmt: skip
    plan = LocalPlan(
        run_id=run_id,
        store=store,
        redis_url=None,
        redis=RedisSettings(),
        workers=None,
        concurrency=None,
        environment=dict(os.environ),
    )
    with ProgressView(as_json=as_json) as view:
        accident = _Accident(view)

        def produced(what: Produced) -> None:
            if as_json:
                print_json({"event": "produced", "run_id": run_id, "cases": what.manifest.dataset.cases})
            for line in () if as_json else produced_lines(what, cases):
                view.notice(line)

        return asyncio.run(
            LocalRun(
                plan,
                produce,
                Listeners(produced=produced, progress=accident.watch, notice=view.notice, pool=accident.arm),
                template,
            ).run()
        )


class _Accident:
    """Kills one worker in the middle of the run, as an eviction would."""

    def __init__(self, view: ProgressView) -> None:
        self._view = view
        self._pool: WorkerPool | None = None

    def arm(self, pool: WorkerPool) -> None:
        self._pool = pool

    def watch(self, progress: Progress) -> None:
        self._view.show(progress)
        if self._pool and progress.done >= KILL_AFTER and self._pool.pids:
            victim, self._pool = self._pool.pids[0], None
            os.kill(victim, signal.SIGKILL)
            self._view.notice(
                f"killed worker process {victim}: its cases come back when their leases end, and another process takes"
                " its place"
            )


@contextmanager
def _endpoint() -> Iterator[str]:
    """The lexical judge over HTTP, in a thread of its own; its URL."""
    from queue_eval.judge.endpoint import LexicalEndpoint, serve  # noqa: PLC0415 - imports aiohttp's server

    loop = asyncio.new_event_loop()
    endpoint = LexicalEndpoint(
        latency_s=LATENCY_S, requests_per_minute=1800, window_s=2.0, now=time.monotonic, sleep=asyncio.sleep
    )
    ready: asyncio.Future[int] = loop.create_future()
    task = loop.create_task(serve(endpoint, port=0, ready=ready))
    port = loop.run_until_complete(ready)
    thread = threading.Thread(target=loop.run_forever, name="judge", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.call_later, 0.2, loop.stop)
        thread.join(5)
        loop.close()
