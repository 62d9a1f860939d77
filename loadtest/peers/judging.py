"""DeepEval's own metrics and OpenAI client, as every peer uses them, and a line in a file for each case that is scored."""

import asyncio
import functools
import json
import os
import ssl
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

SCORED = "scored.log"
PER_CALL = "per call"


def rows(folder: Path = Path()) -> list[dict[str, Any]]:
    with (folder / "cases.jsonl").open() as file:
        return [json.loads(line) for line in file]


_tls = functools.cache(ssl.create_default_context)


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()


def _client() -> Any:
    """Of the loop that runs; a new one where none does yet."""
    from openai import DefaultAsyncHttpxClient

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return DefaultAsyncHttpxClient(verify=_tls())
    if loop not in _clients:
        _clients[loop] = DefaultAsyncHttpxClient(verify=_tls())
    return _clients[loop]


def model() -> Any:
    """As it comes, DeepEval's OpenAI model makes a client and reads its certificates for every call, 22 ms of CPU each.

    It is given one client for an event loop, since a client serves no second one, unless PEER_CLIENT asks for a client per call.
    """
    from deepeval.models import OpenAIModel

    os.environ["OPENAI_API_KEY"] = "none"
    shown: dict[str, Any] = {"model": "gpt-4.1", "base_url": os.environ["PEER_JUDGE_URL"], "api_key": "none"}
    if os.environ.get("PEER_CLIENT") != PER_CALL:
        shown["async_http_client"] = _client()
    return OpenAIModel(**shown)


def metrics() -> list[Any]:
    """For each case its own where cases run beside each other: a metric keeps its case's score."""
    from deepeval.metrics import AnswerRelevancyMetric, FaithfulnessMetric

    one = model()
    return [AnswerRelevancyMetric(model=one), FaithfulnessMetric(model=one)]


def case(row: dict[str, Any]) -> Any:
    from deepeval.test_case import LLMTestCase

    return LLMTestCase(**row)


def scored(row: dict[str, Any]) -> None:
    """A single small write, so that many processes can share the file."""
    with Path(SCORED).open("a") as file:
        file.write(f"{time.time():.3f} {row['name']}\n")


async def judge(row: dict[str, Any]) -> None:
    """One case, both metrics at a time."""
    judged, both = case(row), metrics()
    await asyncio.gather(*(metric.a_measure(judged, _show_indicator=False) for metric in both))
    if all(metric.score is not None for metric in both):
        scored(row)


def judge_in_a_job(row: dict[str, Any]) -> None:
    """For queues whose jobs are functions."""
    asyncio.run(judge(row))
