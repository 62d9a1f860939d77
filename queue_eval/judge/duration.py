"""How long servers ask to wait, in the words that they have for it."""

import re

_HOURS, _MINUTES, _SECONDS, _MILLIS = (
    r"h(?:ours?|rs?)?",
    r"m(?:in(?:ute)?s?)?",
    r"s(?:ec(?:ond)?s?)?",
    r"(?:ms|milliseconds?)",
)
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)\s?"
# the end of a unit, or the next part's number: 1m26.4s
_END = r"(?![a-z])[\s,]{0,2}"
_PARTS = re.compile(
    "".join(rf"(?:{_NUMBER}{unit}{_END})?" for unit in (_HOURS, _MINUTES, _SECONDS, _MILLIS)), re.IGNORECASE
)
_PLAIN = re.compile(r"\d{1,15}(?:\.\d{1,9})?")
_IN_WORDS = re.compile(r"(?:retry|try again)\s+(?:in|after)\s+", re.IGNORECASE)


def seconds(text: str) -> float | None:
    """Read `20`, `20ms`, `1m26.4s`, `2h`, `6 seconds`; a number alone is of seconds. None for anything else."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    found = _PARTS.fullmatch(text)
    return _sum(found) if found and text else None


def asked_in_words(text: str) -> float | None:
    """Find the first `retry in …` or `try again after …` that names a time."""
    for asked in _IN_WORDS.finditer(text):
        found = _PARTS.match(text, asked.end())
        if found and found[0]:
            return _sum(found)
        if plain := _PLAIN.match(text, asked.end()):
            return float(plain[0])
    return None


def _sum(found: re.Match[str]) -> float:
    hours, minutes, seconds_, millis = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds_ + millis / 1000
