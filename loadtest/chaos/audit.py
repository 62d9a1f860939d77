"""What a storm has left behind, by the store's own objects, the provider's own count and Redis' own counters."""

import gzip
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import boto3

from loadtest.chaos.scene import BUCKET, CALLS_OF_A_CASE, ITEM, RUN, Scene
from queue_eval.core.attempt import MAX_CRASHES


def audit(here: Scene, cases: int) -> dict[str, Any]:
    """Past the gate's and the proxy's faults."""
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
    executions = Counter((record["case_id"], record["execution"]) for record in (*results, *others))
    records = one_of_each((*results, *others))
    booked = sum(record["usage"]["judge_calls"] for record in records)
    run = here.run()
    return {
        "cases": cases,
        "scored": status["scored"],
        "dead": status["dead"],
        "lost": cases - status["scored"] - status["dead"],
        "counted_twice": len(rows) - len({row["case_id"] for row in rows}) + abs(len(results) - status["scored"]),
        "redis_differs_from_store": abs(int(run["scored"]) - len(results)) + abs(int(run["dead"]) - status["dead"]),
        "dead_without_cause": dead_without_cause(here, rows),
        "report_differs_from_store": abs(booked - accounting["judge_calls"]) + abs(accounting["scored"] - len(results)),
        "executions_recorded": len(executions),
        "executions_recorded_twice": sum(count > 1 for count in executions.values()),
        "provider_admitted": here.provider.admitted,
        "booked_calls": accounting["judge_calls"],
        **call_by_call(here, [r for r in records if r["ending"] != "overhead"], items),
        "deaths_in_redis": here.deaths_forgotten + here.deaths(),
        "unnoted": here.printed.count('"usage_not_recorded"'),
        "tracebacks": here.printed.count("Traceback"),
        "answers_of_the_store_lost": here.gate.lost,
        "answers_of_the_store_kept": here.gate.kept,
        "redis_bytes_swallowed": here.proxy.swallowed,
    }


def one_of_each(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """An execution that had to leave while the store was slow may be recorded twice."""
    chosen: dict[tuple[str, str], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record["usage"]["judge_calls"]):
        chosen[record["case_id"], record["execution"]] = record
    return list(chosen.values())


def dead_without_cause(here: Scene, rows: list[dict[str, Any]]) -> int:
    """In this storm only deaths of workers kill a case, and the delivery after the last of them shows it."""
    handed_out = here.deliveries() + here.forgotten
    found = [
        (row["case_id"], handed_out[row["case_id"]], row["reason"])
        for row in rows
        if row["status"] == "dead" and not MAX_CRASHES <= deaths_named(row["reason"]) < handed_out[row["case_id"]]
    ]
    for case_id, deliveries, reason in found:
        print(f"dead without cause: {case_id}, {deliveries} deliveries: {reason}", file=sys.stderr)
    return len(found)


def deaths_named(reason: str) -> int:
    found = re.match(r"(\d+) workers died with it", reason)
    return int(found[1]) if found else 0


def list_unknown(unknown: dict[str, int], records: list[dict[str, Any]], hidden: dict[str, int]) -> None:
    """One line for each case of which an execution left no record, on standard error: what is known of it, and what it cost."""
    named: dict[str, list[str]] = {case_id: [] for case_id, number in unknown.items() if number > 0}
    for record in records:
        if record["case_id"] in named:
            named[record["case_id"]].append(record["execution"])
    for case_id, known in named.items():
        line = {
            "case_id": case_id,
            "unknown_executions": unknown[case_id],
            "recorded": known,
            "calls_not_booked": hidden[case_id],
        }
        print(json.dumps(line), file=sys.stderr)


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
    list_unknown(unknown, records, hidden)
    most = 2 * CALLS_OF_A_CASE  # each may have been asked for twice
    for case_id, calls in hidden.items():
        if calls > unknown[case_id] * most:
            shown = [(r["execution"], r["ending"], r["usage"]) for r in records if r["case_id"] == case_id]
            print(f"{calls} calls in no book: {case_id}, {shown}", file=sys.stderr)
    return {
        "unknown_executions": sum(max(0, number) for number in unknown.values()),
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
