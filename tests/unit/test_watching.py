"""What is seen through an API server that forgets, is busy, ends watches and comes back: a scripted one, over real HTTP."""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from kubernetes import client

from queue_eval.cli.k8s.planned import planned
from queue_eval.core.errors import AccessError, ConfigError, QueueEvalError, UnavailableError
from queue_eval.kubernetes import log_stream
from queue_eval.kubernetes.cluster import Cluster, connect
from queue_eval.kubernetes.driver import Driver
from queue_eval.kubernetes.errors import BusyError, ClusterError
from queue_eval.kubernetes.waiting import RunWait
from queue_eval.kubernetes.watching import DENIALS, Seen, Watching
from testkit.measured import ROOT

Answer = tuple[int, Any]  # a status, and a body or the events of a watch


def reached(server: ThreadingHTTPServer) -> Cluster:
    settings = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    settings.retries = False
    return Cluster(client.ApiClient(settings), "ns")


class ApiServer:
    """Answers lists and watches each from their own script; the last answer of a script repeats."""

    def __init__(self, lists: list[Answer], watches: list[Answer]) -> None:
        self.asked: list[tuple[str, str]] = []  # list or watch, and from which version
        scripts = {"list": lists, "watch": watches}
        over = self.over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(handler) -> None:  # noqa: N805 - the module's own name; self is the server
                query = parse_qs(urlparse(handler.path).query)
                what = "watch" if "watch" in query else "list"
                self.asked.append((what, query.get("resourceVersion", [""])[0]))
                script = scripts[what]
                last = len(script) == 1
                status, body = script[0] if last else script.pop(0)
                handler.send_response(status)
                if isinstance(body, list):
                    handler.send_header("Transfer-Encoding", "chunked")
                    handler.end_headers()
                    for line in (json.dumps(event).encode() + b"\n" for event in body):
                        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    if last:
                        over.wait(20)  # stays open
                    handler.wfile.write(b"0\r\n\r\n")
                else:
                    data = json.dumps(body).encode()
                    handler.send_header("Content-Length", str(len(data)))
                    handler.end_headers()
                    handler.wfile.write(data)

            def log_message(handler, *_: Any) -> None:  # noqa: N805 - as above
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def cluster(self) -> Cluster:
        return reached(self._server)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serving() -> Iterator[Callable[[list[Answer], list[Answer]], ApiServer]]:
    servers: list[ApiServer] = []

    def serve(lists: list[Answer], watches: list[Answer]) -> ApiServer:
        servers.append(ApiServer(lists, watches))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def job(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}, "spec": {}}


