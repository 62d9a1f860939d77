"""Opens a case file as text, plain or gzipped, and bounds what a small .gz may become."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from queue_eval.core.errors import DataError, NoInputError
from queue_eval.dataset.bounds import Bounds

FREE_BYTES = 10_000_000  # a .gz may always grow this far


class _Inflating(io.RawIOBase):
    """Raw bytes of a gzip stream, refused when they outgrow their file by too much."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed with this object
        self._allowed = max(FREE_BYTES, path.stat().st_size * bounds.max_decompression_ratio)
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        self._read += len(data)
        if self._read > self._allowed:
            raise DataError(
                f"{self._path}: unpacks to more than {self._allowed:,} bytes; raise"
                " dataset_bounds.max_decompression_ratio if that is right"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def opened_text(path: Path | None, bounds: Bounds) -> Iterator[IO[str]]:
    """The text of a case file, or of standard input for None. NoInputError or DataError in one line."""
    name = str(path) if path else "standard input"
    if path is None and sys.stdin is None:
        raise NoInputError("standard input is closed; name a file of cases, or pipe one in")
    try:
        raw = sys.stdin.buffer if path is None else _binary(path, bounds)
        text = io.TextIOWrapper(cast("IO[bytes]", raw), encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        raise NoInputError(
            f"{name}: no such file; name a .jsonl, .json or .csv file of cases, or - for standard input"
        ) from None
    except OSError as error:
        raise NoInputError(f"{name}: {error.strerror or error}") from None
    try:
        yield text
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: broken or half-written gzip ({error}); write it again") from None
    except OSError as error:
        raise NoInputError(f"{name}: {error.strerror or error}") from None
    finally:
        text.detach() if path is None else text.close()


def _binary(path: Path, bounds: Bounds) -> IO[bytes]:
    if path.exists() and not path.is_file():  # reading a pipe without a writer would wait for ever
        raise OSError(22, "is no regular file; name a file of cases, or pipe them in with -")
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", io.BufferedReader(_Inflating(path, bounds), 1 << 16))
    return path.open("rb")
