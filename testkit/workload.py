"""Cases and files for measurements."""

import json
import random
from pathlib import Path
from typing import Any

WORDS = [
    "order",
    "parcel",
    "refund",
    "invoice",
    "delivery",
    "warranty",
    "account",
    "password",
    "store",
    "voucher",
    "return",
    "battery",
    "charger",
    "cable",
    "screen",
]


def write_cases(path: Path, count: int, *, context_characters: int = 600, seed: int = 1) -> Path:
    """Cases with about this much context each; the same seed gives the same file."""
    chance = random.Random(seed)
    with path.open("w") as file:
        for n in range(count):
            facts = [
                f"The {chance.choice(WORDS)} number {n} takes {chance.randint(1, 60)} days."
                for _ in range(max(1, context_characters // 40))
            ]
            row = {
                "name": f"case {n}",
                "input": f"How long takes number {n}?",
                "actual_output": facts[0],
                "retrieval_context": facts,
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_eval(folder: Path, **sections: Any) -> Path:
    body = {
        "dataset": "cases.jsonl",
        "metrics": [{"type": "AnswerRelevancyMetric"}, {"type": "FaithfulnessMetric"}],
        "judge": {"type": "lexical"},
        **sections,
    }
    path = folder / "eval.yaml"
    path.write_text(json.dumps(body))
    return path
