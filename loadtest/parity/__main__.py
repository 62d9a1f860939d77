"""Every metric class of DeepEval by its own runner and by queue-eval, with the same judge, case by case.

python -m loadtest.parity [--cases N]
"""

import argparse
import sys
import tempfile
from pathlib import Path

from loadtest.parity.compared import compared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40, help="of each kind")
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        outcome = compared(Path(folder), cases)
    for name, differences in outcome.items():
        print(f"{'equal' if not differences else 'DIFFERS'}  {name}")
        for difference in differences[:3]:
            print(f"         {difference}")
    differing = sum(map(bool, outcome.values()))
    print(f"{len(outcome)} metrics on {cases} cases each: {len(outcome) - differing} equal, {differing} not")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