@contextmanager
def answering(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[Cluster]:
    """Through a server that sends neither a length nor chunks, as a proxy between us may: the end of the connection is the end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield reached(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_watch_that_ends_within_a_line_is_taken_up_again() -> None:
    watches: list[str] = []
    pauses: list[float] = []

    def torn(path: str) -> tuple[int, bytes]:
        if "watch" not in path:
            return 200, json.dumps(listed("1", "a")[1]).encode()
        watches.append(path)
        return 200, b'{"type": "ADDED", "obj'

    with answering(torn) as cluster:
        for seen in Watching(cluster, "a=b", kinds=("jobs",), sleep=pauses.append).changes(0.05):
            assert set(seen.jobs) == {"a"}
            if len(watches) >= 3:
                break
    assert len(watches) >= 3
    assert pauses


def running(name: str) -> dict[str, Any]:
    state = {"name": "queue-eval", "state": {"running": {"startedAt": "now"}}}
    return {"metadata": {"name": name, "resourceVersion": "2"}, "status": {"containerStatuses": [state]}}


def over_with(name: str) -> dict[str, Any]:
    state = {"name": "queue-eval", "state": {"terminated": {"exitCode": 0}}}
    return running(name) | {"status": {"containerStatuses": [state]}}


def test_pods_that_begin_later_are_read_too_and_to_their_end() -> None:
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    read: set[str] = set()

    def answer(path: str) -> tuple[int, bytes]:
        if "/log" in path:
            name = path.partition("/pods/")[2].partition("/")[0]
            read.add(name)
            return (
                (200, f"2026-01-01T00:00:01Z {name} says\n2026-01-01T00:00:02Z bye\n".encode())
                if name != "gone"
                else (404, b"{}")
            )
        if "/pods/" in path:
            return 200, json.dumps(over_with(path.rpartition("/")[2])).encode()
        kind = "jobs" if "/jobs" in path else "pods"
        # the Job ends when all that the watch has named are read; the last pod is in the list alone
        over = {"later", "gone"} <= read
        if "watch" in path:
            shown = [] if kind == "jobs" and not over else news.pop(kind, [])
            return 200, b"".join(json.dumps(event).encode() + b"\n" for event in shown)
        pods = [running(name) for name in ("later", "gone", "last")] if over else []
        items = [job("j", "1")] if kind == "jobs" else pods
        return 200, json.dumps({"items": items, "metadata": {"resourceVersion": "1"}}).encode()

    news = {
        "pods": [{"type": "ADDED", "object": running(name)} for name in ("later", "gone")],
        "jobs": [{"type": "MODIFIED", "object": job("j", "2") | {"status": ended}}],
    }
    with answering(answer) as cluster:
        printed = sorted(log_stream.lines(cluster, "r", None, tail=None, sleep=lambda _: None))
    assert [line for line in printed if line[0] != "gone"] == [
        ("last", "bye"), ("last", "last says"), ("later", "bye"), ("later", "later says"),
    ]  # fmt: skip
    assert [line.startswith("no log") for name, line in printed if name == "gone"] == [True]


WRITTEN = [(f"2026-01-01T00:00:0{n}.000000000Z", f"line {n}") for n in range(1, 6)]


class Cut(Cluster):
    """Each stream holds two lines, as the server has them, and then something cuts it; the pod's end is seen late."""

    def __init__(self, *ends: QueueEvalError | None) -> None:
        super().__init__(None, "ns")
        self._ends = list(ends)
        self.asked: list[tuple[int | None, str]] = []

    def follow_log(self, pod: str, *, tail: int | None, since: str = "") -> Iterator[tuple[str, str]]:
        self.asked.append((tail, since))
        yield from [line for line in WRITTEN if line[0] >= since][: 3 if since else 2]
        if self._ends and (error := self._ends.pop(0)):
            raise error

    def get(self, kind: str, name: str) -> Any:
        if len(self.asked) == 2:
            raise BusyError("away for 60 s")
        return running(name) if len(self.asked) < 5 else over_with(name)


def read(cluster: Cluster) -> list[str]:
    lines: log_stream.Lines = queue.SimpleQueue()
    log_stream._Reader(cluster, "p", lines, lambda _: None).read(7)
    return [lines.get()[1] for _ in range(lines.qsize())]


def test_a_log_whose_stream_is_cut_is_taken_up_after_its_last_line() -> None:
    cut = Cut(None, BusyError("broke off"), AccessError("restarting"))
    assert read(cut) == [line for _, line in WRITTEN]
    assert cut.asked[:3] == [(7, ""), (None, WRITTEN[1][0]), (None, WRITTEN[3][0])]


def test_a_log_that_may_not_be_read_is_reported() -> None:
    assert read(Cut(*[AccessError("no")] * (DENIALS + 1)))[-1].startswith("no log")


def test_a_follower_of_a_run_that_is_deleted_ends() -> None:
    class Deleted(Cluster):
        stands = True

        def list(self, kind: str, *, labels: str = "", fields: str = "") -> Any:
            return ([job("j", "1")] if kind == "jobs" and self.stands else []), "1"

        def watch(self, kind: str, *, labels: str, version: str) -> Any:
            if kind == "jobs" and self.stands:
                self.stands = False
                yield "DELETED", job("j", "2")

        def get(self, kind: str, name: str) -> Any:
            return None

    assert list(log_stream.lines(Deleted(None, "ns"), "r", None, tail=None, sleep=time.sleep)) == []


def test_a_nightly_that_cannot_begin_is_read_and_ends_its_follower() -> None:
    """Its driver has labelled nothing: the watch knows neither Job nor pod."""
    driver = {"queue-eval.dev/role": "driver"}
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}
    ended = {"name": "queue-eval", "state": {"terminated": {"exitCode": 78}}}

    def answer(path: str) -> tuple[int, bytes]:
        if "/log" in path:
            return 200, b"2026-01-01T00:00:01Z no such file\n"
        if "watch" in path:
            return 200, b""
        items: list[Any] = []
        if path.endswith("/jobs/night"):
            return 200, json.dumps({**named("night", driver), "spec": {}, "status": failed}).encode()
        if "/pods/" in path:
            return 200, json.dumps(over_with("night-1")).encode()
        if "job-name" in path:
            items = [{**named("night-1", driver), "status": {"containerStatuses": [ended]}}]
        return 200, json.dumps({"items": items, "metadata": {"resourceVersion": "1"}}).encode()

    with answering(answer) as cluster:
        printed = list(log_stream.lines(cluster, "night", None, tail=None, sleep=time.sleep))
    assert printed == [("night-1", "no such file")]


def named(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
    }


