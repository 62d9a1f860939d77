"""DeepEval's own runner: cases on standard input, a line of JSON with what it found.

python -m loadtest.parity.stock single|conversational
"""

import json
import sys
from typing import Any

import deepeval.metrics
from deepeval import evaluate
from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig
from deepeval.test_case import ConversationalTestCase, LLMTestCase, MultiTurnParams, SingleTurnParams, ToolCall, Turn

from loadtest.parity.metrics import CONVERSATIONAL, SINGLE
from loadtest.parity.model import HashJudge


def case(row: dict[str, Any]) -> Any:
    if "turns" in row:
        return ConversationalTestCase(**{**row, "turns": [Turn(**turn) for turn in row["turns"]]})
    tools = {name: [ToolCall(**call) for call in row[name]] for name in ("tools_called", "expected_tools")}
    return LLMTestCase(**{**row, **tools})


def metric(name: str, parameters: dict[str, Any]) -> Any:
    params = SingleTurnParams if name in SINGLE else MultiTurnParams
    own: dict[str, Any] = dict(parameters)
    if "evaluation_params" in own:
        own |= {"evaluation_params": [params(p) for p in own["evaluation_params"]], "name": name}
    if "available_tools" in own:
        own["available_tools"] = [ToolCall(**tool) for tool in own["available_tools"]]
    kind = getattr(deepeval.metrics, name)
    try:
        return kind(threshold=0.5, model=HashJudge(), **own)
    except TypeError:  # it asks no judge
        return kind(threshold=0.5, **own)


def main() -> int:
    served = SINGLE if sys.argv[1] == "single" else CONVERSATIONAL
    cases = [case(row) for row in json.load(sys.stdin)]
    found = []
    for name, one in served.items():
        outcome = evaluate(
            cases,
            [metric(name, one.parameters)],
            async_config=AsyncConfig(run_async=True, max_concurrent=8),
            cache_config=CacheConfig(write_cache=False, use_cache=False),
            display_config=DisplayConfig(show_indicator=False, print_results=False),
            error_config=ErrorConfig(ignore_errors=True),
        )
        found += [
            (name, int(result.name.split()[1]), data.score, data.success, data.reason, data.error)
            for result in outcome.test_results
            for data in result.metrics_data
        ]
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
