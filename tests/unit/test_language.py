"""Plain English wherever a person reads: the actors have names, and each thing has one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# what reads as a riddle → what to write
ACTORLESS = re.compile(r"\b(nobody|somebody|everybody|anybody|whoever|hears?|heard)\b", re.IGNORECASE)
# programs print, log, report, return and read
SAYING = re.compile(r"\b(says?|said|tells?|told)\b", re.IGNORECASE)
# words of earlier drafts → the word of docs/reference/glossary.md
RENAMED = {
    r"\bbur(y|ied)\b": "dead-letter",
    r"\bvoid letters?\b": "revoked dead letter",
    r"\bsuspect (case|list)s?\b": "quarantine",
    r"\bSheets?\b": "ReportWriter",
    r"\bverbs\b(?!: \[)": "commands",
    r"\berrors? of use\b": "usage error",
    r"\bpumps?\b": "the loop that synchronises, or its request",
}
READ = (
    "README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "loadtest/README.md",
    "k8s/**/*.yaml", "examples/**/*.yaml", "docker/*", "Makefile", ".github/workflows/*.yml",
    "queue_eval/**/*.py", "queue_eval/**/*.lua",
)  # fmt: skip


def lines() -> Iterator[tuple[str, str]]:
    for pattern in READ:
        for path in sorted(ROOT.glob(pattern)):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                yield f"{path.relative_to(ROOT)}:{number}", line


def test_every_sentence_names_its_actor() -> None:
    assert [f"{place}: {line.strip()[:100]}" for place, line in lines() if ACTORLESS.search(line)] == []


def test_programs_do_not_speak() -> None:
    assert [f"{place}: {line.strip()[:100]}" for place, line in lines() if SAYING.search(line)] == []


@pytest.mark.parametrize("word", RENAMED)
def test_each_thing_has_one_name(word: str) -> None:
    found = [f"{place}: {line.strip()[:100]}" for place, line in lines() if re.search(word, line)]
    assert found == [], f"write {RENAMED[word]}"


def glossary() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    return re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", text, re.MULTILINE)[1:]


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = [word for word, _ in glossary()]
    assert words == sorted(set(words), key=str.lower)


def test_every_word_of_the_glossary_is_in_use() -> None:
    everything = " ".join(line.lower() for place, line in lines() if not place.startswith("docs/reference/glossary.md"))
    assert [word for word, _ in glossary() if word.split(",")[0].lower() not in everything] == []