@pytest.mark.parametrize(
    ("status", "printed", "kind"),
    [
        (403, "jobs is forbidden: exceeded quota: q", UnavailableError),
        (403, "jobs is forbidden: failed quota: q: must specify limits.cpu", ConfigError),
        (422, "spec: invalid", ConfigError),
        (400, "admission webhook says no", ConfigError),
    ],
)
def test_a_write_that_is_refused_has_its_remedy(status: int, printed: str, kind: type[QueueEvalError]) -> None:
    class Refusing(Cluster):
        stands: Any = None

        def _patiently(self, method: str, path: str, *, body: Any = None, query: Any = ()) -> Any:
            if method == "GET" and self.stands:
                return self.stands
            raise ClusterError(404 if method == "GET" else status, printed)

    with pytest.raises(kind, match="the same command goes on"):
        Refusing(None, "ns").create("jobs", job("a", "1"))
    with pytest.raises(kind, match="the same command goes on"):
        Refusing(None, "ns").patch("jobs", "a", {})
    with pytest.raises(ConfigError, match="Nothing was created"):
        Refusing(None, "ns").check("jobs", job("a", "1"))
    full = Refusing(None, "ns")
    full.stands = job("a", "1")
    full.check("jobs", job("a", "2"))
    assert full.create("jobs", job("a", "2")) == (full.stands, False)


def test_a_balancer_that_closes_what_it_has_accepted_is_waited_out_and_a_wrong_certificate_is_not() -> None:
    settings = client.Configuration()
    settings.retries = False
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings.host = f"https://127.0.0.1:{listening.getsockname()[1]}"

        def close_at_once(answer: bytes) -> None:
            accepted, _ = listening.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(answer)

        for answer, kind in ((b"", BusyError), (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConfigError)):
            thread = threading.Thread(target=close_at_once, args=(answer,))
            thread.start()
            with pytest.raises(kind):
                Cluster(client.ApiClient(settings), "ns")._request("GET", "/api/v1/namespaces/ns/pods")
            thread.join()


@pytest.mark.parametrize("status", [200, 302, 404])
def test_what_is_no_api_server_is_reported_as_none(status: int) -> None:
    with (
        answering(lambda _: (status, b"<html>log in</html>")) as cluster,
        pytest.raises(ConfigError, match="is no API server"),
    ):
        cluster.list("jobs")


LOCAL = {
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
    "users": [],
    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "x",
}


@pytest.mark.parametrize("namespace", ["../../x", "Upper", "a" * 64, "-a"])
def test_what_is_no_name_of_a_namespace_is_part_of_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    (tmp_path / "config").write_text(json.dumps(LOCAL))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    assert connect(namespace="a-1").namespace == "a-1"
    with pytest.raises(ConfigError, match="is no name of a namespace"):
        connect(namespace=namespace)


def test_what_was_not_foreseen_in_a_watch_is_raised_where_its_changes_are_read() -> None:
    class Odd(Cluster):
        def list(self, kind: str, *, labels: str = "", fields: str = "") -> Any:
            raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        next(Watching(Odd(None, "ns"), "a=b", sleep=lambda _: None).changes(5.0))


def listed(version: str, *names: str) -> Answer:
    return 200, {"items": [job(name, version) for name in names], "metadata": {"resourceVersion": version}}


def shown(what: str, name: str, version: str) -> dict[str, Any]:
    return {"type": what, "object": job(name, version)}


FORGOTTEN = {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}}
Serving = Callable[[list[Answer], list[Answer]], ApiServer]


def seen_until(server: ApiServer, names: set[str], pauses: list[float] | None = None) -> None:
    """Follows the jobs until these are there."""
    pause = (pauses if pauses is not None else []).append
    for looks, seen in enumerate(Watching(server.cluster(), "", kinds=("jobs",), sleep=pause).changes(0.05)):
        if set(seen.jobs) == names:
            return
        assert looks < 400


def test_a_watch_begins_where_the_list_ended(serving: Serving) -> None:
    server = serving([listed("7", "a")], [(200, [shown("ADDED", "b", "8")])])
    seen_until(server, {"a", "b"})
    assert server.asked == [("list", ""), ("watch", "7")]


@pytest.mark.parametrize("gone", [(410, {"message": "too old"}), (200, [FORGOTTEN])])
def test_after_410_it_lists_again_and_goes_on_from_there(serving: Serving, gone: Answer) -> None:
    """What was deleted meanwhile is gone from what is seen."""
    server = serving([listed("7", "a", "old"), listed("20", "a")], [gone, (200, [shown("ADDED", "b", "21")])])
    seen_until(server, {"a", "b"})
    assert server.asked == [("list", ""), ("watch", "7"), ("list", ""), ("watch", "20")]


def test_a_busy_server_is_asked_again_for_lists_and_for_watches(serving: Serving) -> None:
    busy = (429, {"message": "too many requests"})
    server = serving([busy, listed("7", "a")], [busy, (200, [shown("ADDED", "b", "8")])])
    pauses: list[float] = []
    seen_until(server, {"a", "b"}, pauses)
    assert [what for what, _ in server.asked] == ["list", "list", "watch", "watch"]
    assert len(pauses) == 1


