"""A judge in a process of its own that takes, for each case, as long as a file has it; prints its base URL.

python -m loadtest.paced SPENT.json [--per-minute N [--window-s 60]]
"""

import argparse
import asyncio
import json
import logging
import math
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.measured import ROOT
from testkit.provider.server import Provider, Rule
from testkit.provider.wire import Fault

MEAN_CHARACTERS = 600
CALLS_OF_A_CASE = 7  # of AnswerRelevancy and Faithfulness
ROUNDS = 3  # calls of a case that follow each other: what the text claims, whether that holds, why
ITEM = re.compile(r"[Ii]tem (\d+)")


def write_paced(folder: Path, spent_s: list[float], weights: Sequence[float]) -> Path:
    """cases.jsonl and the file for the judge."""
    write_texts(folder, weights, range(len(weights)))
    return write_spent(folder, spent_s)


def write_texts(folder: Path, weights: Sequence[float], order: Iterable[int]) -> None:
    """cases.jsonl. A text is as long as its case seems heavy; the number in it shows the judge which it is."""
    scale = MEAN_CHARACTERS * len(weights) / math.fsum(weights)
    with (folder / "cases.jsonl").open("w") as file:
        for n in order:
            fact = f"Item {n} is red. " + "It was painted at the works and " * int(scale * weights[n] / 32)
            row = {
                "input": f"What colour has item {n}?",
                "actual_output": f"Item {n} is red.",
                "retrieval_context": [fact],
            }
            file.write(json.dumps({"name": f"case {n}", **row}) + "\n")


def write_spent(folder: Path, spent_s: list[float]) -> Path:
    path = folder / "spent.json"
    path.write_text(json.dumps(spent_s))
    return path


@dataclass(frozen=True)
class Paced:
    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/stats", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def paced(spent: Path, *, per_minute: float = 0.0, window_s: float = 60.0) -> Iterator[Paced]:
    command = [sys.executable, "-m", "loadtest.paced", str(spent), "--per-minute", str(per_minute)]
    command += ["--window-s", str(window_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield Paced(process.stdout.readline().strip())
        finally:
            process.terminate()


def pace(spent_s: list[float], body: dict[str, Any]) -> Fault | None:
    """Waits for a round's share of the case's time. Texts that name no case wait for nothing: a question whether the judge is there."""
    found = ITEM.search(str(body["messages"]))
    return Fault(latency_s=spent_s[int(found[1])] / ROUNDS) if found else None


def _is_no_killed_client(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], ConnectionError))


async def serve(spent_s: list[float], per_minute: float, window_s: float) -> None:
    rules = (Rule(limit=per_minute * window_s / 60, window_s=window_s),) if per_minute else ()
    judge = Provider(fault=lambda _n, body: pace(spent_s, body), rules=rules, keep_bodies=False)
    logging.getLogger("aiohttp.server").addFilter(_is_no_killed_client)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await judge.serve()
    print(judge.url, flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spent", type=Path)
    parser.add_argument("--per-minute", type=float, default=0.0, help="requests it admits, in a sliding window")
    parser.add_argument("--window-s", type=float, default=60.0)
    args = parser.parse_args()
    asyncio.run(serve(json.loads(args.spent.read_text()), args.per_minute, args.window_s))


if __name__ == "__main__":
    main()
