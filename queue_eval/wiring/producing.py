"""The producer and its inputs."""

import platform
from functools import partial
from importlib.metadata import version

from queue_eval import __version__
from queue_eval.core.metric_spec import MetricSpec
from queue_eval.core.settings.run import RunSettings
from queue_eval.ports.store import Store
from queue_eval.producer.producer import Inputs, Producer
from queue_eval.wiring.clocks import steady_clock
from queue_eval.wiring.queues import RunQueue


def build_producer(
    store: Store, queue: RunQueue, specs: list[MetricSpec], earlier_busy_s: dict[str, float]
) -> Producer:
    from queue_eval.judge.metrics import faults  # noqa: PLC0415 - imports DeepEval

    return Producer(
        store=store,
        queue=queue.enqueueing,
        missing_fields=partial(faults, specs),
        earlier_busy_s=earlier_busy_s,
        now=steady_clock(),
    )


def inputs_of(run_id: str, settings: RunSettings, *, source: str, selection: str, commit_sha: str | None) -> Inputs:
    from queue_eval.judge.metrics import prompts_sha256  # noqa: PLC0415 - imports DeepEval

    return Inputs(
        run_id=run_id,
        settings=settings,
        source=source,
        selection=selection,
        metric_prompts_sha256=prompts_sha256(settings.specs),
        commit_sha=commit_sha,
        labels=settings.labels,
        versions={"queue-eval": __version__, "deepeval": version("deepeval"), "python": platform.python_version()},
    )
