"""What nobody may see in texts that servers and other people's models wrote."""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, quote_plus

LEAST_LENGTH = 6  # a shorter value stands in texts by chance
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
        for value in sorted(self._known(), key=len, reverse=True):
            if len(value) >= LEAST_LENGTH:
                for spelling in _spellings(value):
                    text = text.replace(spelling, "***")
        return text


def _spellings(value: str) -> Iterable[str]:
    """As a server may repeat it: plain, in JSON with and without escaped slashes, in a URL, in HTML."""
    in_json = json.dumps(value)[1:-1]
    return {value, in_json, in_json.replace("/", "\\/"), quote(value, safe=""), quote_plus(value), html.escape(value)}
