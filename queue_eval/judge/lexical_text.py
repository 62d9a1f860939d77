"""Comparing texts by their words: what the lexical judge knows about language."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"\w+(?:['’.,]\w+)*", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+|(?<=[a-z)][.!?])(?=[A-Z])")
_CLAUSE = re.compile(
    r"[;:]\s+|,\s+(?:and|but|or|so|while|whereas|which|who)\s+|,\s+|\s+(?:and|but|because|whereas|although|while)\s+",
    re.IGNORECASE,
)
_NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "neither",
        "nor",
        "cannot",
        "without",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "don't",
        "doesn't",
        "didn't",
        "can't",
        "won't",
        "couldn't",
        "shouldn't",
        "hasn't",
        "haven't",
    ]
)
_STOP = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "he",
        "she",
        "they",
        "them",
        "his",
        "her",
        "their",
        "we",
        "our",
        "you",
        "your",
        "i",
        "me",
        "my",
        "us",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "will",
        "would",
        "can",
        "could",
        "should",
        "may",
        "might",
        "must",
        "shall",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "as",
        "and",
        "or",
        "but",
        "if",
        "then",
        "than",
        "so",
        "also",
        "there",
        "here",
        "what",
        "which",
        "who",
        "whom",
        "whose",
        "when",
        "where",
        "why",
        "how",
        "about",
        "into",
        "over",
        "under",
        "after",
        "before",
        "between",
        "during",
        "while",
        "both",
        "either",
        "each",
        "all",
        "any",
        "some",
        "such",
        "only",
        "own",
        "same",
        "too",
        "very",
        "just",
        "more",
        "most",
        "other",
        "s",
        "t",
        "as",
        "per",
        "via",
    ]
)
_NUMBER_WORDS = {
    w: str(n)
    for n, w in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}


@dataclass(frozen=True, slots=True)
class Words:
    """The comparable parts of a text."""

    content: tuple[str, ...]  # stems, stop words left out, in order
    numbers: frozenset[str]
    negated: bool

    @classmethod
    def of(cls, text: str) -> "Words":
        raw = [w.lower().replace("’", "'") for w in _WORD.findall(text)]
        numbers = frozenset(_number(n) for n in _NUMBER.findall(text)) | frozenset(
            _NUMBER_WORDS[w] for w in raw if w in _NUMBER_WORDS
        )
        content = tuple(stem(w) for w in raw if w not in _STOP and w not in _NEGATIONS)
        return cls(content, numbers, any(w in _NEGATIONS for w in raw))


def _number(text: str) -> str:
    return text.replace(",", "").rstrip(".:")


def stem(word: str) -> str:
    """Enough of a stem that plurals and common verb forms meet."""
    word = word.removesuffix("'s").removesuffix("'")
    for ending in ("ing", "edly", "ed", "ies", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def sentences(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def clauses(text: str) -> list[str]:
    """Statements of a text: its sentences, the longer ones cut where they join two thoughts."""
    found: list[str] = []
    for sentence in sentences(text):
        parts = [part.strip(" .") for part in _CLAUSE.split(sentence) if part and part.strip(" .")]
        held = ""
        for part in parts:
            held = f"{held}, {part}" if held else part
            if len(Words.of(held).content) >= 2:
                found.append(held)
                held = ""
        if held and found and parts[:-1]:
            found[-1] += f", {held}"
        elif held:
            found.append(held)
    return found


def phrases(text: str) -> list[str]:
    """What a text names, one phrase each: runs of content words, with the negation before them. "It was not signed in
    Paris" gives "not signed" and "Paris".
    """
    found: list[str] = []
    for sentence in sentences(text):
        run: list[str] = []
        negation = ""
        for word in [*_WORD.findall(sentence), ""]:
            low = word.lower().replace("’", "'")
            if low in _NEGATIONS:
                negation = word
            elif not word or low in _STOP:
                if run:
                    found.append(" ".join([negation, *run] if negation else run))
                    negation = ""
                run = []
            else:
                run.append(word)
    return found


def coverage(claim: Words, source: Words) -> float:
    """Share of the claim's content words that the source has; 1 for a claim without any."""
    if not claim.content:
        return 1.0
    known = set(source.content)
    return sum(word in known for word in claim.content) / len(claim.content)


def agreement(answer: str, expected: str) -> float:
    """Return 0 to 1: how far an answer agrees with what was expected.

    Recall of the expected words counts most; other numbers or a negation cost.
    """
    given, wanted = Words.of(answer), Words.of(expected)
    recall, precision = coverage(wanted, given), coverage(given, wanted)
    score = 0.75 * recall + 0.25 * precision
    if wanted.numbers - given.numbers:
        score *= 0.5
    if given.negated != wanted.negated:
        score *= 0.5
    return score
