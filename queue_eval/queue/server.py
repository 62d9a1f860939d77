"""What a Redis server must be, so that a run is not forgotten behind our back."""

from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from queue_eval.core.errors import ConfigError
from queue_eval.core.location import url_without_secret
from queue_eval.queue.connection import redis_errors


async def check_server(redis: Redis, url: str, notice: Callable[[str], None]) -> None:
    """ConfigError for a server that evicts keys when its memory is full; a notice for one that forgets when it
    restarts.

    A restart without an append-only file costs the queue's place only, since results are in the store. Eviction would
    take cases out of a run that goes on. INFO is asked, and not CONFIG, which many servers refuse.
    """
    where = f"redis at {url_without_secret(url)}"
    try:
        with redis_errors():
            facts = {**await redis.info("memory"), **await redis.info("persistence")}
    except (ResponseError, ConfigError) as error:
        if not isinstance(error.__cause__ or error, NoPermissionError) and "unknown command" not in str(error):
            raise
        notice(
            f"{where}: INFO is not permitted, so whether this server evicts keys is unknown; see"
            " docs/explanation/guarantees.md"
        )
        return
    policy = facts.get("maxmemory_policy", "noeviction")
    if int(facts.get("maxmemory", 0)) and policy != "noeviction":
        raise ConfigError(
            f"{where}: maxmemory-policy {policy} would evict cases when its memory is full; set it to noeviction"
        )
    if not int(facts.get("aof_enabled", 1)):
        notice(
            f"{where}: appendonly is off, so a restart forgets where the run stands (results are safe); to go on then,"
            " enqueue again"
        )
