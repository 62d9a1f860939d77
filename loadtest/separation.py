"""How well a metric separates labelled cases: mean per label and the area under the ROC curve.

    python -m loadtest.separation runs/RUN/results.jsonl [--label right]

Cases carry their label in `metadata.label`; the area is the chance that a case with the named label scores higher than one without (ties count half).
"""

import argparse
import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from pathlib import Path


def area(positive: list[float], negative: list[float]) -> float:
    """Mann-Whitney U over its maximum."""
    ordered = sorted(negative)
    wins = sum((bisect_left(ordered, p) + bisect_right(ordered, p)) / 2 for p in positive)
    return wins / (len(positive) * len(negative))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--label", default="right")
    args = parser.parse_args()
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in args.results.read_text().splitlines():
        row = json.loads(line)
        for name, metric in row.get("metrics", {}).items():
            if metric["score"] is not None:
                scores[name][row["metadata"]["label"]].append(metric["score"])
    for name, by_label in scores.items():
        means = {label: round(sum(values) / len(values), 3) for label, values in sorted(by_label.items())}
        rest = [value for label, values in by_label.items() if label != args.label for value in values]
        print(json.dumps({"metric": name, "mean": means, "area_under_roc": round(area(by_label[args.label], rest), 3)}))


if __name__ == "__main__":
    main()
