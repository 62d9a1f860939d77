"""The `data` field of RQ's job hash: which callable, with which arguments. Never pickle, never imported by us."""

import zlib

HANDLER = "queue_eval.queue.rq_job.refuse"
_HEAD = f'["{HANDLER}",null,['.encode()
_TAIL = b"],{}]"
EMPTY = zlib.compress(_HEAD + b"null" + _TAIL, 1)


def packed(payload: bytes) -> bytes:
    """RQ's job data (JSON serializer, zlib) around a case; b"" travels as null."""
    return zlib.compress(_HEAD + (payload or b"null") + _TAIL, 1) if payload else EMPTY


def unpacked(data: bytes | None, *, max_bytes: int) -> bytes:
    """The payload again, b"" for null.

    ValueError when another program wrote it: a Redis user must not choose what runs.
    """
    if data is None:
        raise ValueError("Redis has lost the job's data")
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, max_bytes + len(_HEAD) + len(_TAIL))
    except zlib.error as error:
        raise ValueError(f"job data is not zlib: {error}") from None
    if not (text.startswith(_HEAD) and text.endswith(_TAIL)):
        raise ValueError("job data was not written by queue-eval, or is larger than a case may be")
    payload = text[len(_HEAD) : -len(_TAIL)]
    return b"" if payload == b"null" else payload


_UNMARKED = str.maketrans("<>&", "‹›+")


def unmarked(text: str) -> str:
    """What a dashboard shows as it stands: a judge's words and a file's name must not become its markup."""
    return text.translate(_UNMARKED)


def refuse(*_: object) -> None:
    """What a stock RQ worker finds when it is pointed at a run's queue by mistake."""
    raise RuntimeError("cases of queue-eval are scored by `queue-eval worker RUN`, not by `rq worker`")
