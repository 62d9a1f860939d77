"""Files in a folder that others may write: a link there may lead anywhere, and a pipe answers nobody."""

import errno
import os
import stat
from pathlib import Path

MOST_OBJECT_BYTES = 1 << 30
ODD = {errno.ELOOP, errno.ENXIO, errno.EFBIG}


def opened(path: Path, flags: int) -> int:
    """A descriptor of a regular file. OSError with a number of ODD where something else has its name."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0), 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "is no regular file", str(path))
    return descriptor


def read(path: Path, *, most_bytes: int = MOST_OBJECT_BYTES) -> bytes:
    with os.fdopen(opened(path, os.O_RDONLY), "rb") as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EFBIG, f"is larger than {most_bytes:,} bytes", str(path))
        return file.read(most_bytes)


def must_be_folder(path: Path) -> None:
    """OSError of ODD where a link has its name."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link", str(path))
