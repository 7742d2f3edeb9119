"""How long a served forecast takes: python -m benchmarks.serving --requests 300.

`mlflow models serve` serves a model on 127.0.0.1, with one worker, and is asked again and again for
the forecast of one window over one connection. Printed are the median and the 99th percentile of
the seconds that an answer takes, and of a forecast in this process, without HTTP or MLflow; also
the latter's CPU time, which other work on the machine changes least.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import torch

from models.config import LSTMConfig
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.predictor import Predictor, example_of, predictor_of
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.serving import write_model
from pipelines.splits import split
from pipelines.training import build_forecaster
from pipelines.training_config import TrainConfig

PATIENCE_SECONDS = 180
NUM_WARM_UP = 20


def main() -> None:
    """Serve a model, ask it, and print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5, help="members of the ensemble")
    parser.add_argument("--width", type=int, default=32, help="hidden units of its one layer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    predictor, example = electricity_predictor(options.width, options.seeds)
    with tempfile.TemporaryDirectory(prefix="serving-") as scratch:
        model, log = Path(scratch) / "model", Path(scratch) / "serve.log"
        write_model(predictor, model, example)
        with serving(model, free_port(), log) as url, connection_to(url) as ask:
            content = as_request(example)
            answers = time_calls(lambda: ask(content), options.requests)
    cpu_started = time.process_time()
    here = time_calls(lambda: predictor.forecast(example), options.requests)
    cpu_seconds = (time.process_time() - cpu_started) / (NUM_WARM_UP + options.requests)
    described = f"{options.seeds} × {predictor.spec.model.describe()}"
    print(f"{described}, {len(example)} rows in, {predictor.spec.horizon} out, milliseconds")
    for name, seconds in (("HTTP answer", answers), ("in process", here)):
        print(f"{name:12} {summary(seconds)}")
    print(f"{'CPU of it':12} mean {1000 * cpu_seconds:.1f}")


def electricity_predictor(width: int, num_seeds: int) -> tuple[Predictor, pd.DataFrame]:
    """Return an ensemble of untrained weights, which take as long as any, and its example."""
    table = load(DataConfig())
    data, _ = split(table, SplitConfig())
    training = TrainConfig(
        lookback=168, calendar=True, learning_rate=1e-3, weight_decay=0.0, batch_size=64
    )
    model = LSTMConfig(widths=(width,))
    seeds = range(num_seeds)
    forecasters = [build_forecaster(model, training, data, "cpu", seed) for seed in seeds]
    num_rows, scaling = data.num_train_rows, Scaling.fit(data)
    predictor = predictor_of(table, data, training, scaling, forecasters, num_rows)
    return predictor, example_of(table, data, predictor)


@contextmanager
def serving(model: Path | str, port: int, log: Path) -> Iterator[str]:
    """Serve a model with `mlflow models serve`, here; yield the address that takes tables."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", str(model), "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_MODELS_WORKERS": "1"}
    # It starts `uvicorn`, which it looks for on the path.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/ping", process, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            _end(process)


def free_port() -> int:
    """Return a port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def as_request(table: pd.DataFrame) -> bytes:
    """Return a table as the body of a request."""
    columns = json.loads(table.to_json(orient="split", date_format="iso", index=False))
    return json.dumps({"dataframe_split": columns}).encode()


@contextmanager
def connection_to(url: str) -> Iterator[Callable[[bytes], Any]]:
    """Yield a function that posts a request over one connection and returns the JSON answered."""
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)

    def ask(content: bytes) -> Any:
        connection.request("POST", address.path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{url} answers {answer.status}: {text.decode()}")
        return json.loads(text)

    try:
        yield ask
    finally:
        connection.close()


def time_calls(call: Callable[[], object], count: int) -> list[float]:
    """Return the seconds of each call, after some that do not count."""
    seconds = []
    for place in range(NUM_WARM_UP + count):
        started = time.perf_counter()
        call()
        if place >= NUM_WARM_UP:
            seconds.append(time.perf_counter() - started)
    return seconds


def summary(seconds: list[float]) -> str:
    """Return median, 99th percentile and maximum in milliseconds."""
    percentile = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    shown = (statistics.median(seconds), percentile, max(seconds))
    median, high, most = (f"{1000 * value:.1f}" for value in shown)
    return f"median {median}, 99th percentile {high}, longest {most} ({len(seconds)} calls)"


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the model is not served:\n{log.read_text()}") from None
            time.sleep(0.3)


def _end(process: subprocess.Popen[bytes]) -> None:
    # A group of its own: the server is a child of the command.
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)


if __name__ == "__main__":
    main()
