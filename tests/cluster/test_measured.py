"""What a worker of default settings takes in its pod: the figures of docs/measurements/kubernetes.md."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from queue_eval.config.kubernetes_settings import KubernetesSettings
from testkit.provider.wire import always
from tests.cluster.stage import Stage

pytestmark = pytest.mark.alone

CASES, PODS = 300, 2
DEFAULTS = KubernetesSettings(image="any")
MIB = 1 << 20


def test_a_worker_of_default_settings_lives_within_its_request_of_memory(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.provider.latency = always(2.0)
    stage.write(CASES, workers={}, kubernetes={"requests": DEFAULTS.requests, "limits": DEFAULTS.limits})
    stage.submit("--workers", "0")
    stage.until(lambda: stage.state() == "SEALED")
    assert stage.k8s("scale", stage.run_id, str(PODS)).code == 0
    stage.until(lambda: stage.stored >= CASES * 2 // 3)
    figures = [{**taken(stage, pod), "first_claim_after_s": first_claim_after_s(stage, pod)} for pod in stage.running()]
    assert stage.verdict() == 0
    stage.audited(CASES)
    with capsys.disabled():
        print("\n" + "\n".join(map(json.dumps, figures)))
    assert len(figures) == PODS
    asked_mib = int(DEFAULTS.requests["memory"].removesuffix("Mi"))
    assert all(row["peak_rss_mib"] <= asked_mib for row in figures), figures


def taken(stage: Stage, pod: str) -> dict[str, float]:
    (process,) = stage.processes(pod)
    status = Path(f"/proc/{process}/status").read_text()
    peak_kib = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
    times = os.sysconf("SC_CLK_TCK")
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    cpu_s, alive_s = (int(fields[11]) + int(fields[12])) / times, time.time() - began_at(process)
    return {"peak_rss_mib": round(peak_kib * 1024 / MIB), "cpu_s": round(cpu_s, 1), "alive_s": round(alive_s, 1)}


def began_at(process: int) -> float:
    """When the runtime forked it: it becomes our program in the same process, so the container's making is within."""
    ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted_at + ticks / os.sysconf("SC_CLK_TCK")


def first_claim_after_s(stage: Stage, pod: str) -> float:
    (start,) = [json.loads(line) for line in stage.cluster.log(pod).splitlines() if '"event": "start"' in line]
    records = [json.loads(path.read_text()) for path in (stage.store / "results").glob("*.json")]
    first = min(record["started_at"] for record in records if record["worker"] == start["worker"])
    return float(round(first - began_at(stage.processes(pod)[0]), 2))
