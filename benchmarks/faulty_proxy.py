"""A proxy before a real HTTP server that can behave as broken servers and networks do."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

Mode = Literal["pass", "refuse", "500", "hang", "cut_answer", "lose_answer"]
"""What becomes of a request.

- `pass`: it is answered by the server behind.
- `refuse`: nobody listens on the port; open connections are cut.
- `500`: answered with an error, without reaching the server behind.
- `hang`: taken and never answered (nor passed on), until the mode changes.
- `cut_answer`: it takes effect, but half of the answer is lost with the connection.
- `lose_answer`: the same, but all of the answer is lost, so that clients dare to ask again.
"""

# Headers that hold between two neighbours only (RFC 9110, 7.6.1), and those we write anew.
HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "date", "server"}


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 and passes requests on to `target`, or does not.

    Every request meets the mode of the moment in which it was read whole, so kept-alive
    connections follow a change too. The port stays the same, and ours, in every mode.
    """

    def __init__(self, target: str) -> None:
        self.target = target.rstrip("/")
        self.mode: Mode = "pass"
        self.num_requests = 0
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        # Bound but not listening: connections are refused while no listener stands beside it,
        # and nobody else can be given the port meanwhile.
        self._port_holder = _bound(0)
        self._port: int = self._port_holder.getsockname()[1]
        self._listener: _Listener | None = _Listener(self, self._port)

    @property
    def uri(self) -> str:
        """Where clients reach the proxy."""
        return f"http://127.0.0.1:{self._port}"

    def behave(self, mode: Mode) -> None:
        """Treat requests so from now on; those that hang are dropped."""
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}: got {mode!r}")
        with self._changed:
            self.mode = mode
            self._changed.notify_all()
        if mode == "refuse":
            self._stop_listening()
        elif self._listener is None:
            self._listener = _Listener(self, self._port)

    @contextmanager
    def behaving(self, mode: Mode) -> Iterator[None]:
        """Behave so within the block, and pass requests on after it."""
        self.behave(mode)
        try:
            yield
        finally:
            self.behave("pass")

    def wait_for_requests(self, count: int = 1, timeout_seconds: float = 60.0) -> bool:
        """Whether `count` more requests were read within the time."""
        with self._changed:
            wanted = self.num_requests + count
            return self._changed.wait_for(lambda: self.num_requests >= wanted, timeout_seconds)

    def close(self) -> None:
        """Give up port and connections."""
        self.behave("refuse")
        self._port_holder.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            with suppress(OSError):  # the other side may have ended it
                connection.shutdown(socket.SHUT_RDWR)

    # Called by the threads that serve a connection.

    def note_connection(self, connection: socket.socket, is_open: bool) -> None:
        """Know the connections that a refusal has to cut."""
        with self._changed:
            (self._connections.add if is_open else self._connections.discard)(connection)

    def note_request(self) -> Mode:
        """Count a request; returns what is to become of it."""
        with self._changed:
            self.num_requests += 1
            self._changed.notify_all()
            return self.mode

    def wait_while_hanging(self) -> None:
        """Return when the mode is no longer `hang`."""
        with self._changed:
            self._changed.wait_for(lambda: self.mode != "hang")


class _Listener(ThreadingHTTPServer):
    """Takes connections for a proxy as long as it listens."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: FaultyProxy, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Connection, bind_and_activate=False)
        self.proxy = proxy
        self.socket.close()
        self.socket = _bound(port)
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are what this is for."""


class _Connection(BaseHTTPRequestHandler):
    """Serves the requests of one connection."""

    protocol_version = "HTTP/1.1"
    # Answers leave at once: Nagle's algorithm would hold their second packet back.
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.proxy.note_connection(self.connection, is_open=True)

    def finish(self) -> None:
        self.server.proxy.note_connection(self.connection, is_open=False)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _serve(self) -> None:
        body = _read_body(self.rfile, self.headers)
        proxy = self.server.proxy
        mode = proxy.note_request()
        if mode == "hang":
            proxy.wait_while_hanging()
        if mode in ("hang", "refuse"):
            self.close_connection = True
        elif mode == "500":
            self._answer(500, [], b'{"error_code": "INTERNAL_ERROR", "message": "broken"}')
        else:
            self._pass_on(body, mode)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815

    def _pass_on(self, body: bytes, mode: Mode) -> None:
        target = urlsplit(self.server.proxy.target)
        assert target.hostname is not None
        behind = http.client.HTTPConnection(target.hostname, target.port, timeout=300)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in HOP_HEADERS
        }
        try:
            behind.request(self.command, self.path, body or None, headers)
            answer = behind.getresponse()
            content = answer.read()
            if mode == "lose_answer":
                self.close_connection = True
            else:
                cut = mode == "cut_answer"
                self._answer(answer.status, answer.getheaders(), content, cut=cut)
        except (OSError, http.client.HTTPException):
            self.close_connection = True
        finally:
            behind.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False
    ) -> None:
        self.close_connection = self.close_connection or cut
        if cut and not body:
            return
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_HEADERS | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)


def _read_body(stream: BufferedIOBase, headers: Any) -> bytes:
    if headers.get("Transfer-Encoding", "").lower() != "chunked":
        return stream.read(int(headers.get("Content-Length", 0)))
    chunks = []
    while size := int(stream.readline().split(b";")[0], 16):
        chunks.append(stream.read(size))
        stream.readline()
    stream.readline()
    return b"".join(chunks)


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
