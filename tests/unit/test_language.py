"""Plain English wherever a person reads: the actors have names, and each thing has one."""

import ast
import io
import re
import tokenize
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
MOST_SEMICOLONS = 0.002  # of the words
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


def prose_of_code() -> Iterator[tuple[str, str]]:
    """Comments, docstrings and the names of tests, of what is not shipped."""
    for path in sorted(path for folder in ("tests", "testkit", "loadtest") for path in (ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        place = str(path.relative_to(ROOT))
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield f"{place}:{token.start[0]}", token.string
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{place}:{node.lineno}", node.name.replace("_", " ")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                yield f"{place}: {getattr(node, 'name', '')}", ast.get_docstring(node) or ""


def test_tests_are_in_plain_english_too() -> None:
    found = [(place, text) for place, text in prose_of_code() if ACTORLESS.search(text) or SAYING.search(text)]
    assert [f"{place}: {text.strip()[:100]}" for place, text in found] == []


def test_every_sentence_names_its_actor() -> None:
    assert [f"{place}: {line.strip()[:100]}" for place, line in lines() if ACTORLESS.search(line)] == []


def test_programs_do_not_speak() -> None:
    assert [f"{place}: {line.strip()[:100]}" for place, line in lines() if SAYING.search(line)] == []


def test_a_semicolon_is_rare() -> None:
    """Two sentences, or a list, are easier to read. Blocks of commands have theirs."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    often = {}
    for page in pages:
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        if (found := prose.count(";")) > 1 + MOST_SEMICOLONS * len(prose.split()):
            often[page.name] = found
    assert often == {}


@pytest.mark.parametrize("word", RENAMED)
def test_each_thing_has_one_name(word: str) -> None:
    found = [f"{place}: {line.strip()[:100]}" for place, line in lines() if re.search(word, line)]
    assert found == [], f"write {RENAMED[word]}"


def glossary() -> list[tuple[str, str]]:
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    return re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", text, re.MULTILINE)[1:]


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    words = [word for word, _ in glossary()]
    assert words == sorted(set(words), key=str.lower)


def test_every_word_of_the_glossary_is_in_use() -> None:
    everything = " ".join(line.lower() for place, line in lines() if not place.startswith("docs/reference/glossary.md"))
    assert [word for word, _ in glossary() if word.split(",")[0].lower() not in everything] == []
