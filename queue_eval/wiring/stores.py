"""Stores, and what of a run they are asked first."""

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queue_eval.core import objects
from queue_eval.core.errors import ConfigError, ManifestError, NoInputError, StoreError
from queue_eval.core.location import bucket_and_prefix, is_remote
from queue_eval.core.naming import checked_run_id
from queue_eval.ports.store import Store
from queue_eval.retry_while_unavailable import RetryWhileUnavailable
from queue_eval.store import regular, s3
from queue_eval.store.directory import DirectoryStore
from queue_eval.store.retrying import RetryingStore
from queue_eval.store.s3 import REMEDY, S3Store

if TYPE_CHECKING:
    from queue_eval.core.manifest import Manifest

GIVE_UP_AFTER_S = 20.0  # of a store that is unavailable
MANIFEST_LOOK_S = 0.5
MOST_DURATIONS_BYTES = 256_000_000  # of some millions of cases
LONGEST_CASE_S = 1e7


def build_retrying(*, give_up_after_s: float | None = None) -> RetryWhileUnavailable:
    return RetryWhileUnavailable(
        sleep=asyncio.sleep, chance=random.random, now=time.monotonic, give_up_after_s=give_up_after_s
    )


def open_store(location: str, run_id: str, *, give_up_after_s: float | None = GIVE_UP_AFTER_S) -> Store:
    """`give_up_after_s`: how long to wait for a store that is unavailable.

    None: without end, as a worker does, whose cases no other worker could store either.
    """
    store: Store
    if is_remote(location):
        bucket, prefix = bucket_and_prefix(location)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        store = S3Store(s3.connect(endpoint), bucket=bucket, prefix=f"{prefix}/{checked_run_id(run_id)}".strip("/"))
    else:
        store = DirectoryStore(Path(location) / checked_run_id(run_id))
    return RetryingStore(store, build_retrying(give_up_after_s=give_up_after_s))


async def note_abort(store: Store) -> None:
    """Write down that the run is over for good: Redis may forget it."""
    await store.create(objects.ABORTED, json.dumps({"aborted_at": time.time()}).encode())


async def probe_store(store: Store, location: str) -> None:
    """StoreError before anything else is done when the store cannot be written, ConfigError when it would replace
    results.
    """
    try:
        await store.put(".writable", b"queue-eval\n")
    except StoreError as error:
        raise StoreError(f"{location}: {error}") from None
    if await store.create(".writable", b"queue-eval: created anew\n"):
        raise ConfigError(f"store: {location} knows no conditional writes; {REMEDY}")


async def read_manifest(store: Store, run_id: str, where: str) -> "Manifest":
    from queue_eval.core.manifest import Manifest  # noqa: PLC0415 - see core.meter

    return Manifest.from_json(await _manifest(store, run_id, where), run_id=run_id)


async def read_settings(store: Store, run_id: str, where: str) -> dict[str, Any]:
    """Return the manifest's settings as JSON has them, for commands that need few of them and at once."""
    try:
        body = json.loads(await _manifest(store, run_id, where))
    except (ValueError, RecursionError) as error:
        raise ManifestError(run_id, str(error)) from None
    found = body.get("settings") if isinstance(body, dict) else None
    if not isinstance(found, dict):
        raise ManifestError(run_id, "it holds no settings")
    return found


async def _manifest(store: Store, run_id: str, where: str) -> bytes:
    data = await store.get(objects.MANIFEST)
    if data is None:
        raise NoInputError(
            f"run {run_id!r}: {where} holds no {objects.MANIFEST} of it; check the run id, and name the store with"
            " --store (eval.yaml's is beside that file)"
        )
    return data


async def awaited_manifest(store: Store, run_id: str, where: str, *, wait_s: float) -> "Manifest":
    """Return the manifest of a run that may be about to be produced. NoInputError after `wait_s`."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return await read_manifest(store, run_id, where)
        except NoInputError:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(MANIFEST_LOOK_S)


def earlier_busy_s(location: str, run_id: str) -> dict[str, float]:
    """Seconds that cases took in the latest finalized run beside this one; none for stores that cannot be listed."""
    root = Path(location)
    if is_remote(location) or not root.is_dir():
        return {}
    found = [p for p in root.glob(f"*/{objects.DURATIONS}") if p.parent.name != run_id]
    if not found:
        return {}
    try:
        durations = json.loads(
            regular.read(max(found, key=lambda p: p.stat().st_mtime), most_bytes=MOST_DURATIONS_BYTES)
        )
        return {str(k): float(v) for k, v in durations.items() if 0 <= float(v) < LONGEST_CASE_S}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # a hint: what is no such file gives none
