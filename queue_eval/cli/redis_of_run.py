"""Where the Redis of a run is."""

import os

from queue_eval.core.errors import UsageError
from queue_eval.core.location import local_folder
from queue_eval.local.find_redis import named_url
from queue_eval.local.redis_address_file import RedisAddressFile


def redis_url_of_run(option: str | None, store: str, run_id: str, configured: str | None = None) -> str:
    """The Redis of an existing run: named, or the one that `queue-eval run` of this machine started.

    UsageError when there is none.
    """
    found = named_url(option, configured, os.environ) or RedisAddressFile(local_folder(store), run_id).url()
    if found is None:
        command = f"queue-eval run --resume {run_id}"
        raise UsageError(
            f"run {run_id!r}: no Redis is named, and none runs for it on this machine;"
            f" add --redis URL, or go on with {command}",
            command=command,
        )
    return found
