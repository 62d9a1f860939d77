"""Where a storm takes place: Redis, a store, a judge, what stands before them, and a run."""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from redis import Redis
from redis.exceptions import RedisError

from testkit.gate import Gate
from testkit.measured import ROOT
from testkit.provider.server import Provider
from testkit.provider.wire import faults_by_chance, latency
from testkit.proxy import Proxy
from testkit.redis_server import BINARIES, Server
from testkit.s3_server import CREDENTIALS, moto

RUN = "storm"
BUCKET = "storm"
CALLS_OF_A_CASE = 6  # of AnswerRelevancy, and Faithfulness without its reason, when none has to be repeated
ITEM = re.compile(r"item-(\d+)", re.IGNORECASE)  # in every prompt of a case: which one it is
LEASE_S = 3.0
CONCURRENCY = 8
WORKERS_LOG = "log"


def write_run(folder: Path, cases: int, judge: str) -> None:
    with (folder / "cases.jsonl").open("w") as file:
        for n in range(cases):
            row = {"input": f"What colour has item-{n}?", "actual_output": f"Item-{n} is red."}
            file.write(json.dumps({**row, "retrieval_context": [f"Item-{n} is red."]}) + "\n")
    body = {
        "dataset": "cases.jsonl",
        "store": f"s3://{BUCKET}/runs",
        # the prompt for Faithfulness' reason names nothing of its case: it would not be known whose call it was
        "metrics": [{"type": "AnswerRelevancyMetric"}, {"type": "FaithfulnessMetric", "include_reason": False}],
        "judge": {"type": "openai", "model": "judge-small", "base_url": judge},
        "limits": {"requests_per_minute": 60_000, "window": "bucket"},
        "retry": {"base_delay_s": 0.1, "max_delay_s": 1.0, "call_timeout_s": 20, "case_attempts": 5},
        "workers": {"concurrency": CONCURRENCY, "lease_s": LEASE_S, "grace_s": 2, "straggler_least_s": 5},
        "gate": {},
    }
    (folder / "eval.yaml").write_text(json.dumps(body))


def item_of(body: dict[str, Any]) -> str:
    found = ITEM.search(body["messages"][-1]["content"])
    return found[1] if found else "nobody's"


@dataclass
class Scene:
    folder: Path
    server: Server
    proxy: Proxy
    gate: Gate
    provider: Provider
    forgotten: Counter[str] = field(default_factory=Counter)  # deliveries of each case that a flush made Redis forget
    deaths_forgotten: int = 0  # likewise

    def deliveries(self) -> Counter[str]:
        """Of each case, as Redis counts."""
        found = Counter[str]()
        with Redis.from_url(self.server.url) as redis:
            for key in redis.scan_iter(f"rq:job:queue-eval-{RUN}_*", count=1000):
                found[key.decode().removeprefix(f"rq:job:queue-eval-{RUN}_")] = int(redis.hget(key, "deliveries") or 0)
        return found

    def run(self) -> dict[str, str]:
        """As Redis counts."""
        with Redis.from_url(self.server.url, decode_responses=True) as redis:
            found: dict[str, str] = redis.hgetall(f"qe:run:{RUN}")
        return found

    def deaths(self) -> int:
        """Leases that ended without a word, and second executions: of a pair it is not counted which one died."""
        run = self.run()
        return int(run.get("reaped", 0)) + int(run.get("hedged", 0))

    @property
    def printed(self) -> str:
        return (self.folder / WORKERS_LOG).read_text()

    def left(self, cases: int) -> int:
        with Redis.from_url(self.server.url) as redis, suppress(RedisError):
            return cases - int(redis.hget(f"qe:run:{RUN}", "scored") or 0)
        return cases

    def verb(self, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.folder / WORKERS_LOG).open("ab")
        environment = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": self.gate.url}
        environment["QUEUE_EVAL_ALLOWED_JUDGES"] = self.provider.url
        environment["QUEUE_EVAL_ALLOWED_PLACES"] = f"s3://{BUCKET}"
        where = ["--redis", self.proxy.url, "--store", f"s3://{BUCKET}/runs"]
        command = [sys.executable, "-m", "queue_eval", *arguments, *where]
        with log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def must(self, *arguments: str) -> None:
        """Until it succeeds: it is safe to repeat, and things go wrong meanwhile."""
        for _ in range(20):
            process = self.verb(*arguments)
            try:
                code = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            if code in (0, 1, 2):
                return
        raise SystemExit(
            f"queue-eval {arguments[0]} never succeeded (exit code {code}); see {self.folder / WORKERS_LOG}"
        )


@contextmanager
def scene(seed: int, cases: int) -> Iterator[Scene]:
    binary = next((found for find in reversed(BINARIES.values()) if (found := find())), None)
    if binary is None:
        raise SystemExit("no redis-server on this machine")
    chance = random.Random(seed)
    draw = faults_by_chance(chance, errors=0.01, resets=0.005, hangs=0.001, hang_s=30)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        os.environ |= CREDENTIALS
        s3 = stack.enter_context(moto())
        boto3.client("s3", endpoint_url=s3).create_bucket(Bucket=BUCKET)
        gate = Gate(s3).start()
        stack.callback(gate.close)
        provider = Provider(
            latency=latency("lognormal:0.15:0.6", chance), fault=lambda _n, _b: draw(), keep_bodies=False, whose=item_of
        )
        stack.callback(provider.start().close)
        # with `everysec` a killed server may forget what it has answered (test_i05_i19…), and the audit could not know whose calls those were
        server = Server(binary, "--appendfsync", "always").start()
        stack.callback(server.close)
        proxy = Proxy(str(server.folder / "redis.sock")).start()
        stack.callback(proxy.close)
        write_run(folder, cases, provider.url)
        yield Scene(folder, server, proxy, gate, provider)
