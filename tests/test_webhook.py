"""The example that posts what a search came to, against a server of this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from search.outcome import BestTrial, Links, Outcome, VerdictInShort

EXAMPLE = Path(__file__).parents[1] / "examples" / "post_to_webhook.py"

DONE = Outcome(
    study="nightly-2026-11-23",
    state="done",
    exit_code=0,
    ended_at="2026-11-23T04:00:00+01:00",
    seconds=3600.0,
    trials={"complete": 40},
    metric="mae",
    best=BestTrial(trial=7, value=0.25, configuration="1 layer 64, lookback 96"),
    baselines=(),
    verdict=VerdictInShort(outcome="passed", reason="it errs less", skill=0.1, against="ridge"),
    links=Links(mlflow="http://mlflow/#/experiments/1"),
    error=None,
)
REFUSED = DONE.model_copy(
    update={
        "study": None,
        "state": "refused",
        "metric": None,
        "best": None,
        "verdict": None,
        "links": Links(),
        "error": "the file must exist: there is no loads.csv",
    }
)


class Webhook(HTTPServer):
    """A server that remembers what is posted to it."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posted: list[tuple[str, str | None, bytes]] = []

    @property
    def url(self) -> str:
        """Its address, of which a part is secret."""
        return f"http://127.0.0.1:{self.server_port}/s3cr3t"


class Handler(BaseHTTPRequestHandler):
    """What the server does with a message."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Webhook)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def post(outcome: Outcome, url: str | None) -> subprocess.CompletedProcess[str]:
    # A proxy of this machine would not reach the server of this test.
    others = {"WEBHOOK_URL", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}
    environment = {name: value for name, value in os.environ.items() if name not in others}
    return subprocess.run(
        [sys.executable, "-I", str(EXAMPLE)],  # alone: it needs nothing of this project
        input=outcome.model_dump_json(),
        env=environment | ({} if url is None else {"WEBHOOK_URL": url}),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (
            DONE,
            "nightly-2026-11-23: done | best trial 7, MAE 0.2500, 1 layer 64, lookback 96 | "
            "passed: it errs less | http://mlflow/#/experiments/1",
        ),
        (REFUSED, "a search: refused | the file must exist: there is no loads.csv"),
    ],
    ids=["done", "refused"],
)
def test_an_outcome_is_posted_as_a_line_of_text(
    webhook: Webhook, outcome: Outcome, text: str
) -> None:
    answer = post(outcome, webhook.url)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    [(path, kind, body)] = webhook.posted
    assert (path, kind) == ("/s3cr3t", "application/json")
    assert json.loads(body) == {"text": text}


def test_a_webhook_that_refuses_fails_the_command_without_its_address(webhook: Webhook) -> None:
    webhook.status = 500
    answer = post(DONE, webhook.url)
    assert answer.returncode == 1
    assert answer.stderr == "the webhook must take the message: it answered 500\n"


def test_a_webhook_that_is_not_there_fails_the_command_without_its_address(free_port: int) -> None:
    answer = post(DONE, f"http://127.0.0.1:{free_port}/s3cr3t")
    assert answer.returncode == 1
    assert answer.stderr.startswith("the webhook must be reachable: got ")
    assert "s3cr3t" not in answer.stderr


@pytest.mark.parametrize("url", [None, "", "ftp://s3cr3t", "file:///etc/s3cr3t"])
def test_without_a_web_address_it_says_what_is_missing(url: str | None) -> None:
    answer = post(DONE, url)
    assert answer.returncode == 1
    assert answer.stderr == "WEBHOOK_URL must be a web address that begins with http: set it\n"
