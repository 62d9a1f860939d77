"""What goes wrong while a run goes on, by chance, until enough has."""

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from queue_eval.store.s3 import READ_TIMEOUT_S
from testkit.gate import Gate
from testkit.proxy import Proxy
from testkit.redis_server import Server
from testkit.waiting import wait_until

MET_WITHIN_S = 10.0
STATES_OVER = (b"DRAINED", b"FINALIZED")


@dataclass
class WorkerPool:
    """Workers as a Kubernetes Job keeps them: who ends with anything but 0 is replaced; 0 must mean drained."""

    start: Callable[[], "subprocess.Popen[bytes]"]
    drained: Callable[[], bool]
    size: int
    members: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    watchers: "list[threading.Thread]" = field(default_factory=list)
    left_early: list[int] = field(default_factory=list)  # pids

    def supervise(self) -> bool:
        """False once all have left because the run is drained."""
        for member in list(self.members):
            code = member.poll()
            if code is None:
                continue
            self.members.remove(member)
            self.codes[code] += 1
        while len(self.members) < self.size and not self.codes[0]:
            self._hire()
        return bool(self.members)

    def dismiss(self) -> None:
        """No process stays behind when the storm is given up."""
        for member in self.members:
            member.kill()
            member.wait()

    def _hire(self) -> None:
        member = self.start()
        self.members.append(member)
        self.watchers.append(threading.Thread(target=self._watch, args=(member,), daemon=True))
        self.watchers[-1].start()

    def _watch(self, member: "subprocess.Popen[bytes]") -> None:
        """Asks the moment it leaves: a little later the run may well be drained."""
        if member.wait() == 0 and not self.drained():
            self.left_early.append(member.pid)

    def early_exits(self) -> int:
        for watcher in self.watchers:
            watcher.join()
        return len(self.left_early)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        for member in self.members:
            member.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for member in self.members:
                member.send_signal(signal.SIGCONT)


@dataclass
class Storm:
    pool: WorkerPool
    server: Server
    proxy: Proxy
    gate: Gate
    flush: Callable[[], None]
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    timers: list[threading.Timer] = field(default_factory=list)

    @property
    def _kinds(self) -> list[Callable[[], object]]:
        return [self.kill, self.stop, self.terminate, self.restart_redis, self.swallow, self.delay, self.cut, self.close_store, self.lose_answers, self.keep_answers]  # fmt: skip

    @property
    def _missing(self) -> list[Callable[[], object]]:
        return [kind for kind in self._kinds if not self.done[kind.__name__]]

    def is_short_of(self, kills: int) -> bool:
        return self.done["kill"] < kills or bool(self._missing)

    def gust(self) -> None:
        """One thing goes wrong: each once, then by chance. Most of them pass by themselves."""
        if missing := self._missing:
            what = self.chance.choice(missing)
        else:
            what = self.chance.choices(self._kinds, weights=[60, 10, 10, 3, 3, 4, 4, 3, 2, 1])[0]
        if what() is not False:
            self.done[what.__name__] += 1

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        timer = threading.Timer(seconds, work)
        timer.start()
        self.timers.append(timer)

    def lasting(self, seconds: float, met: Callable[[], int], over: Callable[[], object]) -> None:
        """At least so long, and until a process has met it, if one does soon."""
        before = met()

        def end() -> None:
            with suppress(AssertionError):
                wait_until(lambda: met() > before, within_s=MET_WITHIN_S)
            over()

        self.later(seconds, end)

    def calm(self) -> None:
        for timer in self.timers:
            timer.join()
        self.proxy.mode, self.proxy.delay_s = "pass", 0.0
        self.gate.closed, self.gate.loses_answers, self.gate.late_s = False, False, 0.0

    def _one_of_the_workers(self) -> "subprocess.Popen[bytes] | None":
        alive = [member for member in self.pool.members if member.poll() is None]
        return self.chance.choice(alive) if alive else None

    def kill(self) -> bool:
        """False, as with the next two: no process was there, and nothing happened."""
        if worker := self._one_of_the_workers():
            worker.kill()
        return worker is not None

    def terminate(self) -> bool:
        if worker := self._one_of_the_workers():
            worker.terminate()
        return worker is not None

    def stop(self) -> bool:
        if worker := self._one_of_the_workers():
            worker.send_signal(signal.SIGSTOP)
            self.later(self.chance.uniform(0.5, 8), lambda: worker.send_signal(signal.SIGCONT))
        return worker is not None

    def restart_redis(self) -> None:
        self.server.kill()
        time.sleep(self.chance.uniform(0, 3))
        self.server.start()

    def swallow(self) -> None:
        self.proxy.mode = self.chance.choice(["swallow", "swallow replies"])
        self.lasting(
            self.chance.uniform(0.2, 3), lambda: self.proxy.swallowed, lambda: setattr(self.proxy, "mode", "pass")
        )

    def delay(self) -> None:
        self.proxy.delay_s = self.chance.uniform(0.05, 0.5)
        self.later(self.chance.uniform(0.5, 3), lambda: setattr(self.proxy, "delay_s", 0.0))

    def cut(self) -> None:
        self.proxy.cut()

    def close_store(self) -> None:
        self.gate.closed = True
        self.later(self.chance.uniform(0.5, 4), lambda: setattr(self.gate, "closed", False))

    def lose_answers(self) -> None:
        self.gate.loses_answers = True
        self.lasting(
            self.chance.uniform(0.5, 2), lambda: self.gate.lost, lambda: setattr(self.gate, "loses_answers", False)
        )

    def keep_answers(self) -> None:
        """Until none waits for them any more: the work was done."""
        self.gate.late_s = READ_TIMEOUT_S + 2
        self.lasting(self.chance.uniform(0.5, 2), lambda: self.gate.kept, lambda: setattr(self.gate, "late_s", 0.0))


def is_drained(server: Server, run_id: str) -> bool:
    """By the server itself, past the proxy."""
    with Redis.from_url(server.url) as redis:
        for _ in range(100):
            try:
                return redis.hget(f"qe:run:{run_id}", "state") in STATES_OVER
            except RedisError:
                time.sleep(0.1)
    return False
