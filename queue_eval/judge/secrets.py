"""What no reader may see in texts that servers and other people's models wrote."""

import base64
import html
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import unquote

LEAST_LENGTH = 6  # a shorter value stands in texts by chance
MOST_ESCAPED = 200  # characters: a pattern of more takes long to make
HIDDEN = "***"  # in place of a text that holds a secret in a form that cannot be cut out of it
READINGS = 3
_CODE = re.compile(r"\\{1,8}(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")
_ESCAPE = re.compile(r"[\\%&]")  # without one, a text holds nothing escaped
_SHAPE = re.compile(r"\b(sk|key|Bearer)[-_ ][A-Za-z0-9_*.-]{6,}")
_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$")


class Secrets:
    """Blanks values that are known, and what looks like a key."""

    def __init__(self, known: Callable[[], Iterable[str]] = tuple) -> None:
        self._known = known

    @classmethod
    def of(cls, environment: Mapping[str, str], *names: str) -> "Secrets":
        """The variables of these names, and those that are named like a secret: a model may read them by itself."""
        return cls(lambda: [v.strip() for n, v in environment.items() if n in names or _NAME.search(n)])

    def blanked(self, text: str) -> str:
        """Before it is shortened: half a key is one too."""
        return _SHAPE.sub(r"\1-***", self.without_known(text))

    def without_known(self, text: str) -> str:
        """For texts that are scored: what only looks like a key ("key findings") stays."""
        values = sorted((value for value in self._known() if len(value) >= LEAST_LENGTH), key=len, reverse=True)
        for value in values:
            may_be_escaped = " " in value or _ESCAPE.search(text)
            if not may_be_escaped or len(value) > MOST_ESCAPED:
                text = text.replace(value, "***")
            if may_be_escaped:
                text = _escaped(value).sub("***", text)
            for encoded in _in_base64(value):
                text = text.replace(encoded, "***")
        return HIDDEN if values and _hides_one(text, values) else text


def _hides_one(text: str, values: Iterable[str]) -> bool:
    """Whether a value comes to light when what is escaped is read, several times over, and lines are joined."""
    read = _unescaped(text) if _ESCAPE.search(text) else text
    joined = "".join(read.split())
    return any(
        value in read or value in joined or any(encoded in joined for encoded in _in_base64(value)) for value in values
    )


def _unescaped(text: str) -> str:
    for _ in range(READINGS):
        before = text
        text = html.unescape(unquote(_CODE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)))
        if text == before:
            break
    return text


@lru_cache(maxsize=1024)
def _escaped(value: str) -> re.Pattern[str]:
    """Match the value, with any of its characters as JSON, a URL or HTML may write them.

    Of a long one the beginning, and what stands behind that without a space.
    """
    rest = r"\S*" if len(value) > MOST_ESCAPED else ""
    return re.compile("".join(map(_character, value[:MOST_ESCAPED])) + rest)


def _character(character: str) -> str:
    plain, code = re.escape(character), ord(character)
    in_url = "".join(f"%{byte:02x}" for byte in _bytes(character))
    # the longest first: an & may begin an &amp;
    named = [re.escape(html.escape(character))] if html.escape(character) != character else []
    units = character.encode("utf-16-be", "surrogatepass")
    in_json = "".join(rf"\\{{1,4}}u(?i:{units[n : n + 2].hex()})" for n in range(0, len(units), 2))
    forms = [f"&#0{{0,4}}{code};", f"&#[xX]0{{0,4}}(?i:{code:x});", *named, in_json, f"(?i:{in_url})"]
    forms += [r"\+"] if character == " " else []
    # a backslash is doubled; before another character it stands as often as the text was escaped
    forms.append(r"\\{1,2}" if character == "\\" else rf"\\{{0,4}}{plain}")
    return f"(?:{'|'.join(forms)})"


def _bytes(text: str) -> bytes:
    """Return the text's bytes as the environment holds them, which may be no UTF-8."""
    return text.encode(errors="surrogateescape")


@lru_cache(maxsize=1024)
def _in_base64(value: str) -> tuple[str, ...]:
    """Return what stays the same of it in base64 whatever stands around it, for each of its three places."""
    found = []
    for before in range(3):
        data = b"\0" * before + _bytes(value)
        whole = len(data) // 3 * 3
        text = base64.b64encode(data[:whole]).decode()[4 if before else 0 :]
        if len(text) >= LEAST_LENGTH:
            found += [text, text.replace("+", "-").replace("/", "_")]
    return tuple(dict.fromkeys(found))
