"""Finds the material in DeepEval's prompts: the texts that stand between the instructions and the final `JSON:`."""

import ast
import re
from dataclasses import dataclass

_END = r"\s*(?:-{3}.*?)?\n*JSON:\s*$"


@dataclass(frozen=True, slots=True)
class Shape:
    """The headings under which a prompt of one kind gives its material, in order."""

    headings: tuple[str, ...]

    def find(self, prompt: str) -> tuple[str, ...] | None:
        parts = [
            rf"{heading}:[ \t]*\n(.*{'?' if n + 1 < len(self.headings) else ''})"
            for n, heading in enumerate(self.headings)
        ]
        # the instructions end with `**`; the first such place counts, so that a case cannot imitate it
        match = re.search(r"\*\*[ \t]*\n\s*" + r"\n+\s*".join(parts) + _END, prompt, re.DOTALL)
        return tuple(part.strip() for part in match.groups()) if match else None


TRUTHS = Shape(("(?:Text|Excerpt)",))
CLAIMS = Shape(("(?:AI Output|Excerpt)",))
STATEMENTS = Shape(("Text",))
FAITHFULNESS = Shape(("Retrieval Contexts", "Claims"))
RELEVANCY = Shape(("Input", "Statements"))
HALLUCINATION = Shape(("Contexts", "Actual Output"))
PRECISION = Shape(("Input", "Expected output", r"Retrieval Context[^\n]*"))
RECALL = Shape(("Expected Output", "Retrieval Context"))
CONTEXT_RELEVANCY = Shape(("Input", "Context"))
REASON = re.compile(r"(?:^|\n)([^\n]*?[Ss]core):\s*\n\s*([0-9.]+)\s*\n")
FAULTS = re.compile(  # the lists of what lowered a score
    r"\n(?:Contradictions|Unsupportive Reasons|Reasons why the score can't be higher[^\n]*|Reasons for why the"
    r" retrieval context is irrelevant[^\n]*):\s*\n(\[.*?\])\n",
    re.DOTALL,
)
CRITERIA = re.compile(r"Evaluation Criteria:\n(.*?)\n\s*\*\*", re.DOTALL)

_TEST_CASE = re.compile(r"\n(?:Test Case:\n)(.*?)\n+Parameters:\n", re.DOTALL)
_PART = re.compile(r"(?:^|\n)(Input|Actual Output|Expected Output|Context|Retrieval Context):\n", re.DOTALL)


def as_list(text: str) -> list[str]:
    """A Python or JSON list as DeepEval prints it, else the paragraphs of the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [part.strip() for part in text.split("\n\n") if part.strip()]
    return [str(item) for item in value] if isinstance(value, list) else [text]


def test_case_parts(prompt: str) -> dict[str, str]:
    """The fields of the test case in a GEval prompt, by their headings."""
    whole = _TEST_CASE.search(prompt)
    text = whole.group(1) if whole else prompt
    marks = list(_PART.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark.group(1): text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)}
