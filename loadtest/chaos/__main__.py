"""A run in a storm, then an audit that trusts nobody. Prints one JSON line and says whether the figures are in their ranges.

python -m loadtest.chaos                  # 2,000 cases, 8 workers, at least 200 kills: about ten minutes
python -m loadtest.chaos --cases 150 --workers 3 --kills 10    # as CI does
"""

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from redis import Redis
from redis.exceptions import RedisError

from loadtest.chaos.gate import Gate
from loadtest.chaos.proxy import Proxy
from loadtest.chaos.storm import Crew, Storm, is_drained
from loadtest.measured import ROOT
from loadtest.provider.server import Provider
from loadtest.provider.wire import faults_by_chance, latency
from loadtest.ranges import check
from loadtest.redis_server import BINARIES, Server
from loadtest.s3_server import CREDENTIALS, moto

RUN = "storm"
BUCKET = "storm"
CALLS_OF_A_CASE = 6  # of AnswerRelevancy, and Faithfulness without its reason, when none has to be repeated
ITEM = re.compile(r"item-(\d+)", re.IGNORECASE)  # in every prompt of a case: which one it is
LEASE_S = 3.0
SLOWED_BY_S = 5.0


def write_run(folder: Path, cases: int, judge: str) -> None:
    with (folder / "cases.jsonl").open("w") as file:
        for n in range(cases):
            row = {"input": f"What colour has item-{n}?", "actual_output": f"Item-{n} is red."}
            file.write(json.dumps({**row, "retrieval_context": [f"Item-{n} is red."]}) + "\n")
    body = {
        "dataset": "cases.jsonl",
        "store": f"s3://{BUCKET}/runs",
        # the prompt for Faithfulness' reason names nothing of its case: nobody could tell whose call it was
        "metrics": [{"type": "AnswerRelevancyMetric"}, {"type": "FaithfulnessMetric", "include_reason": False}],
        "judge": {"type": "openai", "model": "judge-small", "base_url": judge},
        "limits": {"requests_per_minute": 60_000, "window": "bucket"},
        "retry": {"base_delay_s": 0.1, "max_delay_s": 1.0, "call_timeout_s": 20, "case_attempts": 5},
        "workers": {"concurrency": 8, "lease_s": LEASE_S, "grace_s": 2, "straggler_least_s": 5},
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
    forgotten: Counter[str] = field(
        default_factory=Counter
    )  # deliveries of each case that a flush has made Redis forget

    def deliveries(self) -> Counter[str]:
        """Of each case, as Redis counts."""
        found = Counter[str]()
        with Redis.from_url(self.server.url) as redis:
            for key in redis.scan_iter(f"rq:job:{RUN}_*", count=1000):
                found[key.decode().removeprefix(f"rq:job:{RUN}_")] = int(redis.hget(key, "deliveries") or 0)
        return found

    def left(self, cases: int) -> int:
        with Redis.from_url(self.server.url) as redis, suppress(RedisError):
            return cases - int(redis.hget(f"qe:run:{RUN}", "scored") or 0)
        return cases

    def verb(self, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.folder / "log").open("ab")
        environment = {**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": self.gate.url}
        where = ["--redis", self.proxy.url, "--store", f"s3://{BUCKET}/runs"]
        command = [sys.executable, "-m", "queue_eval", *arguments, *where]
        with log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def must(self, *arguments: str) -> None:
        """Until it succeeds: it is safe to repeat, and things go wrong meanwhile."""
        for _ in range(20):
            code = self.verb(*arguments).wait(180)
            if code in (0, 1, 2):
                return
        raise SystemExit(f"queue-eval {arguments[0]} never succeeded (exit code {code}); see {self.folder / 'log'}")


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
        server = Server(binary).start()
        stack.callback(server.close)
        proxy = Proxy(str(server.folder / "redis.sock")).start()
        stack.callback(proxy.close)
        write_run(folder, cases, provider.url)
        yield Scene(folder, server, proxy, gate, provider)


def weather(here: Scene, args: argparse.Namespace) -> tuple[Storm, dict[str, Any]]:
    """The storm until enough was killed, then fair weather until the run is drained."""
    crew = Crew(start=lambda: here.verb("worker", RUN), drained=lambda: is_drained(here.server, RUN), size=args.workers)

    def flush() -> None:
        """While everybody stands still, so that the audit knows what was forgotten."""
        with crew.standing_still():
            before = here.deliveries()
            _flush()
            here.forgotten = Counter(before)
            here.forgotten.subtract(here.deliveries())

    def _flush() -> None:
        with Redis.from_url(here.server.url) as redis:
            redis.flushall()
        here.must("enqueue", "eval.yaml", "--run-id", RUN)

    storm = Storm(crew, here.server, here.proxy, here.gate, flush, random.Random(args.seed))
    began = time.monotonic()
    flushed = restarted = False
    fair, storm_latency = here.provider.latency, lambda: SLOWED_BY_S + fair()
    while storm.is_short_of(args.kills) and crew.tend():
        # what is left must outlast what is still to come
        here.provider.latency = storm_latency if here.left(args.cases) < args.cases / 2 else fair
        time.sleep(storm.chance.uniform(0.2, 2 * args.pause_s - 0.2))
        storm.gust()
        if not restarted and storm.done["kill"] > args.kills / 4:
            restarted = True
            storm.restart_redis()
            storm.done["restart_redis"] += 1
        if not flushed and storm.done["kill"] > args.kills / 2:
            flushed = True
            storm.calm()
            storm.flush()
        if time.monotonic() - began > args.minutes * 60:
            raise SystemExit(f"the storm took longer than {args.minutes} minutes: {dict(storm.done)}")
    here.provider.latency = fair
    storm.calm()
    storm_s = time.monotonic() - began
    while crew.tend():
        time.sleep(0.1)
        if time.monotonic() - began > args.minutes * 60:
            raise SystemExit(f"not drained within {args.minutes} minutes")
    drained_after_s = time.monotonic() - began - storm_s
    return storm, {"storm_s": round(storm_s, 1), "drained_after_s": round(drained_after_s, 1), "flushed": int(flushed)}


def audit(here: Scene, cases: int) -> dict[str, Any]:
    """By the store's own objects, past the gate's faults, and the provider's own count."""
    s3 = boto3.client("s3", endpoint_url=here.gate.url)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"runs/{RUN}/")
    names = [row["Key"].split(f"{RUN}/", 1)[1] for page in pages for row in page.get("Contents", ())]

    def load(name: str) -> Any:
        body = s3.get_object(Bucket=BUCKET, Key=f"runs/{RUN}/{name}")["Body"].read()
        if name.endswith(".gz"):
            return [json.loads(line) for line in gzip.decompress(body).splitlines()]
        return [json.loads(line) for line in body.splitlines()] if name.endswith(".jsonl") else json.loads(body)

    report, rows = load("report.json"), load("results.jsonl")
    results = [load(name) for name in names if name.startswith("results/")]
    others = [load(name) for name in names if name.startswith("executions/")]
    accounting = report["accounting"]
    status = Counter(row["status"] for row in rows)
    frozen = [case for name in names if name.startswith("cases/") for case in load(name)]
    items = {case["case_id"]: found[1] for case in frozen if (found := ITEM.search(case["fields"]["input"]))}
    booked = sum(record["usage"]["judge_calls"] for record in (*results, *others))
    executions = Counter((record["case_id"], record["execution"]) for record in (*results, *others))
    return {
        "cases": cases,
        "scored": status["scored"],
        "dead": status["dead"],
        "lost": cases - status["scored"] - status["dead"],
        "counted_twice": len(rows) - len({row["case_id"] for row in rows}) + abs(len(results) - status["scored"]),
        "report_differs_from_store": abs(booked - accounting["judge_calls"]) + abs(accounting["scored"] - len(results)),
        "executions_recorded": len(executions),
        "executions_recorded_twice": sum(count > 1 for count in executions.values()),
        "provider_admitted": here.provider.admitted,
        "booked_calls": accounting["judge_calls"],
        **call_by_call(here, [r for r in (*results, *others) if r["ending"] != "overhead"], items),
        "answers_of_the_store_lost": here.gate.lost,
        "redis_bytes_swallowed": here.proxy.swallowed,
    }


def call_by_call(here: Scene, records: list[dict[str, Any]], items: dict[str, str]) -> dict[str, Any]:
    """Each case's booked calls beside those that the provider admitted for it.

    They are the same, unless an execution of the case ended without a record: what that one asked only the provider knows.
    """
    booked, tokens, unmetered = Counter[str](), Counter[str](), Counter[str]()
    recorded = Counter(record["case_id"] for record in records)
    for record in records:
        usage = record["usage"]
        booked[record["case_id"]] += usage["judge_calls"]
        tokens[record["case_id"]] += usage["input_tokens"] + usage["output_tokens"]
        unmetered[record["case_id"]] += usage["unmetered_calls"]
    handed_out = here.deliveries()
    unknown = {case_id: handed_out[case_id] + here.forgotten[case_id] - recorded[case_id] for case_id in items}
    hidden = {case_id: here.provider.admitted_by[item] - booked[case_id] for case_id, item in items.items()}
    most = 2 * CALLS_OF_A_CASE  # each may have been asked for twice
    return {
        "unknown_executions": sum(unknown.values()),
        "calls_of_unknown_executions": sum(calls for case_id, calls in hidden.items() if unknown[case_id]),
        "cases_with_calls_that_nobody_booked": sum(c > unknown[case_id] * most for case_id, c in hidden.items()),
        # the books are complete where no execution died, and no answer was lost on its way
        "cases_with_other_tokens_than_were_used": sum(
            tokens[case_id] != here.provider.used_by[item]
            for case_id, item in items.items()
            if not unknown[case_id] and not unmetered[case_id]
        ),
        # a call that is cancelled on its way is booked, without tokens: it may have arrived
        "cases_with_calls_that_were_never_made": sum(c + unmetered[case_id] < 0 for case_id, c in hidden.items()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs to workers, at least")
    parser.add_argument("--pause-s", type=float, default=1.2, help="between two things that go wrong, on average")
    parser.add_argument("--minutes", type=float, default=25, help="give up after so many")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with scene(args.seed, args.cases) as here:
        here.must("enqueue", "eval.yaml", "--run-id", RUN)
        storm, times = weather(here, args)
        here.must("finalize", RUN)
        kinds = {name: storm.done[name] for name in sorted(storm.done)}
        figures = {**audit(here, args.cases), **times, **kinds, "early_exits": storm.crew.early_exits, "exit_codes": {str(c): n for c, n in sorted(storm.crew.codes.items())}}  # fmt: skip
        if "Traceback" in (here.folder / "log").read_text():
            figures["tracebacks"] = (here.folder / "log").read_text().count("Traceback")
    figures.setdefault("tracebacks", 0)
    figures["kills_missing"] = max(0, args.kills - figures.get("kill", 0))
    print(json.dumps(figures))
    return check(Path(__file__).with_name("ranges.toml"), {"audit": figures})


if __name__ == "__main__":
    sys.exit(main())
