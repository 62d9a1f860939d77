"""The store's contract: one suite for the fake and the directory."""

import asyncio
from pathlib import Path

import pytest

from queue_eval.core.errors import StoreError
from queue_eval.ports import Store
from queue_eval.store.directory import DirectoryStore
from queue_eval.testing.memory_store import MemoryStore


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "run")


async def test_an_object_is_created_once(store: Store) -> None:
    assert await store.create("results/a.json", b"first")
    assert not await store.create("results/a.json", b"second")
    assert await store.get("results/a.json") == b"first"


async def test_of_many_racing_creations_exactly_one_wins(store: Store) -> None:
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
        "executions/a.e-1.dead.json",
        "executions/ab.e-1.dead.json",
        "manifest.json",
    ):
        await store.create(name, b"{}")
    assert {name async for name in store.names("results/")} == {"results/a.json", "results/b.json"}
    assert {name async for name in store.names("executions/a.")} == {"executions/a.e-1.dead.json"}
    assert {name async for name in store.names("none/")} == set()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../other/manifest.json", "results/../../x", "a\x00b"])
async def test_a_name_cannot_leave_the_run(store: Store, name: str) -> None:
    with pytest.raises(StoreError):
        await store.create(name, b"x")


async def test_an_empty_object_counts_as_absent(tmp_path: Path) -> None:
    """What a power loss leaves of a file whose content never reached the disk."""
    store = DirectoryStore(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").touch()
    assert await store.get("results/a.json") is None
    assert await store.create("results/a.json", b"whole")
    assert await store.get("results/a.json") == b"whole"


async def test_a_volume_without_hard_links_still_creates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("queue_eval.store.directory.os.link", no_links)
    store = DirectoryStore(tmp_path)
    assert await store.create("results/a.json", b"first")
    assert not await store.create("results/a.json", b"second")
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["a.json"]


async def test_no_temporary_file_stays(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    await asyncio.gather(
        *(store.create(f"results/{n % 5}.json", b"x") for n in range(20)), store.put("report.json", b"r")
    )
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


async def test_a_store_that_cannot_be_written_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = DirectoryStore(tmp_path / "file" / "run")
    with pytest.raises(StoreError, match=r"file.*--store"):
        await store.create("results/a.json", b"x")
    with pytest.raises(StoreError, match=r"file.*--store"):
        await store.put("results/a.json", b"x")
