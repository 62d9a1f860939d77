"""Publish a file under a name once: whole, or not at all, and by one writer of many."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from queue_eval.store.regular import opened

FILLED_WITHIN_S = 60.0  # a file that is still empty by then is what a crash left
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def publish_once(temporary: Path, descriptor: int, path: Path) -> bool:
    """Sync the written file, and give it its name; False where the name is taken.

    The temporary name is gone in either case.
    """
    try:
        os.fsync(descriptor)
        return _linked(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _linked(temporary: Path, path: Path) -> bool:
    """Give the finished file its name unless the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # a network volume may have lost the answer to our own link, and asked again
        return _is_same(temporary, path) or _replaced_torn(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _claimed(temporary, path)
    return True


def _claimed(temporary: Path, path: Path) -> bool:
    """Where a volume knows no hard links: take the name, empty, then rename onto it.

    A crash leaves an empty file, never half a one.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        return _replaced_torn(temporary, path)
    with _alone(path):
        if not _is_empty(path):
            return False  # we were so slow that our empty file counted as torn
        temporary.replace(path)
        return True


def _replaced_torn(temporary: Path, path: Path) -> bool:
    """An empty file is torn; but where a volume has no hard links, another writer may be about to fill it.

    The volume's own clock decides.
    """
    if not _is_empty(path):
        return False
    with _alone(path):
        if not _is_empty(path):
            return False  # another writer was faster
        age_s = temporary.stat().st_mtime - path.stat().st_mtime
        if age_s < FILLED_WITHIN_S and not _knows_hard_links(temporary):
            raise _being_written(path)
        temporary.replace(path)
        return True


@contextmanager
def _alone(torn: Path) -> Iterator[None]:
    """Of those who replace a torn file: each would see it empty, and all of them would win.

    The torn file is its own lock: a writer that waited for it finds another file under the name. No writer waits here,
    for its holder may be a stopped process.
    """
    import fcntl  # noqa: PLC0415 - POSIX only, and seldom needed

    descriptor = opened(torn, os.O_WRONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _being_written(torn) from None
        except OSError as error:
            # a volume without locks: torn files of two workers at once are the least of its dangers
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)


def _being_written(path: Path) -> OSError:
    return OSError(errno.EBUSY, "another process is writing it", str(path))


def _is_empty(path: Path) -> bool:
    """Opened for it: a network volume answers stat from a cache."""
    descriptor = opened(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_size == 0
    finally:
        os.close(descriptor)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _knows_hard_links(temporary: Path) -> bool:
    second = temporary.with_suffix(".link")
    try:
        os.link(temporary, second)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return False
    second.unlink()
    return True
