"""A test case as it travels: the fields of DeepEval's test case and an identity that depends on them alone."""

import hashlib
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from queue_eval.core.errors import DataError

_CASE_ID = re.compile(r"[0-9a-f]{24}(-[1-9][0-9]{0,9})?")
# producer.py's chunks are of 4 MB, and a case
MOST_CHUNK_BYTES, MOST_CHUNK_RATIO = 64_000_000, 200
CaseKind = Literal["single", "conversational"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    case_id: str  # content hash; the second of two identical cases ends in -2
    kind: CaseKind  # DeepEval's LLMTestCase or ConversationalTestCase
    fields: dict[str, Any]  # snake_case, as DeepEval's constructor takes them
    place: str  # where it was read, "cases.jsonl:12"

    @property
    def name(self) -> str:
        return str(self.fields.get("name") or self.place)

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(str(tag) for tag in self.fields.get("tags") or ())

    @property
    def is_authentic(self) -> bool:
        """Its content is what its id was made from."""
        return self.case_id.partition("-")[0] == _digest(self.kind, self.fields)

    def to_json(self) -> bytes:
        body = {"case_id": self.case_id, "kind": self.kind, "place": self.place, "fields": self.fields}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Case":
        body = json.loads(data)
        return cls(case_id=body["case_id"], kind=body["kind"], place=body["place"], fields=body["fields"])


def is_case_id(text: str) -> bool:
    """Whether we can have given it: it becomes part of object names."""
    return _CASE_ID.fullmatch(text) is not None


def unpacked_chunk(name: str, data: bytes) -> list[Case]:
    """The cases of one chunk of a manifest: gzipped JSON lines. DataError where it is torn."""
    try:
        return [Case.from_json(line) for line in _unzipped(data).splitlines()]
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{name}: torn, or not written by queue-eval ({type(error).__name__}: {error}); start a new run"
        ) from None


def _unzipped(data: bytes) -> bytes:
    """Unfold a chunk. ValueError where it holds more than a chunk can."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = inflater.decompress(data, max(MOST_CHUNK_BYTES, MOST_CHUNK_RATIO * len(data)))
    if not inflater.eof:
        raise ValueError("it ends too soon, or unfolds to more than a chunk holds")
    return text


class CaseIdentity:
    """Gives every case its id, and identical cases ids of their own, in the order of reading."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def of(self, kind: CaseKind, fields: dict[str, Any]) -> str:
        digest = _digest(kind, fields)
        self._seen[digest] += 1
        nth = self._seen[digest]
        return digest if nth == 1 else f"{digest}-{nth}"

    @property
    def duplicates(self) -> int:
        """Cases whose content had been seen before."""
        return sum(n - 1 for n in self._seen.values())


def _digest(kind: CaseKind, fields: dict[str, Any]) -> str:
    content = json.dumps([kind, fields], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:24]
