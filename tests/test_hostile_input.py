"""What a stranger may hand over: refused in one line, nothing run, nothing left behind.

The rules in detail are tested beside the modules that keep them; here they hold together, at the
doors by which such input comes: the command line, a configuration, a folder of weights, an export.
"""

import csv
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models.config import LSTMConfig, WindowShape
from models.forecaster import Forecaster
from pipelines.training_config import TrainConfig
from pipelines.weights import forecaster_from_file, weights_to_bytes
from search import run
from search.config import SearchConfig
from search.kept_weights import KeptWeights
from search.places import record_url
from search.projection import leaderboard_csv
from search.record import Ending, TrialRecord, TrialState
from search.result import SearchResult
from search.space import TrialConfig

ROOT = Path(__file__).parents[1]


def nine_times_the_line_above(number: int) -> str:
    return f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]"


CONFIGURATIONS: dict[str, tuple[bytes, str]] = {
    "object": (b"study: !!python/object/apply:os.system ['touch canary']", "got the tag !!python"),
    "module": (b"study: !!python/module:os.path", "got the tag !!python"),
    "laughs": (
        "\n".join(["a0: &a0 [ha]", *(nine_times_the_line_above(n) for n in range(1, 10))]).encode(),
        "at most 10,000 values, aliases counted",
    ),
    "depth": (b"[" * 20_000, "nesting must be at most 32 deep"),
    "twice": (b"search:\n  trials: 5\n  seed: 1\n  trials: 6\n", "key trials is given twice"),
    "number": (b"search: {trials: %s}" % (b"9" * 5000), "at most 40 digits"),
    "large": (b"#" * 2**20, "at most 262,144 characters"),
    "binary": (bytes(range(256)), "is UTF-8 text"),
    "utf16": ("study: x".encode("utf-16"), "is UTF-8 text"),
    "escape": (b'"\\e[2J": 1', r"unknown key \x1b[2J"),
    "name": (b'study: "../../etc/cron.d/x"', "a study's name has 1 to 100 letters"),
    "device": (b"study: NUL.txt", "a study cannot be called NUL.txt"),
    "home": (b'home: "a\\0b"', r"without control characters: got 'a\x00b'"),
    "experiment": (b'tracking: {experiment: "a\\nb"}', r"without control characters: got 'a\nb'"),
    "place": (b"tracking: {uri: 'javascript:alert(1)'}", "it begins with http, https"),
    "class": (b"__class__: x", "unknown key __class__; known are"),
}


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_hostile_configuration_is_one_line_and_exit_code_2(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = CONFIGURATIONS[kind]
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes(content)
    answer = CliRunner().invoke(run.app, ["--config", "c.yaml", "--dry-run"])
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.removesuffix("\n").isprintable()
    assert answer.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "__class__=1"], "unknown key __class__"),
        (["--set", "data.__init__.__globals__=1"], "unknown key data.__init__"),
        (["--set", "search.trials=!!python/name:os.system"], "values must be plain"),
        (["--set", f"{'a.' * 5000}b=1"], "--set takes a.b=value"),
        (["--set", "\x1b[2J=1"], r"unknown key \x1b[2J"),
        (["--set", f"search.metric={'x' * 10**5}"], "search.metric: Input should be 'mae'"),
        (["--study", ".."], "a study's name has"),
        (["--study", "a/../b"], "a study's name has"),
        (["--study", "x\x1b]0;title\x07"], "a study's name has"),
        (["--metric", "\x1b[2J"], "search.metric: Input should be"),
        (["--data", "\x1b[2J.csv"], r"\x1b[2J.csv"),
        (["--data", "a\nerror: all is well"], r"a\nerror: all is well"),
        (["--target", "\u202eload"], r"\u202eload"),
    ],
    ids=lambda value: str(value)[:30].encode("unicode_escape").decode(),
)
def test_a_hostile_flag_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(run.app, [*arguments, "--dry-run"])
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert answer.stderr.removesuffix("\n").isprintable()
    assert len(answer.stderr) < 1000
    assert list(tmp_path.iterdir()) == []


# Weights in a study's folder


