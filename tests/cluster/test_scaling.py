"""A thousand cases while the crew changes: nothing is lost or doubled, throughput follows the workers, and the limit is kept."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from testkit.measured import ROOT
from tests.cluster.place import MACHINE
from tests.cluster.stage import Stage

pytestmark = pytest.mark.alone

WINDOW_S, PER_WINDOW = 6.0, 600.0
BEFORE_ALL_OTHERS = os.sched_param(10)


@pytest.fixture
def judge() -> Iterator[str]:
    """Its URL. A process of its own, which goes before all others: a judge that stands still counts late what came in time."""
    rules = ["--requests", str(PER_WINDOW), "--window-s", str(WINDOW_S), "--kind", "sliding", "--latency", "0.5"]
    command = [sys.executable, "-m", "testkit.provider", "--host", MACHINE, "--lexical", *rules]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setscheduler(process.pid, os.SCHED_RR, BEFORE_ALL_OTHERS)
        assert process.stdout
        yield process.stdout.readline().strip()
        process.terminate()


def test_a_thousand_cases_with_three_eight_two_and_six_workers(stage: Stage, judge: str) -> None:
    limits = {"requests_per_minute": PER_WINDOW * 60 / WINDOW_S, "window": "sliding", "window_s": WINDOW_S}
    asked = {"type": "openai", "model": stage.run_id, "base_url": judge, "api_key_env": "JUDGE_API_KEY"}
    stage.write(1000, kubernetes={"workers": 3}, limits=limits, judge=asked)
    stage.submit()
    stage.until(lambda: stage.stored > 0)
    rates = {}
    for workers, until_stored in ((3, 120), (8, 480), (2, 600), (6, 1000)):
        assert stage.k8s("scale", stage.run_id, str(workers)).code == 0
        stage.until(lambda workers=workers: len(stage.running()) == workers or stage.stored >= 1000, within_s=90)  # type: ignore[misc]
        assert stage.job().backoff_limit >= 4 * workers  # a crew that was small at first may lose as many
        began, before = time.monotonic(), stage.stored
        stage.until(lambda until_stored=until_stored: stage.stored >= until_stored, within_s=240)  # type: ignore[misc]
        rates[workers] = (stage.stored - before) / (time.monotonic() - began)
    assert stage.verdict() == 0
    with urllib.request.urlopen(judge.removesuffix("/v1") + "/stats") as answer:
        counted = json.load(answer)
    stage.provider.admitted = counted["admitted"]
    accounting = stage.audited(1000)
    assert accounting["unrecorded_executions"] == 0
    assert accounting["retries_429"] == counted["statuses"].get("429", 0) == 0
    assert rates[2] < rates[3] < rates[8], rates
    assert rates[2] < rates[6], rates
    assert stage.job().failed == 0
