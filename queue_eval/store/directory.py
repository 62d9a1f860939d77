"""A run's objects as files of one directory, on a disk or a shared volume."""

import asyncio
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

from queue_eval.core.errors import StoreError, UnavailableError
from queue_eval.store.publish_once import publish_once
from queue_eval.store.regular import OddFileError, must_be_folder, read

P = ParamSpec("P")
T = TypeVar("T")

# the disk is full or the volume plays up: it may be mended while we wait
_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EHOSTDOWN,
    errno.EIO,
    errno.EMFILE,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOSPC,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


@dataclass(slots=True, eq=False)
class _Creation:
    path: Path
    data: bytes
    done: "asyncio.Future[bool]" = field(repr=False)


class DirectoryStore:
    """Writes are durable on return: file synced, then linked or renamed into place, then its directory synced.

    Creations that arrive while others are being synced are committed together, so that many cases in flight share the
    disk's latency.
    """

    def __init__(self, root: Path, *, new_token: Callable[[], str] = lambda: secrets.token_hex(6)) -> None:
        self._root = root
        self._new_token = new_token
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="store")
        self._waiting: list[_Creation] = []
        self._committer: asyncio.Task[None] | None = None
        self._known_folders: set[Path] = set()

    async def create(self, name: str, data: bytes) -> bool:
        creation = _Creation(self._path(name), data, asyncio.get_running_loop().create_future())
        self._waiting.append(creation)
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_waiting())
        return await creation.done

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            outcomes = await self._committed(batch)
            for creation, outcome in zip(batch, outcomes, strict=True):
                if creation.done.done():
                    continue
                if isinstance(outcome, OSError):
                    creation.done.set_exception(self._error(creation.path, outcome))
                elif isinstance(outcome, Exception):
                    creation.done.set_exception(outcome)
                else:
                    creation.done.set_result(outcome)

    async def _committed(self, batch: list[_Creation]) -> "Sequence[bool | Exception]":
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._commit, batch)
        except RuntimeError as error:
            # no thread is to be had, as at a container's limit of processes: one may be later
            return [UnavailableError(f"store {self._root} cannot work now: {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - a defect: raised where it is waited for
            return [error] * len(batch)

    def _commit(self, batch: list[_Creation]) -> "list[bool | OSError]":
        """To each its own outcome. All are written before the first is synced: one flush of the disk carries many."""
        written = [_outcome(self._written, creation.path, creation.data) for creation in batch]
        outcomes = [
            file if isinstance(file, OSError) else _outcome(publish_once, *file, creation.path)
            for creation, file in zip(batch, written, strict=True)
        ]
        synced = {folder: _outcome(_sync_folder, folder) for folder in {creation.path.parent for creation in batch}}
        return [synced[creation.path.parent] or outcome for creation, outcome in zip(batch, outcomes, strict=True)]

    def _written(self, path: Path, data: bytes) -> tuple[Path, int]:
        self._ensure(path.parent)
        temporary, descriptor = self._temporary(path)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        return temporary, descriptor

    def _temporary(self, path: Path) -> tuple[Path, int]:
        """Return a new file with a name that neither another writer has nor a killed one left behind.

        In containers every process is number 1, so its number is no such name.
        """
        while True:
            temporary = path.parent / f".{path.name}.{self._new_token()}.tmp"
            try:
                return temporary, os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                continue

    async def put(self, name: str, source: bytes | Path) -> None:
        path = self._path(name)
        await self._in_thread(path, lambda: self._replace(path, source))

    def _replace(self, path: Path, source: bytes | Path) -> None:
        temporary, descriptor = self._written(path, source if isinstance(source, bytes) else b"")
        try:
            if isinstance(source, Path):
                with source.open("rb") as reader, os.fdopen(os.dup(descriptor), "wb") as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
            os.fsync(descriptor)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        _sync_folder(path.parent)

    async def get(self, name: str) -> bytes | None:
        path = self._path(name)
        return (await self._in_thread(path, lambda: self._read([path])))[0]

    async def names(self, prefix: str) -> AsyncIterator[str]:
        for name in await self._in_thread(self._root, lambda: sorted(self._listed(prefix))):
            yield name

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        paths = [self._path(name) for name in names]
        return await self._in_thread(self._root, lambda: self._read(paths))

    def _listed(self, prefix: str) -> Iterator[str]:
        root, top = str(self._root), prefix.rpartition("/")[0]
        self._must_be_own(self._root / top)
        for folder, _, files in os.walk(f"{root}/{top}"):
            for file in files:
                name = f"{folder}/{file}"[len(root) :].lstrip("/")
                if not file.startswith(".") and name.startswith(prefix) and not _is_torn(Path(folder, file)):
                    yield name

    def _path(self, name: str) -> Path:
        if not name or name.startswith("/") or ".." in name.split("/") or "\x00" in name:
            raise StoreError(f"store: {name!r} is no object name")
        return self._root / name

    def _read(self, paths: Sequence[Path]) -> list[bytes | None]:
        for folder in {path.parent for path in paths}:
            self._must_be_own(folder)
        return [_read(path) for path in paths]

    def _must_be_own(self, folder: Path) -> None:
        """OddFileError where a link leads out of the run's folder."""
        while folder != self._root:
            must_be_folder(folder)
            folder = folder.parent
        must_be_folder(folder)

    def _ensure(self, folder: Path) -> None:
        if folder in self._known_folders:
            return
        self._must_be_own(folder)
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(made.parent)
        self._known_folders.add(folder)

    async def _in_thread(self, path: Path, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except OSError as error:
            raise self._error(path, error) from error

    @staticmethod
    def _error(path: Path, error: OSError) -> StoreError | UnavailableError:
        if isinstance(error, OddFileError):
            return StoreError(f"store: {error.filename} {error.strerror}, and nothing of queue-eval's; take it away")
        if error.errno in _PASSING:
            return UnavailableError(f"store: {error.filename or path}: {error.strerror}")
        return StoreError(
            f"store: {error.filename or path}: {error.strerror or error};"
            " make it a directory that this user can write, or name another with --store DIR"
        )


def _outcome(work: "Callable[P, T]", *args: P.args, **kwargs: P.kwargs) -> T | OSError:
    try:
        return work(*args, **kwargs)
    except OSError as error:
        return error


def _read(path: Path) -> bytes | None:
    try:
        # an empty file is what a power loss leaves of a torn one: it counts as absent
        return read(path) or None
    except FileNotFoundError:
        return None


def _is_torn(path: Path) -> bool:
    """Listed as little as it is read."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True  # taken away meanwhile


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
