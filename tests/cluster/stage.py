"""A run on the cluster of the tests, and what one does to it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from redis import Redis

from queue_eval.kubernetes import jobs
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.names import finalizer_name, selector, workers_name
from queue_eval.kubernetes.status import JobSeen, PodEnd, is_running, pod_end
from testkit.command import CANARY, Done, environment, write_cases
from testkit.measured import ROOT
from testkit.provider.server import Provider
from testkit.provider.wire import Fault
from testkit.waiting import wait_until
from tests.cluster.image import IMAGE
from tests.cluster.objects import secret
from tests.cluster.place import LEASE_S, PROGRAM, REDIS_FOLDER, REDIS_URL, STORE, USER_ID

WORKERS = {"concurrency": 4, "lease_s": LEASE_S, "grace_s": 3, "straggler_times": 0}
SMALL = {"cpu": "10m", "memory": "150Mi"}  # many pods on two cores

K8S = (sys.executable, "-m", "queue_eval", "k8s")
CALLS_OF_A_CASE = 7
KILLED = 128 + signal.SIGKILL


@dataclass
class Stage:
    """One run. `provider` is its judge, on this machine."""

    run_id: str
    folder: Path
    provider: Provider
    cluster: Cluster
    kubeconfig: str
    secrets: list[str] = field(default_factory=lambda: ["judge-credentials"])
    more: dict[str, str] = field(default_factory=dict)  # environment of the client

    # --- what a user does --------------------------------------------------------------------------------------------

    def write(self, cases: int, *, kubernetes: dict[str, Any] | None = None, **sections: Any) -> Path:
        write_cases(self.folder, cases)
        body = {
            "dataset": "cases.jsonl",
            "metrics": [{"type": "AnswerRelevancyMetric"}, {"type": "FaithfulnessMetric"}],
            "judge": {
                "type": "openai",
                "model": self.run_id,
                "base_url": self.provider.url,
                "api_key_env": "JUDGE_API_KEY",
            },
            "retry": {"base_delay_s": 0.1, "max_delay_s": 1.0, "call_timeout_s": 20, "case_attempts": 3},
            "workers": WORKERS,
            "redis": {"url": REDIS_URL},
            "store": "runs",
            "gate": {"metrics": {"AnswerRelevancy": {"min_mean": 0.1}}},
            **sections,
            "kubernetes": {
                "image": IMAGE,
                "image_pull_policy": "Never",
                "secrets": self.secrets,
                "volume_claim": "queue-eval-store",
                "workers": 2,
                "requests": SMALL,
                "limits": {"memory": "400Mi"},
                **(kubernetes or {}),
            },
        }
        path = self.folder / "eval.yaml"
        path.write_text(json.dumps(body))
        return path

    def k8s(self, verb: str, *arguments: str | Path, timeout_s: float = 180, namespace: str | None = None) -> Done:
        command = [*K8S, verb, *map(str, arguments), "-n", namespace or self.cluster.namespace]
        done = subprocess.run(
            command, cwd=self.folder, env=environment(KUBECONFIG=self.kubeconfig, **self.more), capture_output=True, text=True, timeout=timeout_s, check=False
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def submit(self, *arguments: str) -> Done:
        done = self.k8s("submit", "eval.yaml", "--run-id", self.run_id, *arguments)
        assert done.code == 0, done.err
        return done

    def begin(self, cases: int, *, stored: int = 2, **sections: Any) -> None:
        """Until so many results are there: all are at work, and much is left."""
        self.write(cases, **sections)
        self.submit()
        self.until(lambda: self.stored >= stored)

    def verdict(self, *, within_s: float = 150) -> int:
        """What `wait` prints; all of it stands in the assertion."""
        done = self.k8s("wait", self.run_id, timeout_s=within_s)
        assert done.code in (0, 1, 2), f"{done.err}\n{self.k8s('status', self.run_id).out}"
        return done.code

    def started(self, verb: str, *arguments: str) -> "subprocess.Popen[str]":
        command = [*K8S, verb, self.run_id, "-n", self.cluster.namespace, *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(KUBECONFIG=self.kubeconfig), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.k8s("status", self.run_id, "--json").out)
        return body

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def signal(self, pod: str, number: signal.Signals) -> None:
        for process in self.processes(pod):
            with contextlib.suppress(OSError):
                os.kill(process, number)

    @staticmethod
    def processes(pod: str) -> list[int]:
        """Of a pod's container: this machine is the node."""
        mark, found = f"POD_NAME={pod}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def delete_pod(self, name: str, *, at_once: bool = False) -> None:
        body = {"gracePeriodSeconds": 0} if at_once else {}
        self.cluster._patiently("DELETE", self.cluster._path("pods", name), body=body)

    def evict(self, name: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        self.cluster._patiently("POST", f"{self.cluster._path('pods', name)}/eviction", body=body)

    def patch_workers(self, **spec: Any) -> None:
        self.cluster.patch("jobs", workers_name(self.run_id), {"spec": spec})

    @contextlib.contextmanager
    def cordoned(self) -> Iterator[None]:
        """No new pods, as while a node is drained."""
        (node,) = self.cluster._patiently("GET", "/api/v1/nodes")["items"]
        path = f"/api/v1/nodes/{node['metadata']['name']}"
        for unschedulable in (True, False):
            self.cluster._patiently("PATCH", path, body={"spec": {"unschedulable": unschedulable}})
            if unschedulable:
                yield

    def environment_of_pods(self, values: dict[str, str]) -> None:
        """Through a Secret, before the run is written."""
        path, body = secret(f"environment-{self.run_id}", values)
        self.cluster._patiently("POST", path, body=body)
        self.secrets = ["judge-credentials", f"environment-{self.run_id}"]

    def second_finalizer(self) -> Callable[[], JobSeen]:
        name = finalizer_name(self.run_id)
        first = self.cluster.get("jobs", name)
        assert first
        body = jobs._like(first, f"{name}-2", "finalizer")
        self.cluster.create("jobs", body)

        def seen() -> JobSeen:
            found = self.cluster.get("jobs", f"{name}-2")
            assert found
            return JobSeen.of(found)

        return seen

    # --- what there is -----------------------------------------------------------------------------------------------

    def pods(self, role: str = "worker") -> list[Object]:
        return self.cluster.list("pods", labels=selector(self.run_id, role))[0]

    def running(self, role: str = "worker") -> list[str]:
        alive = [pod for pod in self.pods(role) if is_running(pod) and "deletionTimestamp" not in pod["metadata"]]
        return [pod["metadata"]["name"] for pod in alive]

    def ends(self, role: str = "worker") -> list[PodEnd]:
        return [end for pod in self.pods(role) if (end := pod_end(pod))]

    def job(self, number: int = 1) -> JobSeen:
        found = self.cluster.get("jobs", workers_name(self.run_id, number))
        assert found
        return JobSeen.of(found)

    def jobs(self) -> list[JobSeen]:
        return [JobSeen.of(job) for job in self.cluster.list("jobs", labels=selector(self.run_id, "worker"))[0]]

    @property
    def store(self) -> Path:
        return STORE / self.run_id

    @property
    def stored(self) -> int:
        return len(list((self.store / "results").glob("*.json")))

    @cached_property
    def redis(self) -> Any:
        """One connection: a new one for each look would soon come from a port that the node's NAT has not forgotten yet."""
        return Redis.from_url(REDIS_URL, decode_responses=True)

    def workers(self) -> list[dict[str, Any]]:
        """As the workers reported it at their last heartbeat."""
        names = self.redis.zrange(f"qe:workers:{self.run_id}", 0, -1)
        rows = [(name, self.redis.hget(f"rq:worker:{name}", "in_flight")) for name in names]
        return [{"name": name, "in_flight": int(count)} for name, count in rows if count is not None]

    def pod_with(self, *, work: bool) -> str:
        """A running worker that holds cases, or one that holds none."""
        found: list[str] = []

        def another() -> bool:
            seen = self.workers()
            found[:] = [w["name"] for w in seen if bool(w["in_flight"]) is work]
            # what is reported is a heartbeat old: a worker that seems idle is so only when another has the work
            return bool(found) and any(w["in_flight"] for w in seen)

        self.until(another, within_s=20)
        return self._pod_of(found[0])

    def _pod_of(self, worker: str) -> str:
        for pod in self.running():
            for line in self.cluster.log(pod).splitlines():
                if f'"worker": "{worker}"' in line:
                    return pod
        raise AssertionError(f"no pod is named {worker}")

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.store / "results.jsonl").read_text().splitlines()]

    def run_hash(self) -> dict[str, str]:
        found: dict[str, str] = self.redis.hgetall(f"qe:run:{self.run_id}")
        return found

    def state(self) -> str:
        return self.run_hash().get("state", "")

    def executions(self) -> int:
        return int(self.run_hash().get("executions", 0))

    def until(self, condition: Callable[[], object], *, within_s: float = 90) -> None:
        try:
            wait_until(condition, within_s=within_s)
        except AssertionError:
            raise AssertionError(
                f"not within {within_s:g} s:\n{self.k8s('status', self.run_id).out}\n{self.logs()}"
            ) from None

    def logs(self) -> str:
        return self.k8s("logs", self.run_id, "--tail", "30").out[-6000:]

    def printed(self, event: str, role: str = "worker") -> list[dict[str, Any]]:
        """JSON lines of the pods' logs."""
        found = []
        for pod in self.pods(role):
            for line in self.cluster.log(pod["metadata"]["name"]).splitlines():
                body = json.loads(line) if line.startswith("{") else {}
                if body.get("event") == event:
                    found.append(body)
        return found

    # --- the identity ------------------------------------------------------------------------------------------------

    def audited(self, cases: int, *, scored: int | None = None, dead: int = 0, lost_calls: int = 0) -> dict[str, Any]:
        """The accounting, held against the store's objects and the provider's own count. `lost_calls`: at most, of producers that died with them."""
        report = json.loads((self.store / "report.json").read_text())
        accounting: dict[str, Any] = report["accounting"]
        rows = self.rows()
        assert accounting["cases"] == cases == accounting["scored"] + accounting["dead"] + accounting["missing"]
        assert (accounting["scored"], accounting["dead"]) == (cases - dead if scored is None else scored, dead)
        assert self.stored == accounting["scored"]
        assert len({row["case_id"] for row in rows}) == cases
        records = [
            json.loads(path.read_bytes())
            for kind in ("results", "executions")
            for path in (self.store / kind).rglob("*.json")
        ]
        booked = {(r["case_id"], r["execution"], r["ending"]): r["usage"]["judge_calls"] for r in records}
        assert sum(booked.values()) == accounting["judge_calls"], booked
        hidden = self.provider.admitted - accounting["judge_calls"]
        unknown = accounting["unrecorded_executions"]
        # what a dead execution had asked only the provider knows; without one the two counts are the same
        assert 0 <= hidden <= unknown * 2 * CALLS_OF_A_CASE + lost_calls, (hidden, unknown)
        assert self.provider.keys <= {f"Bearer {CANARY}"}
        return accounting


