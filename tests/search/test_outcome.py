"""What other programs are told of a search: its outcome as JSON."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from pipelines.scores import BaselineScore, Evaluation
from search import outcome
from search.config import SearchConfig
from search.outcome import Account, Outcome, without_secrets
from search.record import Ending, TrialRecord
from search.result import SearchResult
from search.study import Study

DOCS = Path(__file__).parents[2] / "docs" / "cluster.md"


@pytest.fixture
def account(
    played_trials: list[TrialRecord], make_evaluation: Callable[..., Evaluation]
) -> Account:
    """Of a search that ended in order, its baselines scored."""
    scores = {"ridge": 0.3, "persistence": math.nan}
    baselines = tuple(BaselineScore(n, make_evaluation(v).errors, "") for n, v in scores.items())
    config = SearchConfig(study="small")
    account = Account()
    account.begin(config)
    account.result = SearchResult(config, Ending.DONE, tuple(played_trials), baselines, "http://x/")
    account.exit_code = 0
    return account


def test_it_tells_trials_the_best_of_them_and_what_they_had_to_beat(account: Account) -> None:
    told = json.loads(account.outcome().model_dump_json())
    assert (told["study"], told["state"], told["exit_code"]) == ("small", "done", 0)
    assert told["trials"] == {
        "complete": 3,
        "pruned": 1,
        "failed": 1,
        "running": 1,
        "rejected": 1,
    }
    assert (told["best"]["trial"], told["best"]["value"]) == (6, pytest.approx(0.29))
    assert "lookback" in told["best"]["configuration"]
    assert told["metric"] == "mae"
    assert told["baselines"] == [
        {"name": "ridge", "value": 0.3},
        {"name": "persistence", "value": None},
    ]
    assert told["links"] == {"mlflow": "http://x/", "report": None, "model": None}
    assert (told["verdict"], told["error"], told["schema_version"]) == (None, None, 1)


@pytest.mark.parametrize(
    ("is_passed", "skills", "expected"),
    [
        (True, {"ridge": 0.1, "persistence": 0.7}, ("passed", 0.1, "ridge")),
        (False, {"ridge": 0.1, "persistence": -0.2}, ("not passed", -0.2, "persistence")),
        (False, {"ridge": 0.1, "exact": None}, ("not passed", None, "exact")),
    ],
)
def test_a_verdict_tells_the_skill_against_what_is_hardest_to_beat(
    account: Account, is_passed: bool, skills: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    comparisons = [SimpleNamespace(opponent=name, skill=skill) for name, skill in skills.items()]
    verdict = SimpleNamespace(is_passed=is_passed, reason="why", comparisons=comparisons)
    model = SimpleNamespace(uri="models:/loads@champion")
    conclusion: Any = SimpleNamespace(verdict=verdict, model=model, report=Path("page.html"))
    account.conclusion = conclusion
    told = account.outcome()
    assert told.verdict is not None
    assert (told.verdict.outcome, told.verdict.skill, told.verdict.against) == expected
    assert (told.links.report, told.links.model) == ("page.html", "models:/loads@champion")


def test_of_a_search_that_was_cut_off_it_tells_what_the_record_holds(
    tmp_path: Path, played_study: Study
) -> None:
    account = Account()
    account.begin(SearchConfig(study="small", home=str(tmp_path)))
    account.fail("interrupted")
    told = account.outcome()
    assert told.state == "interrupted"
    assert told.best is not None
    assert told.best.trial == 6


def test_of_a_search_that_was_refused_it_tells_nothing_of_another_searchs_study(
    tmp_path: Path, played_study: Study
) -> None:
    account = Account()
    account.begin(SearchConfig(study="small", home=str(tmp_path)))
    account.fail("refused", ValueError("process 7 is searching small"))
    told = account.outcome()
    assert (told.study, told.state, told.best, told.trials) == ("small", "refused", None, {})
    assert told.error == "process 7 is searching small"


def test_a_name_that_was_not_filled_in_is_no_study() -> None:
    account = Account()
    account.config = SearchConfig(study="nightly-{date}")
    account.fail("refused", ValueError("the file must exist"))
    assert account.outcome().study is None


@pytest.mark.parametrize(
    ("ending", "state"), [(Ending.DONE, "broken"), (Ending.INTERRUPTED, "interrupted")]
)
def test_without_a_complete_trial_a_search_that_was_not_interrupted_is_broken(
    account: Account, ending: Ending, state: str
) -> None:
    assert account.result is not None
    failed = tuple(trial for trial in account.result.trials if trial.number == 3)
    account.result = replace(account.result, ending=ending, trials=failed)
    told = account.outcome()
    assert (told.state, told.best) == (state, None)
    why = "no trial is complete: OSError: the disk is full"
    assert told.error == (why if state == "broken" else None)


def test_where_the_search_gave_up_the_trial_that_failed_last_is_told(account: Account) -> None:
    assert account.result is not None
    last = next(trial for trial in account.result.trials if trial.number == 3)
    before = replace(last, number=9, reason="another", ended_at=last.ended_at - 1)
    trials = (*account.result.trials, before)
    account.result = replace(account.result, ending=Ending.BROKEN, trials=trials)
    told = account.outcome()
    assert told.state == "broken"
    assert told.best is not None
    why = f"trials failed one after another, at last {last.name}: OSError: the disk is full"
    assert told.error == why


@pytest.mark.parametrize(
    "text",
    [
        "cannot connect to postgresql://me:hunter22@db/optuna",
        "at http://me:hun@ter22hunter22@mlflow:5000/api, retried",
        "got https://files/x.csv?sig=hunter22&exp=1 twice",
        "login failed: password=hunter22 user=me",
        "the server refused hunter22",
        "not the token a1b2c3d4e5 of ours",
        "redirected to the store's s3kr1t",
    ],
)
def test_no_password_or_token_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a1b2c3d4e5")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3kr1t@mlflow:5000")
    config = SearchConfig(study="one", storage="postgresql://me:hunter22@db/optuna")
    account = Account()
    account.begin(config)
    account.fail("broken", RuntimeError(text))
    told = account.outcome().model_dump_json()
    assert "***" in told
    assert [s for s in ("hunter22", "a1b2c3d4e5", "s3kr1t", "ter22") if s in told] == []


def test_an_error_is_told_whole_where_it_holds_no_secret() -> None:
    text = "study one: 3 rows at models:/loads@champion, see http://mlflow:5000/#/experiments/1"
    assert without_secrets(f"{text}\nand more", None) == f"{text}\\nand more"


def test_the_docs_name_every_field() -> None:
    page = DOCS.read_text(encoding="utf-8")
    missing = [name for name in fields_of(Outcome) if f"`{name}`" not in page]
    assert missing == []
    assert f'"schema_version": {outcome.SCHEMA_VERSION}' in page


def fields_of(model: type[BaseModel]) -> list[str]:
    nested = {
        "best": outcome.BestTrial,
        "baselines": outcome.BaselineValue,
        "verdict": outcome.VerdictInShort,
        "links": outcome.Links,
    }
    own = list(model.model_fields)
    return own + [f"{n}.{f}" for n in own if n in nested for f in nested[n].model_fields]
