"""What DeepEval itself takes for a case when its judge answers at once, in memory: no worker can take less.

    python -m loadtest.floor [--cases 800]

AnswerRelevancy and Faithfulness beside each other, 64 cases at a time, after 64 that do not count.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from testkit.workload import write_cases

IN_FLIGHT = 64
ANSWERS: dict[str, Any] = {
    "statements": ["It takes 3 days."],
    "truths": ["It takes 3 days."],
    "claims": ["It takes 3 days."],
    "verdicts": [{"verdict": "yes"}],
    "reason": "It says so.",
}


async def judged(rows: list[dict[str, Any]]) -> None:
    from deepeval.metrics import AnswerRelevancyMetric, FaithfulnessMetric
    from deepeval.models import DeepEvalBaseLLM
    from deepeval.test_case import LLMTestCase

    class InMemory(DeepEvalBaseLLM):  # type: ignore[misc]  # deepeval has no type information
        def load_model(self) -> None: ...

        def get_model_name(self) -> str:
            return "in memory"

        def generate(self, prompt: str, schema: Any) -> Any:
            return schema.model_validate({field: ANSWERS[field] for field in schema.model_fields})

        async def a_generate(self, prompt: str, schema: Any) -> Any:
            return self.generate(prompt, schema)

    model = InMemory()

    async def one(row: dict[str, Any]) -> None:
        case = LLMTestCase(**row)
        both = [AnswerRelevancyMetric(model=model), FaithfulnessMetric(model=model)]
        await asyncio.gather(*(metric.a_measure(case, _show_indicator=False) for metric in both))

    for first in range(0, len(rows), IN_FLIGHT):
        await asyncio.gather(*(one(row) for row in rows[first : first + IN_FLIGHT]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=800)
    args = parser.parse_args()
    os.environ["DEEPEVAL_TELEMETRY_OPT_OUT"] = "1"
    with tempfile.TemporaryDirectory() as name:
        rows = [
            json.loads(line)
            for line in write_cases(Path(name) / "cases.jsonl", args.cases + IN_FLIGHT).read_text().splitlines()
        ]
        os.chdir(name)  # DeepEval leaves files where it runs
        asyncio.run(judged(rows[:IN_FLIGHT]))
        before_s = time.process_time()
        asyncio.run(judged(rows[IN_FLIGHT:]))
        print(json.dumps({"cpu_ms_per_case": round(1000 * (time.process_time() - before_s) / args.cases, 2)}))


if __name__ == "__main__":
    main()
