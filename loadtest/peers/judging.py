"""DeepEval's own metrics and OpenAI client, as every peer uses them, and a line in a file for each case that is scored."""

import asyncio
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

SCORED = "scored.log"


def rows(folder: Path = Path()) -> list[dict[str, Any]]:
    with (folder / "cases.jsonl").open() as file:
        return [json.loads(line) for line in file]


@functools.cache
def model() -> Any:
    """One for a process."""
    from deepeval.models import OpenAIModel

    os.environ["OPENAI_API_KEY"] = "none"
    return OpenAIModel(model="gpt-4.1", base_url=os.environ["PEER_JUDGE_URL"], api_key="none")


def metrics() -> list[Any]:
    """For each case its own where cases run beside each other: a metric keeps its case's score."""
    from deepeval.metrics import AnswerRelevancyMetric, FaithfulnessMetric

    return [AnswerRelevancyMetric(model=model()), FaithfulnessMetric(model=model())]


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
