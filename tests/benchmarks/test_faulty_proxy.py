"""The proxy breaks in each of the ways that it says, and the server behind it is real."""

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.faulty_proxy import FaultyProxy, Mode

PATIENCE_SECONDS = 120


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent, and remembers it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        SEEN.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


SEEN: list[bytes] = []


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    SEEN.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = FaultyProxy(f"http://127.0.0.1:{server.server_port}")
        yield proxy
        proxy.close()
        server.shutdown()


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.uri[7:], timeout=PATIENCE_SECONDS)
    yield connection
    connection.close()


def post(client: http.client.HTTPConnection, text: str) -> tuple[int, bytes]:
    client.request("POST", "/somewhere", text.encode())
    answer = client.getresponse()
    return answer.status, answer.read()


def test_requests_pass_one_after_the_other(client: http.client.HTTPConnection) -> None:
    assert [post(client, text) for text in ("one", "two")] == [(200, b"one"), (200, b"two")]


def test_a_kept_connection_meets_the_new_mode(
    proxy: FaultyProxy, client: http.client.HTTPConnection
) -> None:
    post(client, "one")
    with proxy.behaving("500"):
        assert post(client, "two")[0] == 500
    assert post(client, "three") == (200, b"three")
    assert SEEN == [b"one", b"three"]


def test_a_refused_connection_is_refused_and_the_port_stays(
    proxy: FaultyProxy, client: http.client.HTTPConnection
) -> None:
    post(client, "one")
    proxy.behave("refuse")
    with pytest.raises((http.client.HTTPException, OSError)):  # which was open
        post(client, "two")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", client.port), PATIENCE_SECONDS)
    client.close()
    proxy.behave("pass")
    assert post(client, "three") == (200, b"three")
    assert SEEN == [b"one", b"three"]


def test_a_cut_answer_is_that_of_a_request_that_took_effect(
    proxy: FaultyProxy, client: http.client.HTTPConnection
) -> None:
    with proxy.behaving("cut_answer"), pytest.raises(http.client.IncompleteRead):
        post(client, "one")
    assert SEEN == [b"one"]


def test_a_hanging_request_has_no_answer_until_the_mode_changes(
    proxy: FaultyProxy, client: http.client.HTTPConnection
) -> None:
    proxy.behave("hang")
    client.request("POST", "/somewhere", b"one")
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.getresponse()
    assert SEEN == []
    client.close()


def test_an_unknown_mode_is_refused(proxy: FaultyProxy) -> None:
    mode: Mode = "sulk"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="mode must be one of"):
        proxy.behave(mode)
