"""What an execution leaves in the store.

`results/<case id>.json` is written once and is the accepted outcome of a case; after a retry of its metrics without a
score it is the last of `results/<case id>.2.json` and so on. `executions/…` holds every other execution that spent
something: retried, released, dead, or beaten by another. Each judge call is counted in exactly one record, so the sum
over both is what the run spent.
"""

from pydantic import BaseModel, ConfigDict, Field

from queue_eval.core.ending import Ending
from queue_eval.core.usage import Usage

RECORD_VERSION = 1


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MetricResult(_Value):
    """One metric on one case: a score, or an error, never both."""

    name: str
    threshold: float
    score: float | None = Field(None, allow_inf_nan=False)  # from 0 to 1, but for metrics with a scale of their own
    passed: bool | None = None
    reason: str | None = None
    error: str | None = None
    retriable: bool = False  # of an error: another attempt may succeed
    duration_s: float = 0.0
    usage: Usage = Usage()


class Record(_Value):
    version: int = RECORD_VERSION
    run_id: str
    case_id: str
    ending: Ending
    execution: str  # the fencing token under which it was written
    delivery: int  # 1 for the first time the case was handed out
    worker: str
    started_at: float  # Unix seconds, the worker's clock
    ended_at: float
    busy_s: float = 0.0  # time with at least one judge call under way
    waited_s: float = 0.0  # sum over the calls of the time spent waiting for the limiter
    metrics: tuple[MetricResult, ...] = ()
    reason: str | None = None  # why it is dead, retried or released
    usage: Usage = Usage()
    name: str = ""
    place: str = ""
    tags: tuple[str, ...] = ()

    @property
    def lacks_scores(self) -> bool:
        return any(m.score is None for m in self.metrics)

    @property
    def without_texts(self) -> "Record":
        """What it cost, in a few hundred bytes."""
        return self.model_copy(update={"metrics": (), "reason": None})

    @property
    def duration_s(self) -> float:
        return max(0.0, self.ended_at - self.started_at)

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True, exclude_defaults=False).encode()

    @classmethod
    def whole(cls, stored: bytes | None, *, of: str) -> "Record | None":
        """None for an object that is absent, torn, or of another case than `of`: it counts as absent."""
        try:
            record = cls.from_json(stored) if stored else None
        except ValueError:
            return None
        return record if record and record.case_id == of else None

    @classmethod
    def result(cls, stored: bytes | None, *, of: str) -> "Record | None":
        """What stands under a result's name, if it is one."""
        record = cls.whole(stored, of=of)
        return record if record and record.ending is Ending.SCORED else None

    @classmethod
    def from_json(cls, data: bytes) -> "Record":
        """ValidationError (a ValueError) when the bytes are torn or not a record."""
        return cls.model_validate_json(data)
