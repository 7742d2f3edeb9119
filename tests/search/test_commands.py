"""What flags are understood to mean, and what a command answers where its search is ended."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search import commands, finalize, search
from search.config import ConfigError, SearchConfig, SearchSettings
from search.config_file import parse_config
from search.mlflow_store import ViewError
from search.study import Study


@pytest.fixture(autouse=True)
def _signals_kept() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("code", [1, 15])
def test_a_signal_that_ray_answers_while_it_starts_ends_the_search_as_any_sigterm(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end_as_rays_handler_does(*_: object, **__: object) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(search, "run_search", end_as_rays_handler_does)
    config = SearchConfig(study="one")
    assert commands.search(config, is_verbose=False, is_quiet=True) == 143
    assert "the record is safe: python -m search.run --resume one" in capsys.readouterr().err


def test_a_verdict_that_waits_for_mlflow_is_reached_by_the_command_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def meet_no_server(*_: object, **__: object) -> None:
        raise ViewError("connection refused")

    monkeypatch.setattr(finalize, "finalize", meet_no_server)
    config = SearchConfig(study="one", home="my runs", storage="sqlite:///shared.db")
    assert commands.finalize(config, is_verbose=False, is_quiet=True) == 0
    command = "python -m search finalize one --home 'my runs' --storage URL"
    assert command in capsys.readouterr().err


@pytest.fixture
def recorded(tmp_path: Path, open_small_study: Callable[..., Study]) -> Callable[..., None]:
    """Record study `one` with some settings."""

    def record(**search: Any) -> None:
        (tmp_path / "studies").mkdir()
        study = open_small_study(tmp_path / "studies" / "one.db", name="one")
        study.note("config", parse_config({"study": "one", "search": search}).model_dump_json())

    return record


@pytest.mark.parametrize(
    ("search", "flags"),
    [
        ({"sampler": "grid", "repeats": 3}, {"search.repeats": 5}),
        ({"sampler": "grid"}, {"search.repeats": 2, "search.seed": 0}),
    ],
)
def test_a_flag_that_goes_with_what_is_recorded_is_taken_when_a_study_goes_on(
    tmp_path: Path, recorded: Callable[..., None], search: dict[str, Any], flags: dict[str, Any]
) -> None:
    recorded(**search)
    config = commands.read_config(None, [], {**flags, "home": str(tmp_path)}, resume="one")
    assert config.search.repeats == flags["search.repeats"]
    assert config.search.sampler == "grid"
    assert config.home == str(tmp_path)


def test_a_grid_goes_on_with_the_size_that_it_has_then_not_with_the_recorded(
    tmp_path: Path, recorded: Callable[..., None]
) -> None:
    recorded(sampler="grid", trials=18)
    config = commands.read_config(None, [], {"home": str(tmp_path)}, resume="one")
    assert config.search.trials == SearchSettings().trials


def test_a_flag_that_does_not_go_with_what_is_recorded_is_refused(
    tmp_path: Path, recorded: Callable[..., None]
) -> None:
    recorded(sampler="tpe")
    flags = {"search.repeats": 5, "home": str(tmp_path)}
    with pytest.raises(ConfigError, match="repeats needs sampler grid: got repeats=5 and sampler"):
        commands.read_config(None, [], flags, resume="one")


@pytest.mark.parametrize("flag", ["--trials", "--add-trials"])
def test_a_grid_takes_no_total_of_trials(
    flag: str, tmp_path: Path, recorded: Callable[..., None]
) -> None:
    recorded(sampler="grid")
    flags = {"home": str(tmp_path)} | ({"search.trials": 5} if flag == "--trials" else {})
    add_trials = 5 if flag == "--add-trials" else None
    with pytest.raises(
        ConfigError, match=f"as many trials as combinations and repeats: got {flag};"
    ):
        commands.read_config(None, [], flags, "one", add_trials)
