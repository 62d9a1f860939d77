"""Untrusted text made harmless for the place where it is shown."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")
# what moves a terminal's cursor, and more; in a file that is shown on one
_OF_TERMINALS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# a semicolon or a line break begins a cell where semicolons divide them; quotes around it are the table's
_FORMULA = re.compile(r"(\A(?=[\t\r\n])|(?:\A|[;\t\r\n])[\"']*(?=[=+\-@＝＋－＠]))")


def for_cell(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula, nor a part of it where semicolons divide cells."""
    return _FORMULA.sub(r"\1'", without_escapes(text))


def without_escapes(text: str) -> str:
    """Without what a terminal obeys. Line breaks and directions of writing stay."""
    return _OF_TERMINALS.sub("\ufffd", text)


def for_json_line(text: str) -> str:
    """JSON, whose encoder leaves what a terminal obeys beyond ASCII as it is."""
    return _OF_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def for_markdown(text: str, limit: int = 200) -> str:
    """One line that cannot mention, link, embed or break a table."""
    line = " ".join(_CONTROL.sub("", text).split())[:limit]
    line = line.replace("\\", "\\\\")
    line = re.sub(r"([`*_\[\]<>|!#~(){}])", r"\\\1", line)
    # a zero-width joiner keeps @name and #12 readable and without effect
    line = re.sub(r"(?i)\b(www)\.", "\\1\u2060.", line)
    return line.replace("@", "@\u2060").replace("://", ":\u2060//").replace("&", "&amp;")


def for_terminal(text: str) -> str:
    """Without control and direction characters."""
    return _CONTROL.sub("\ufffd", text.replace("\n", " "))


def for_xml(text: str) -> str:
    """Without characters that XML 1.0 cannot hold, or a terminal obeys; the serializer does the rest."""
    return re.sub(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
