"""Seconds to enqueue 5,000 cases of 4 KB: read, check, weigh, freeze in the store, put into Redis, seal.

python -m loadtest.enqueue [--cases 5000] [--characters 4000]
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from testkit.measured import run
from testkit.workload import write_cases, write_eval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--characters", type=int, default=4000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", args.cases, context_characters=args.characters)
        path = write_eval(folder)
        spent = run([sys.executable, "-m", "loadtest.worker_alone", str(path), "0"])
    if spent.code:
        sys.exit(spent.out)
    figures = json.loads(spent.out.splitlines()[-1])
    print(json.dumps({"cases": args.cases, "enqueue_s": figures["enqueue_s"], "rss_mb": figures["rss_mb"]}))


if __name__ == "__main__":
    main()