class Canary:
    """What a pickle would do when it is loaded: make a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def a_result(home: Path) -> SearchResult:
    """A study of one complete trial."""
    training = TrainConfig(
        lookback=4, calendar=False, learning_rate=0.1, weight_decay=0.0, batch_size=1
    )
    trial = TrialRecord(
        number=0,
        state=TrialState.COMPLETE,
        config=TrialConfig(model=LSTMConfig(widths=(4,)), training=training),
        seed=1,
        params={},
        value=0.5,
    )
    config = SearchConfig(study="mine", home=str(home))
    return SearchResult(config, Ending.DONE, (trial,), (), None)


def some_weights() -> bytes:
    shape = WindowShape(lookback=4, horizon=2, num_features=1, num_targets=1)
    return weights_to_bytes(Forecaster(LSTMConfig(widths=(4,)), shape))


def test_a_pickle_beside_or_in_place_of_a_trials_weights_is_never_loaded(tmp_path: Path) -> None:
    result, canary = a_result(tmp_path), tmp_path / "canary"
    kept = KeptWeights(result.config.studies_folder / "mine")
    kept.write(0, pickle.dumps(Canary(canary)))
    for name in ("000.pt", "000.pkl", "model.pkl", "data.pickle"):
        (kept.path(0).parent / name).write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(ValueError, match="weights must be safetensors"):
        result.load_best()
    kept.write(0, some_weights())
    assert result.load_best().config == LSTMConfig(widths=(4,))
    assert not canary.exists()


def test_a_link_out_of_the_studys_folder_is_not_followed(tmp_path: Path) -> None:
    result = a_result(tmp_path)
    path = KeptWeights(result.config.studies_folder / "mine").path(0)
    path.parent.mkdir(parents=True)
    (tmp_path / "private").write_bytes(some_weights())
    path.symlink_to(tmp_path / "private")
    with pytest.raises(ValueError, match="no link to one"):
        result.load_best()
    path.unlink()
    path.symlink_to("../../private")
    with pytest.raises(ValueError, match="no link to one"):
        forecaster_from_file(path)


def test_no_name_of_a_study_leads_its_record_out_of_the_folder(tmp_path: Path) -> None:
    for name in ("a", "a..b", "a" * 100, "x.db"):
        config = SearchConfig(study=name, home=str(tmp_path))
        place = Path(record_url(config, name).removeprefix("sqlite:///"))
        assert place.resolve().parent == (tmp_path / "studies").resolve()


# What is exported


def test_an_exported_table_has_no_cell_that_a_spreadsheet_would_run() -> None:
    trial = a_result(Path("unused")).trials[0]
    rows = list(csv.reader(leaderboard_csv([trial]).splitlines()))
    assert len(rows) == 2
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or float(cell) < 0


# The rules that a program checks


@pytest.mark.slow
def test_the_security_linter_has_nothing_to_say() -> None:
    lint = [sys.executable, "-m", "bandit", "--quiet", "--configfile", "pyproject.toml"]
    lint += ["--recursive", "models", "pipelines", "search"]
    answer = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_an_exception_to_the_security_linter_names_its_rule() -> None:
    files = [*ROOT.glob("models/*"), *ROOT.glob("pipelines/*"), *ROOT.glob("search/*")]
    source = [file.read_text(encoding="utf-8") for file in files if file.suffix == ".py"]
    marks = [line for text in source for line in text.splitlines() if "# nosec" in line]
    assert [line for line in marks if not re.search(r"# nosec B\d{3}$", line)] == []


# By the commands themselves


@pytest.mark.slow
def test_the_command_refuses_hostile_input_without_a_traceback(tmp_path: Path) -> None:
    for kind in ("object", "laughs"):
        content, message = CONFIGURATIONS[kind]
        (tmp_path / "c.yaml").write_bytes(content)
        assert_refused(tmp_path, message, "search.run", "--config", "c.yaml")
    (tmp_path / "c.yaml").unlink()
    assert_refused(tmp_path, "a study's name has", "search.run", "--resume", "../../x")
    assert_refused(tmp_path, "a study's name has", "search", "sync", "../../x")
    assert_refused(tmp_path, "the space must hold", "search.run", "--set", "space.lookback=50000")
    assert list(tmp_path.iterdir()) == []


def assert_refused(folder: Path, message: str, module: str, *arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "RAY_"))}
    answer = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2, answer.stderr
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.removesuffix("\n").isprintable()
    assert answer.stdout == ""