def test_a_watch_that_the_server_ends_is_taken_up_where_it_was(serving: Serving) -> None:
    bookmark = shown("BOOKMARK", "", "30")
    server = serving([listed("7", "a")], [(200, [shown("DELETED", "a", "9"), bookmark]), (200, [shown("ADDED", "b", "31")])])  # fmt: skip
    seen_until(server, {"b"})
    assert server.asked == [("list", ""), ("watch", "7"), ("watch", "30")]


def test_watches_that_end_at_once_are_no_storm_of_requests(serving: Serving) -> None:
    """A proxy between us and the server may cut every stream."""
    server = serving([listed("7", "a")], [(200, [])] * 5 + [(200, [shown("ADDED", "b", "8")])])
    pauses: list[float] = []
    seen_until(server, {"a", "b"}, pauses)
    assert len(pauses) == 5


def test_a_verb_that_we_may_not_use_ends_it_with_the_servers_words(serving: Serving) -> None:
    words = 'jobs.batch is forbidden: User "u" cannot watch resource "jobs"'
    server = serving([listed("7", "a")], [(403, {"message": words})])
    with pytest.raises(AccessError, match="cannot watch"):
        seen_until(server, {"never"})


def test_what_was_allowed_before_is_asked_for_again_when_it_is_denied(serving: Serving) -> None:
    """A server that restarts may not have its roles yet."""
    denied = (403, {"message": 'jobs.batch is forbidden: User "u" cannot watch resource "jobs"'})
    server = serving([listed("7", "a")], [(200, []), denied, denied, (200, [shown("ADDED", "b", "8")])])
    seen_until(server, {"a", "b"})
    server = serving([listed("7", "a")], [(200, []), denied])
    with pytest.raises(AccessError, match="cannot watch"):
        seen_until(server, {"never"})
    assert len(server.asked) == 2 + DENIALS + 1


def test_a_driver_without_a_waiter_stops_watching(serving: Serving) -> None:
    plan = planned(str(ROOT / "k8s" / "base" / "eval.yaml"), "example", None)
    driver = Driver(serving([listed("7", "w")], [(200, [])]).cluster(), plan, sleep=time.sleep)
    assert driver.supervise(lambda: None, lambda: True) == ""


def test_a_wait_for_a_busy_server_is_reported_once(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    busy = (503, {"message": "starting"})
    serving([busy, busy, listed("7", "a")], [(200, [])]).cluster().list("jobs")
    (line,) = caplog.messages
    assert "starting; trying again for 60 s" in line


def test_a_server_that_never_answers_is_reported(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_eval.kubernetes.cluster.PATIENCE_S", 0.0)
    server = serving([(503, {"message": "starting"})], [(200, [])])
    with pytest.raises(BusyError, match="starting"):
        next(iter(Watching(server.cluster(), "", kinds=("jobs",), sleep=time.sleep).changes(0.05)))


@pytest.mark.parametrize("text", ["{", "contexts: [", "contexts: {}\ncurrent-context: a", "- 1", "\x00"])
def test_a_torn_configuration_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(ConfigError, match="kubernetes: "):
        connect()


@pytest.mark.parametrize(
    ("producer", "workers", "goes_on"),
    [
        ("Pending", "running", False),
        ("Running", "running", True),
        ("Running", "waiting", True),
        ("Complete", "running", True),
        ("Complete", "waiting", False),
    ],
)
def test_workers_that_run_are_no_comfort_while_the_producer_cannot_start(
    serving: Serving, producer: str, workers: str, goes_on: bool
) -> None:
    ended = [{"type": "Complete", "status": "True"}] if producer == "Complete" else []
    jobs = {"p": {"metadata": {"name": "p", "labels": ROLE["producer"]}, "spec": {}, "status": {"conditions": ended}}}
    pods = {"w": pod_of("worker", workers)} | ({"p": pod_of("producer", "running")} if producer == "Running" else {})
    cluster = serving([listed("7")], [(200, [])]).cluster()
    wait = RunWait(cluster, "r", notice=print, show=print, blocked_s=1, sleep=time.sleep, now=time.monotonic)
    assert wait._goes_on(Seen(jobs, pods)) == goes_on


ROLE = {role: {"queue-eval.dev/role": role} for role in ("worker", "producer")}


def pod_of(role: str, state: str) -> dict[str, Any]:
    return {
        "metadata": {"name": role, "labels": ROLE[role]},
        "status": {"containerStatuses": [{"name": "queue-eval", "state": {state: {"startedAt": "now"}}}]},
    }
