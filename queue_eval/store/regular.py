"""Open files in a folder that other users may write: a link there may lead anywhere, and a read from a pipe may never
return.
"""

import errno
import os
import stat
from pathlib import Path

MOST_OBJECT_BYTES = 1 << 30
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class OddFileError(OSError):
    """Something else has the name of a file or a folder of ours."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(errno.EINVAL, what, str(path))


def opened(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file. OddFileError where it is none."""
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OddFileError(path, "is a link") from error
        if error.errno == errno.ENXIO:
            raise OddFileError(path, "is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OddFileError(path, "is no regular file")
    return descriptor


def read(path: Path, *, most_bytes: int = MOST_OBJECT_BYTES) -> bytes:
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OddFileError(path, f"is larger than {most_bytes:,} bytes")
        return file.read(most_bytes)


def must_be_folder(path: Path) -> None:
    """OddFileError where a link has its name."""
    if path.is_symlink():
        raise OddFileError(path, "is a link")
