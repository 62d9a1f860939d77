"""The cases of a run on local disk, so that the producer's memory does not grow with their payloads."""

import hashlib
import math
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from queue_eval.core.case import Case
from queue_eval.core.weight import combined, heaviest_first


class Spool:
    """Append every case once, then read them in either order.

    Memory: 32 bytes a case, about 150 more while they are ordered.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="queue-eval-")  # noqa: SIM115 - closed with this object
        self._offsets = array("q")
        self._lengths = array("q")
        self._estimates = array("d")
        self._measured_s = array("d")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, case: Case, estimate: float, measured_s: float | None) -> None:
        data = case.to_json()
        # the place is no part of what is measured: a renamed file is the same set
        self._digest.update(case.case_id.encode() + b"\n")
        self._offsets.append(self._offsets[-1] + self._lengths[-1] if self._offsets else 0)
        self._lengths.append(len(data))
        self._estimates.append(estimate)
        self._measured_s.append(math.nan if measured_s is None else measured_s)
        self._file.write(data)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def in_order(self) -> Iterator[bytes]:
        return self._read(range(len(self)))

    def heaviest_first(self) -> Iterator[bytes]:
        weights = combined(self._estimates, self._measured_s)
        return self._read(heaviest_first([(weight, position) for position, weight in enumerate(weights)]))

    def _read(self, positions: Iterable[int]) -> Iterator[bytes]:
        for position in positions:
            self._file.seek(self._offsets[position])
            yield self._file.read(self._lengths[position])
