"""Untrusted text made harmless for the place where it is shown."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")
# a semicolon or a line break begins a cell where semicolons divide them; quotes around it are the table's
_FORMULA = re.compile(r"(\A(?=[\t\r\n])|(?:\A|[;\t\r\n])[\"']*(?=[=+\-@＝＋－＠]))")


def for_cell(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula, nor a part of it where semicolons divide cells."""
    return _FORMULA.sub(r"\1'", text)


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
    """Without characters that XML 1.0 cannot hold; the serializer does the rest."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
