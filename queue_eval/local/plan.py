"""What `run` is to do on this machine, and its listeners."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core.errors import InterruptedRunError
from queue_eval.core.location import is_remote, store_option_of
from queue_eval.core.progress import Progress
from queue_eval.local.worker_pool import WorkerPool
from queue_eval.producer.producer import Produced


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    run_id: str
    store: str
    redis_url: str | None  # None: a server of our own, or the emulation
    redis: RedisSettings
    workers: int | None  # None: as the run's settings have it
    concurrency: int | None
    environment: Mapping[str, str]
    eval_yaml: str | None = None  # None: the manifest alone defines the run

    @property
    def resume_command(self) -> str:
        # where others can write the manifest, only the file names the judge that is meant
        file = f"{shlex.quote(self.eval_yaml)} " if self.eval_yaml and is_remote(self.store) else ""
        return f"queue-eval run {file}--resume {self.run_id}{store_option_of(self.store)}"

    def interrupted(self) -> InterruptedRunError:
        return InterruptedRunError(f"stopped; every finished case is kept. Go on with: {self.resume_command}")


@dataclass(slots=True, kw_only=True)
class Listeners:
    """Callbacks for what happens during the run."""

    produced: Callable[[Produced], None]
    progress: Callable[[Progress], None]
    notice: Callable[[str], None]
    pool: Callable[[WorkerPool], None] = field(default=lambda _: None)