def slow_case(number: int, *, latency_s: float) -> Callable[[int, dict[str, Any]], Fault | None]:
    """A judge that takes its time for one case. It has admitted the call: one that times out is in both books."""
    return lambda _n, body: Fault(latency_s=latency_s) if f"tem {number}" in str(body["messages"]) else None


@contextlib.contextmanager
def defective(stage: Stage, file: str, before: str, after: str) -> Iterator[None]:
    """A seeded defect: pods and client run a copy of the program with it."""
    folder = STORE / f"defect-{stage.run_id}"
    shutil.copytree(ROOT / "queue_eval", folder / "queue_eval", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / file
    text = path.read_text()
    assert text.count(before) == 1, (file, before)
    path.write_text(text.replace(before, after))
    stage.more = {"PYTHONPATH": str(folder)}
    stage.environment_of_pods({"PYTHONPATH": f"/store/{folder.name}"})
    yield


def that_takes_409_for_a_failure(stage: Stage) -> contextlib.AbstractContextManager[None]:
    creating = "if error.status not in (409, *REFUSED):\n                raise\n"
    mistaken = creating.replace("error.status not in (409, *REFUSED)", "True")
    return defective(stage, "queue_eval/kubernetes/cluster.py", creating, mistaken)


@contextlib.contextmanager
def poisoned(stage: Stage, metric: str) -> Iterator[None]:
    """A metric of the user's own, named `poison:Poison`: on the volume for the pods, on the path for the client."""
    folder = STORE / "poison"
    folder.mkdir(exist_ok=True)
    (folder / "poison.py").write_text(metric)
    stage.more = {"PYTHONPATH": str(folder)}
    stage.environment_of_pods({"PYTHONPATH": f"{PROGRAM}:/store/poison"})
    yield


def prepare_store() -> None:
    STORE.mkdir(exist_ok=True)  # the folder itself stays: it may be mounted into a node
    for old in STORE.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    (STORE / REDIS_FOLDER).mkdir()
    for folder in (STORE, STORE / REDIS_FOLDER):
        os.chown(folder, USER_ID, USER_ID)


def stays(condition: Callable[[], object], *, for_s: float) -> bool:
    """Whether something holds for a while."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        if not condition():
            return False
        time.sleep(0.1)
    return True
