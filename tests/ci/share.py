"""The part of the tests, or of the seeded defects, that takes turns: all of it, nothing, or one share of several."""

import hashlib
import subprocess
from dataclasses import dataclass

from testkit.measured import ROOT


@dataclass(frozen=True, slots=True)
class Share:
    index: int = 0
    of: int = 1  # 1: everything; 0: nothing

    @classmethod
    def named(cls, text: str) -> "Share":
        """`all`, `none`, or `K/N` with K from 1 to N. ValueError for anything else."""
        if text in ("all", "none"):
            return cls(0, 1 if text == "all" else 0)
        index, _, of = text.partition("/")
        if not 1 <= int(index) <= int(of):
            raise ValueError(f"{text!r} is no share: write all, none, or K/N with K from 1 to N")
        return cls(int(index) - 1, int(of))

    @classmethod
    def of_commit(cls, number: int, of: int = 4) -> "Share":
        """By the number of commits up to it: the same commit runs the same tests, four in a row run all of them."""
        return cls(number % of, of)

    def __str__(self) -> str:
        return ("none", "all")[self.of] if self.of < 2 else f"{self.index + 1}/{self.of}"

    def holds(self, name: str) -> bool:
        """By the name's hash: what is added or taken away moves nothing else to another share."""
        return self.of > 0 and int(hashlib.sha256(name.encode()).hexdigest(), 16) % self.of == self.index


def head() -> str:
    """The commit that is checked out."""
    return _git("rev-parse", "HEAD").strip()


def number_of_head() -> int:
    """How many commits lead to it; where the history is cut off, its hash."""
    if _git("rev-parse", "--is-shallow-repository").strip() == "true":
        return int(head(), 16)
    return int(_git("rev-list", "--count", "HEAD"))


def touched_lately(hours: int = 24) -> set[str]:
    """Files that the commits of the last hours before HEAD changed, and those changed since."""
    at = _git("log", "-1", "--format=%ct", "HEAD").strip()
    lately = _git("log", "--format=", "--name-only", f"--since={int(at) - 3600 * hours}", "HEAD")
    return {*lately.split("\n"), *_git("diff", "--name-only", "HEAD").split("\n")} - {""}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
