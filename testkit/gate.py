"""A store's front door: an HTTP proxy before an S3 server that can be closed (503), or lose its answers after the work is done, or keep them back."""

import http.client
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class _Server(ThreadingHTTPServer):
    def handle_error(self, *about: Any) -> None:
        """The asking process was killed meanwhile: nothing to send."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*about)


class Gate:
    def __init__(self, url: str) -> None:
        self.closed = False
        self.loses_answers = False
        self.late_s = 0.0  # what each answer waits, its work done
        self.kept = 0
        self.turned_away = 0
        self.lost = 0
        self._created: list[str] = []
        self._server = _Server(("127.0.0.1", 0), self._handler(urlsplit(url).netloc))
        self._thread = threading.Thread(target=self._server.serve_forever, name="gate", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stored(self, part: str) -> int:
        """Objects that were created below a name."""
        return sum(part in path for path in self._created)

    def start(self) -> "Gate":
        self._thread.start()
        return self

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handler(self, upstream: str) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if gate.closed:
                    gate.turned_away += 1
                    self._answer(503, {}, b"")
                    return
                connection = http.client.HTTPConnection(upstream, timeout=20)
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                if self.command == "PUT" and response.status == http.HTTPStatus.OK:
                    gate._created.append(self.path)
                data = response.read()
                connection.close()
                if gate.late_s:
                    gate.kept += 1
                    time.sleep(gate.late_s)
                if gate.loses_answers:
                    gate.lost += 1
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._answer(response.status, dict(response.getheaders()), data)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = _pass  # noqa: N815 - http.server looks for these names

            def log_message(self, *_: object) -> None:
                return

        return Handler
