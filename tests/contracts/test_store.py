"""The store's contract: one suite for the fake, the directory and S3."""

import asyncio
import errno
import io
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from queue_eval.core import objects
from queue_eval.core.ending import Ending
from queue_eval.core.errors import AccessError, ConfigError, StoreError, UnavailableError
from queue_eval.ports.store import Store
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.store.directory import DirectoryStore
from queue_eval.store.retrying import RetryingStore
from queue_eval.store.s3 import S3Store, connect
from queue_eval.wiring.stores import probe_store
from testkit.fakes.clock import FakeClock
from testkit.fakes.memory_store import MemoryStore
from testkit.s3_server import SERVERS


@pytest.fixture(params=["memory", "directory", *SERVERS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return MemoryStore()
        case "directory":
            return DirectoryStore(tmp_path / "run")
    request.getfixturevalue("s3_credentials")
    return bucket_store(request.getfixturevalue("s3_servers")(request.param))


def bucket_store(url: str, prefix: str = "runs/r1") -> S3Store:
    """In a bucket of its own."""
    client, bucket = connect(url), f"bucket-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket)
    return S3Store(client, bucket=bucket, prefix=prefix)


async def test_i12_an_object_is_created_once(store: Store) -> None:
    assert await store.create("results/a.json", b"first")
    assert not await store.create("results/a.json", b"second")
    assert await store.get("results/a.json") == b"first"


async def test_i12_of_many_racing_creations_exactly_one_wins(store: Store) -> None:
    won = await asyncio.gather(*(store.create(f"results/{n % 40}.json", str(n).encode()) for n in range(320)))
    assert sum(won) == 40


async def test_put_replaces(store: Store, tmp_path: Path) -> None:
    await store.put("report.json", b"old")
    await store.put("report.json", b"new")
    assert await store.get("report.json") == b"new"
    (tmp_path / "file").write_bytes(b"from a file")
    await store.put("report.json", tmp_path / "file")
    assert await store.get("report.json") == b"from a file"


async def test_what_is_absent_is_none(store: Store) -> None:
    assert await store.get("nothing") is None
    await store.create("a", b"1")
    assert await store.get_many(["a", "nothing", "a"]) == [b"1", None, b"1"]


async def test_names_are_those_with_the_prefix(store: Store) -> None:
    for name in (
        "results/a.json",
        "results/b.json",
        "executions/a/e-1.dead.json",
        "executions/ab/e-1.dead.json",
        "manifest.json",
    ):
        await store.create(name, b"{}")
    assert {name async for name in store.names("results/")} == {"results/a.json", "results/b.json"}
    assert {name async for name in store.names("executions/a/")} == {"executions/a/e-1.dead.json"}
    assert {name async for name in store.names("executions/")} == {
        "executions/a/e-1.dead.json",
        "executions/ab/e-1.dead.json",
    }
    assert {name async for name in store.names("none/")} == set()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../other/manifest.json", "results/../../x", "a\x00b"])
async def test_a_name_cannot_leave_the_run(store: Store, name: str) -> None:
    with pytest.raises(StoreError):
        await store.create(name, b"x")


async def test_what_a_redelivery_lists_does_not_grow_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other case of a hundred was retried too."""
    store = DirectoryStore(tmp_path)
    for n in range(100):
        await store.create(objects.execution(f"c{n}", "e-1", Ending.RETRIED), b"{}")
    scanned: list[str] = []
    scandir = os.scandir

    def noted(folder: str) -> Any:
        scanned.extend(entry.path for entry in scandir(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", noted)
    names = [name async for name in store.names(objects.executions_of("c1"))]
    assert names == [objects.execution("c1", "e-1", Ending.RETRIED)]
    assert len(scanned) == 1


async def test_i13_an_empty_object_counts_as_absent(tmp_path: Path) -> None:
    """What a power loss leaves of a file whose content never reached the disk."""
    store = DirectoryStore(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").touch()
    assert await store.get("results/a.json") is None
    assert [name async for name in store.names("results/")] == []
    assert await store.create("results/a.json", b"whole")
    assert await store.get("results/a.json") == b"whole"


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel answers for such a volume: a name that is taken is reported first."""

    def link(_source: Path, target: Path) -> None:
        raise FileExistsError(errno.EEXIST, "File exists") if target.exists() else PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("queue_eval.store.publish_once.os.link", link)


async def test_a_volume_without_hard_links_still_creates_once(tmp_path: Path, no_hard_links: None) -> None:
    store = DirectoryStore(tmp_path)
    assert await store.create("results/a.json", b"first")
    assert not await store.create("results/a.json", b"second")
    assert [name async for name in store.names("results/")] == ["results/a.json"]
    assert not list(tmp_path.rglob("*.tmp"))


async def test_i12_a_file_that_another_writer_has_just_made_is_not_taken_for_a_torn_one(
    tmp_path: Path, no_hard_links: None
) -> None:
    (tmp_path / "results").mkdir()
    being_written = tmp_path / "results" / "a.json"
    being_written.touch()
    store = DirectoryStore(tmp_path)
    with pytest.raises(UnavailableError, match="another process is writing it"):
        await store.create("results/a.json", b"second")
    being_written.write_bytes(b"first")
    assert not await store.create("results/a.json", b"second")
    assert await store.get("results/a.json") == b"first"


async def test_i13_without_hard_links_too_what_stays_empty_counts_as_absent(
    tmp_path: Path, no_hard_links: None
) -> None:
    (tmp_path / "results").mkdir()
    torn = tmp_path / "results" / "a.json"
    torn.touch()
    an_hour_ago = torn.stat().st_mtime - 3600
    os.utime(torn, (an_hour_ago, an_hour_ago))
    assert await DirectoryStore(tmp_path).create("results/a.json", b"whole")
    assert torn.read_bytes() == b"whole"


async def test_i13_a_crash_without_hard_links_leaves_an_empty_file_and_never_half_a_one(
    tmp_path: Path, no_hard_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(_temporary: Path, _path: Path) -> None:
        raise OSError(errno.EIO, "the machine stops here")

    store, result = DirectoryStore(tmp_path), tmp_path / "results" / "a.json"
    with monkeypatch.context() as crash:
        crash.setattr(Path, "replace", stops)
        with pytest.raises(UnavailableError):
            await store.create("results/a.json", b"whole")
    assert result.read_bytes() == b""
    os.utime(result, (0, 0))
    assert await store.create("results/a.json", b"whole")


@pytest.mark.parametrize("how", ["create", "put"])
async def test_i13_what_has_a_name_is_on_the_disk_and_so_is_the_name(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order: the file's bytes, its name, the folder that holds the name."""
    done: list[str] = []
    synced, linked, replaced = os.fsync, os.link, Path.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "bytes")
        synced(descriptor)

    def link(source: Path, target: Path) -> None:
        done.append("name")
        linked(source, target)

    def replace(source: Path, target: Path) -> Path:
        done.append("name")
        return replaced(source, target)

    store = DirectoryStore(tmp_path)
    await store.create("results/b.json", b"so that the folders are there")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", replace)
    await getattr(store, how)("results/a.json", b"whole")
    assert done == ["bytes", "name", "folder"]


async def test_i12_without_hard_links_a_writer_that_was_taken_for_dead_does_not_replace_what_another_created(
    tmp_path: Path, no_hard_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that stops for minutes between taking the name and filling it."""
    result = tmp_path / "results" / "a.json"

    def stopped_meanwhile(_descriptor: int, _operation: int) -> None:
        result.write_bytes(b"another's")

    monkeypatch.setattr("fcntl.flock", stopped_meanwhile)
    assert not await DirectoryStore(tmp_path).create("results/a.json", b"ours")
    assert result.read_bytes() == b"another's"


async def test_i12_a_writer_that_was_slower_over_a_torn_file_does_not_replace_what_another_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    result = tmp_path / "results" / "a.json"
    result.touch()
    monkeypatch.setattr("fcntl.flock", lambda *_: result.write_bytes(b"another's"))
    assert not await DirectoryStore(tmp_path).create("results/a.json", b"ours")
    assert result.read_bytes() == b"another's"


async def test_what_a_killed_writer_left_behind_hinders_none(tmp_path: Path) -> None:
    """In containers every process has the same number, and its successor begins to count anew."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".a.json.t0.tmp").write_bytes(b"half")
    tokens = iter(["t0", "t1"])
    assert await DirectoryStore(tmp_path, new_token=lambda: next(tokens)).create("results/a.json", b"whole")
    assert await DirectoryStore(tmp_path).get("results/a.json") == b"whole"


async def test_i12_of_many_that_find_a_torn_file_exactly_one_wins(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    stores = [patient(DirectoryStore(tmp_path)) for _ in range(4)]
    for n in range(60):
        (tmp_path / "results" / f"{n}.json").touch()
        won = await asyncio.gather(*(s.create(f"results/{n}.json", f"{k}".encode()) for k, s in enumerate(stores)))
        assert sum(won) == 1
        assert await stores[0].get(f"results/{n}.json") == str(won.index(True)).encode()


async def test_i22_a_writer_that_was_stopped_over_a_torn_file_hinders_no_other_writer(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "results").mkdir()
    torn = tmp_path / "results" / "a.json"
    with torn.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store = DirectoryStore(tmp_path)
        creations = [store.create(f"results/{name}.json", b"whole") for name in "bacd"]
        outcomes = await asyncio.wait_for(asyncio.gather(*creations, return_exceptions=True), 5)
    assert isinstance(outcomes[1], UnavailableError)
    assert [outcomes[0], *outcomes[2:]] == [True, True, True]
    assert await store.create("results/a.json", b"whole")


async def test_i12_a_link_whose_answer_a_network_volume_lost_is_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def sent_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr("queue_eval.store.publish_once.os.link", sent_twice)
    assert await DirectoryStore(tmp_path).create("results/a.json", b"ours")
    assert not await DirectoryStore(tmp_path).create("results/a.json", b"theirs")


async def test_no_temporary_file_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await asyncio.gather(
        *(store.create(f"results/{n % 5}.json", b"x") for n in range(20)), store.put("report.json", b"r")
    )
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


async def test_a_store_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = DirectoryStore(tmp_path / "file" / "run")
    with pytest.raises(StoreError, match=r"file.*--store"):
        await store.create("results/a.json", b"x")
    with pytest.raises(StoreError, match=r"file.*--store"):
        await store.put("results/a.json", b"x")


async def test_runs_share_a_bucket_by_their_prefix(s3_url: str) -> None:
    one = bucket_store(s3_url, "nightly/r1")
    other = S3Store(one._client, bucket=one._bucket, prefix="nightly/r10")
    assert await one.create("manifest.json", b"1")
    assert await other.create("manifest.json", b"10")
    assert await one.get("manifest.json") == b"1"
    assert [name async for name in other.names("")] == ["manifest.json"]


async def test_a_long_listing_has_every_name(s3_url: str) -> None:
    store = bucket_store(s3_url)
    store._client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2", lambda params, **_: params.update(MaxKeys=7)
    )
    await asyncio.gather(*(store.create(f"results/{n}.json", b"x") for n in range(50)))
    assert len([name async for name in store.names("results/")]) == 50


# --- a store that plays up ---------------------------------------------------------------------------------------------


def patient(store: Store, *, give_up_after_s: float | None = None, timeout_s: float = 5.0) -> RetryingStore:
    clock = FakeClock()
    patience = RetryWhileUnavailable(
        sleep=clock.sleep, chance=lambda: 0.0, now=clock.now, give_up_after_s=give_up_after_s
    )
    return RetryingStore(store, patience, timeout_s=timeout_s)


@dataclass
class Faults:
    """What happens to the next requests to S3, in order."""

    plan: list[str]  # 503, lost (done, and the answer lost), reset (never done)

    def before(self, **_: Any) -> Any:
        match self.plan[:1]:
            case ["503"]:
                self.plan.pop(0)
                return AWSResponse("url", 503, HTTPHeaders(), BytesIO(b""))
            case ["reset"]:
                self.plan.pop(0)
                raise ConnectionClosedError(endpoint_url="url")
        return None

    def after(self, **_: Any) -> None:
        if self.plan[:1] == ["lost"]:
            self.plan.pop(0)
            raise ReadTimeoutError(endpoint_url="url")


class BytesIO(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def faulty(store: S3Store, *plan: str) -> Faults:
    faults = Faults(list(plan))
    store._client.meta.events.register("before-send.s3", faults.before)
    store._client.meta.events.register("after-call.s3", faults.after)
    return faults


@pytest.mark.parametrize("plan", [["503"], ["reset", "503"], ["lost"], ["503", "lost", "503"]])
async def test_i12_a_creation_whose_answer_was_lost_is_our_own(s3_url: str, plan: list[str]) -> None:
    store = bucket_store(s3_url)
    faults = faulty(store, *plan)
    assert await patient(store).create("results/a.json", b"ours")
    assert faults.plan == []
    assert not await patient(store).create("results/a.json", b"theirs")
    assert await store.get("results/a.json") == b"ours"


async def test_i12_a_creation_that_another_won_meanwhile_is_lost(s3_url: str) -> None:
    store = bucket_store(s3_url)
    faulty(store, "503")
    waiting = patient(store)
    await S3Store(connect(s3_url), bucket=store._bucket, prefix="runs/r1").create("results/a.json", b"theirs")
    assert not await waiting.create("results/a.json", b"ours")


async def test_i17_reads_and_listings_outlast_a_store_that_is_away(s3_url: str) -> None:
    store = bucket_store(s3_url)
    await store.create("results/a.json", b"1")
    faulty(store, "503", "reset", "503")
    assert [name async for name in patient(store).names("results/")] == ["results/a.json"]
    faulty(store, "reset", "503")
    assert await patient(store).get("results/a.json") == b"1"


async def test_a_store_that_stays_away_is_given_up_after_the_time_that_was_named(s3_url: str) -> None:
    store = bucket_store(s3_url)
    faulty(store, *(["503"] * 100))
    with pytest.raises(UnavailableError, match="503"):
        await patient(store, give_up_after_s=20.0).put("report.json", b"x")


async def test_i17_a_call_that_never_returns_is_made_again() -> None:
    class Hanging(MemoryStore):
        calls = 0

        async def create(self, name: str, data: bytes) -> bool:
            self.calls += 1
            created = await super().create(name, data)
            if self.calls == 1:
                await asyncio.Event().wait()
            return created

    store = Hanging()
    assert await patient(store, timeout_s=0.05).create("results/a.json", b"ours")
    assert store.calls == 2


async def test_i17_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    sync, left = os.fsync, [2]

    def full(descriptor: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr("queue_eval.store.publish_once.os.fsync", full)
    assert await patient(DirectoryStore(tmp_path)).create("results/a.json", b"ours")
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["a.json"]


async def test_i13_a_disk_that_fills_up_leaves_no_half_on_a_volume_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    sync, syncs = os.fsync, itertools.count(1)

    def full(descriptor: int) -> None:
        if next(syncs) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    (tmp_path / "results").mkdir()
    monkeypatch.setattr("queue_eval.store.publish_once.os.link", no_links)
    monkeypatch.setattr("queue_eval.store.publish_once.os.fsync", full)
    assert await patient(DirectoryStore(tmp_path)).create("results/a.json", b"ours")
    assert (tmp_path / "results" / "a.json").read_bytes() == b"ours"


@pytest.mark.parametrize(("fault", "kind"), [("bucket", StoreError), ("key", AccessError), ("none", ConfigError)])
async def test_mistakes_with_a_bucket_are_reported_at_once(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, fault: str, kind: type[Exception]
) -> None:
    store = bucket_store(s3_url)
    if fault == "bucket":
        store = S3Store(store._client, bucket="no-such-bucket", prefix="r")
    elif fault == "key":
        store._client.meta.events.register(
            "before-send.s3",
            lambda **_: AWSResponse("url", 403, HTTPHeaders(), BytesIO(b"<Error><Code>AccessDenied</Code></Error>")),
        )
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        store = S3Store(connect(s3_url), bucket=store._bucket, prefix="r")
    with pytest.raises(kind, match=store._bucket):
        await patient(store).put("report.json", b"x")


async def test_a_store_without_conditional_writes_is_refused_before_anything_is_done() -> None:
    class Replacing(MemoryStore):
        async def create(self, name: str, data: bytes) -> bool:
            await self.put(name, data)
            return True

    with pytest.raises(ConfigError, match="no conditional writes"):
        await probe_store(Replacing(), "s3://bucket/prefix")
    await probe_store(MemoryStore(), "here")


async def test_when_no_thread_is_to_be_had_what_waits_for_one_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a container's limit of processes. The lease of a case that is never stored would be kept for ever."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    store = DirectoryStore(tmp_path / "r1")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(UnavailableError, match="new thread"):
            await asyncio.wait_for(store.create("results/a.json", b"{}"), 5)
    assert await store.create("results/b.json", b"{}")
