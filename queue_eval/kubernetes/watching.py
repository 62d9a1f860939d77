"""What the API server holds of a run, kept up to date by one watch for each kind: never by polling."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from queue_eval.core.errors import AccessError
from queue_eval.kubernetes.cluster import Cluster, Object
from queue_eval.kubernetes.errors import BusyError, GoneError

Sleep = Callable[[float], object]

TAKE_UP_AGAIN_S = 1.0  # after a watch that broke off
DENIALS = 60  # in a row, of what was allowed before


@dataclass(slots=True)
class Seen:
    """The objects of a run by kind and name, as far as is known."""

    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Object]:
        found: dict[str, Object] = getattr(self, kind)
        return found


@dataclass(frozen=True, slots=True)
class _News:
    kind: str
    name: str | None  # None: `body` is all of them
    body: Any


class Watching:
    """`changes()` yields what is seen after every change, and every `tick_s` without one."""

    def __init__(
        self, cluster: Cluster, labels: str, *, kinds: tuple[str, ...] = ("jobs", "pods"), sleep: Sleep
    ) -> None:
        self._cluster = cluster
        self._labels = labels
        self._kinds = kinds
        self._sleep = sleep
        self._news: queue.Queue[_News | Exception] = queue.Queue()
        self._over = threading.Event()
        self._versions: dict[str, str] = {}  # seen last, by kind

    def changes(self, tick_s: float) -> Iterator[Seen]:
        seen = Seen()
        for kind in self._kinds:
            threading.Thread(target=self._follow, args=(kind,), name=f"watch-{kind}", daemon=True).start()
        listed: set[str] = set()
        try:
            while True:
                try:
                    news = self._news.get(timeout=tick_s)
                except queue.Empty:
                    pass
                else:
                    if isinstance(news, Exception):
                        raise news
                    _apply(seen, news)
                    listed.add(news.kind)
                if len(listed) == len(self._kinds) and self._news.empty():
                    yield seen
        finally:
            self._over.set()

    def _follow(self, kind: str) -> None:
        is_known, watches, denials = False, 0, 0
        while not self._over.is_set():
            try:
                if kind not in self._versions:
                    items, self._versions[kind] = self._cluster.list(kind, labels=self._labels)
                    self._news.put(_News(kind, None, items))
                    is_known = True
                watches += 1
                self._take_up(kind)
                denials = 0
            except GoneError:
                self._versions.pop(kind, None)
                self._sleep(TAKE_UP_AGAIN_S)  # a server that forgets at once would be asked without a pause
            except BusyError as error:
                if not is_known:
                    # it was asked for a while, and has never answered: a wrong address rather than a restart
                    self._news.put(error)
                    return
                # the server is away, restarting or busy; it may also have forgotten what we saw last
                self._sleep(max(TAKE_UP_AGAIN_S, error.after_s))
            except AccessError as error:
                denials += 1
                if watches <= 1 or denials > DENIALS:
                    self._news.put(error)
                    return
                # a server that restarts may not know yet what it allows
                self._sleep(TAKE_UP_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - raised where the changes are read, which would wait in vain
                self._news.put(error)
                return

    def _take_up(self, kind: str) -> None:
        """From the last version that was seen, until the server ends the stream."""
        said_something = False
        for what, body in self._cluster.watch(kind, labels=self._labels, version=self._versions[kind]):
            said_something = True
            self._versions[kind] = body["metadata"]["resourceVersion"]
            if what != "BOOKMARK":
                self._news.put(_News(kind, body["metadata"]["name"], None if what == "DELETED" else body))
            if self._over.is_set():
                return
        if not said_something:
            self._sleep(TAKE_UP_AGAIN_S)  # something between us and the server cuts every stream


def _apply(seen: Seen, news: _News) -> None:
    objects = seen.of(news.kind)
    if news.name is None:
        objects.clear()
        objects.update({item["metadata"]["name"]: item for item in news.body})
    elif news.body is None:
        objects.pop(news.name, None)
    else:
        objects[news.name] = news.body
