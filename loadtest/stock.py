"""The peer: `deepeval.evaluate()` with its own OpenAI model at its best settings, on the same cases and the same judge."""

import json
import os
import sys
from pathlib import Path

import queue_eval.judge  # noqa: F401 - the same environment for DeepEval: telemetry off, its timeouts off


def main(cases: str, base_url: str, concurrency: str) -> None:
    from deepeval import evaluate
    from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
    from deepeval.metrics import AnswerRelevancyMetric, FaithfulnessMetric
    from deepeval.models import OpenAIModel
    from deepeval.test_case import LLMTestCase

    os.environ["OPENAI_API_KEY"] = "none"
    with Path(cases).open() as file:
        rows = [json.loads(line) for line in file]
    model = OpenAIModel(model="gpt-4.1", base_url=base_url, api_key="none")
    result = evaluate(
        [LLMTestCase(**row) for row in rows],
        [AnswerRelevancyMetric(model=model), FaithfulnessMetric(model=model)],
        async_config=AsyncConfig(run_async=True, max_concurrent=int(concurrency)),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False, use_cache=False),
        error_config=ErrorConfig(ignore_errors=False),
    )
    scored = sum(all(m.score is not None for m in r.metrics_data) for r in result.test_results)
    print(f"scored {scored} of {len(rows)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
