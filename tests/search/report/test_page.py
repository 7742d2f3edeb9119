"""The page as a file: whole for every kind of study, bounded, and closed to what it shows."""

import base64
import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects
import pytest

from pipelines.verdict import Verdict
from search import study_commands
from search.config import ConfigError, SearchConfig
from search.record import TrialRecord, TrialState
from search.report.evidence import Evidence, read_evidence
from search.report.page import page, write_report
from search.stored_studies import UnknownStudyError
from search.study import Study

MakeEvidence = Callable[..., Evidence]
MakeVerdict = Callable[..., Verdict]

ANCHORS = [
    "verdict",
    "leaderboard",
    "history",
    "curves",
    "layers",
    "importance",
    "slices",
    "parallel",
    "costs",
    "forecasts",
    "steps",
    "residuals",
    "data",
    "time",
    "settings",
]


class Page(HTMLParser):
    """What a browser makes of the page: its elements, texts and scripts."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._is_script = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False

    def handle_data(self, data: str) -> None:
        if self._is_script:
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def programs(self) -> list[str]:
        return [content for attributes, content in self.scripts if "type" not in attributes]

    @property
    def figures(self) -> list[dict[str, Any]]:
        """The figures as JSON, in which NaN and infinity have no name."""

        def refuse(name: str) -> float:
            raise AssertionError(f"{name} is no JSON")

        return [
            json.loads(content, parse_constant=refuse)
            for attributes, content in self.scripts
            if attributes.get("type") == "application/json"
        ]

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]


def traces(figures: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [trace for figure in figures for trace in figure["data"] if trace["type"] == kind]


@pytest.fixture(scope="module")
def whole(make_evidence: MakeEvidence, make_verdict: MakeVerdict) -> Page:
    """The page of a study that has everything."""
    return Page(page(make_evidence(verdict=make_verdict())))


def test_every_section_is_there_and_in_the_table_of_contents(whole: Page) -> None:
    assert whole.sections == ANCHORS
    links = [a["href"] for tag, a in whole.tags if tag == "a"]
    assert links == [f"#{anchor}" for anchor in ANCHORS]


def test_with_all_there_is_no_section_is_empty(whole: Page) -> None:
    assert [a for tag, a in whole.tags if tag == "p" and a.get("class") == "missing"] == []


def test_the_verdict_stands_in_two_sentences_at_the_top(whole: Page) -> None:
    assert (
        "The model passed: it errs less than every baseline. On 400 test windows its MAE "
        "(standardised) is 0.2800, that of the best baseline, ridge, is 0.3100; the test part has "
        "been opened once, and the search itself had chosen by 0.2600 on the validation part."
    ) in whole.text


def test_plotly_itself_knows_every_property_of_every_figure(whole: Page) -> None:
    assert len(whole.figures) > 20
    for figure in whole.figures:
        for trace in figure["data"]:  # `ink` is put into a colour by the page's own script
            if trace.get("line", {}).get("color") == "ink":
                trace["line"]["color"] = "#000000"
        plotly.graph_objects.Figure(figure)


def test_every_figure_says_how_it_is_read(whole: Page) -> None:
    figures = sum(tag == "figure" for tag, _ in whole.tags)
    captions = sum(tag == "figcaption" for tag, _ in whole.tags)
    assert figures == captions > 8


def test_each_place_for_a_figure_has_its_data(whole: Page) -> None:
    places = [a["data-figure"] for tag, a in whole.tags if a.get("class") == "plot"]
    sources = [a["id"] for a, _ in whole.scripts if a.get("type") == "application/json"]
    assert places == sources
    assert len(set(places)) == len(places)


def test_the_policy_admits_the_two_scripts_of_the_page_and_no_address(whole: Page) -> None:
    [policy] = [a["content"] for tag, a in whole.tags if a.get("http-equiv")]
    assert policy is not None
    hashes = [
        base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
        for program in whole.programs
    ]
    assert len(hashes) == 2
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    assert f"default-src 'none'; script-src {allowed}; " in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_nothing_in_the_page_names_an_outside_address_to_be_loaded(whole: Page) -> None:
    loading = {"src", "srcset", "poster", "action", "formaction", "xlink:href"}
    assert [a for _, attributes in whole.tags for a in attributes if a in loading] == []
    links = [a["href"] for _, a in whole.tags if "href" in a]
    assert [link for link in links if not str(link).startswith(("#", "data:,"))] == []


def test_hostile_names_are_shown_and_never_obeyed(
    hostile_evidence: Evidence, hostile_text: str, whole: Page
) -> None:
    shown = Page(page(hostile_evidence))
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in whole.tags}
    assert not [a for _, attributes in shown.tags for a in attributes if a.startswith("on")]
    assert shown.programs == whole.programs
    assert "</script><img src=x onerror=" in shown.text
    assert "\u202e" not in page(hostile_evidence)  # turns what follows it round
    labels = [t["name"] for t in traces(shown.figures, "scatter") if "name" in t]
    labels += [note["text"] for f in shown.figures for note in f["layout"].get("annotations", [])]
    assert not [label for label in labels if "<" in label]
    assert any(html.escape("</script>") in label for label in labels)
    assert hostile_text not in shown.text


def test_a_name_in_a_template_is_not_filled_in(hostile_evidence: Evidence) -> None:
    templates = [
        trace.get("hovertemplate", "")
        for figure in Page(page(hostile_evidence)).figures
        for trace in figure["data"]
    ]
    assert templates
    assert not [template for template in templates if "img src" in template]


def test_before_the_test_is_opened_the_page_says_that_it_is_sealed(
    make_evidence: MakeEvidence,
) -> None:
    shown = Page(page(make_evidence(place=" --home 'my runs'")))
    assert shown.sections == ANCHORS
    assert "The test is still sealed" in shown.text
    assert "python -m search finalize small --home 'my runs'" in shown.text
    missing = [a for tag, a in shown.tags if tag == "p" and a.get("class") == "missing"]
    assert len(missing) == 3  # forecasts, steps, residuals


@pytest.mark.parametrize("num_trials", [0, 1, 2])
def test_a_study_of_few_trials_has_a_whole_page(
    make_evidence: MakeEvidence, num_trials: int
) -> None:
    shown = Page(page(make_evidence(num_trials, importance={}, baselines=[])))
    assert shown.sections == ANCHORS
    for figure in shown.figures:
        plotly.graph_objects.Figure(figure)


def test_where_all_trials_failed_the_page_says_why(make_evidence: MakeEvidence) -> None:
    failed = [
        dataclasses.replace(
            trial, state=TrialState.FAILED, value=None, evaluations=(), final=None, reason="OSError"
        )
        for trial in make_evidence(4).trials
    ]
    shown = Page(page(make_evidence(trials=failed, importance={})))
    assert shown.sections == ANCHORS
    assert "None of the 4 trials is complete." in shown.text
    assert shown.text.count("OSError") == 4


def test_a_study_that_was_ended_before_it_began_has_a_page(make_evidence: MakeEvidence) -> None:
    shown = Page(
        page(
            make_evidence(
                0,
                facts={},
                config={},
                baselines=[],
                importance={},
                data_notes=None,
                created_at=None,
            )
        )
    )
    assert shown.sections == ANCHORS
    assert shown.figures == []


def test_an_undefined_error_is_no_number_anywhere(
    make_evidence: MakeEvidence, make_evaluation: Callable[..., Any]
) -> None:
    evidence = make_evidence(12, metric="mase", baselines=[])
    errors = dataclasses.replace(make_evaluation(0.3).errors, mase=float("nan"))
    spoilt = [
        dataclasses.replace(
            trial,
            evaluations=tuple(
                dataclasses.replace(r, evaluation=dataclasses.replace(r.evaluation, errors=errors))
                for r in trial.evaluations
            ),
            value=trial.value if trial.state is TrialState.COMPLETE else float("nan"),
        )
        for trial in evidence.trials
    ]
    shown = Page(page(dataclasses.replace(evidence, trials=spoilt)))
    assert shown.sections == ANCHORS
    assert "nan" not in shown.text.lower().split()


def test_two_thousand_long_trials_stay_within_fifteen_megabytes(
    make_evidence: MakeEvidence, make_verdict: MakeVerdict
) -> None:
    evidence = make_evidence(100, verdict=make_verdict())
    long = [longer(trial) for trial in evidence.trials]
    many = [dataclasses.replace(long[place % 100], number=place) for place in range(2000)]
    text = page(dataclasses.replace(evidence, trials=many))
    assert len(text.encode()) < 15_000_000
    [curves] = [f for f in Page(text).figures if "training steps" in json.dumps(f["layout"])]
    points = sum(len(trace["x"]) for trace in curves["data"])
    assert 1000 < points < 50_000


def longer(trial: TrialRecord) -> TrialRecord:
    """The same trial evaluated ten times as often."""
    evaluations = tuple(
        dataclasses.replace(
            recorded,
            evaluation=dataclasses.replace(
                recorded.evaluation, step=10 * recorded.evaluation.step + place
            ),
        )
        for recorded in trial.evaluations
        for place in range(10)
    )
    return dataclasses.replace(trial, evaluations=evaluations)


def test_a_verdict_with_little_in_it_has_a_whole_page(
    make_evidence: MakeEvidence, make_verdict: MakeVerdict
) -> None:
    full = make_verdict()
    inspection = full.inspection.model_copy(
        update={
            "examples": (),
            "by_hour": {},
            "by_weekday": {},
            "residual_autocorrelation": (),
            "autocorrelation_bound": None,
        }
    )
    bare = make_verdict(
        inspection=inspection, seeds=(), comparisons=(), baselines=(), warnings=(), is_passed=False
    )
    shown = Page(page(make_evidence(verdict=bare)))
    assert shown.sections == ANCHORS
    assert "The model did not pass" in shown.text


# From a real record


def test_the_page_of_a_recorded_study_lies_beside_its_weights(
    played_study: Study, tmp_path: Path
) -> None:
    config = SearchConfig(home=str(tmp_path))
    out = write_report(config, "small")
    assert out == tmp_path / "studies" / "small" / "report.html"
    first = out.read_text(encoding="utf-8")
    assert re.search(r"Study small</h1>", first)
    write_report(config, "small")
    assert sorted(path.name for path in out.parent.iterdir()) == ["report.html"]


@pytest.mark.parametrize("is_text", [False, True], ids=["as a mapping", "as JSON text"])
def test_the_recorded_verdict_and_notes_are_read_back(
    played_study: Study, tmp_path: Path, make_verdict: MakeVerdict, is_text: bool
) -> None:
    verdict = make_verdict()
    noted = verdict.model_dump_json()
    played_study.note("verdict", noted if is_text else json.loads(noted))
    played_study.note("data_notes", ["load: 2 values missing, interpolated"])
    evidence = read_evidence(SearchConfig(home=str(tmp_path)), "small")
    assert evidence.verdict == verdict
    assert evidence.data_notes == ["load: 2 values missing, interpolated"]
    assert [trial.number for trial in evidence.trials] == [0, 1, 2, 3, 4, 6]
    assert evidence.num_rejected == 1


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownStudyError, match="no study is named small"):
        write_report(SearchConfig(home=str(tmp_path)), "small")


def test_the_command_writes_page_and_pictures_or_the_page_where_it_is_told(
    played_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_commands.report("small", None, str(tmp_path), None)
    folder = tmp_path / "studies" / "small"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["history.png", "layers.png", "report.html"]
    told = tmp_path / "elsewhere" / "page.html"
    study_commands.report("latest", told, str(tmp_path), None)
    assert [path.name for path in told.parent.iterdir()] == ["page.html"]
    assert f"wrote {told}" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_refused_in_one_line(
    played_study: Study, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"needs a file that can be written.*--out"):
        study_commands.report("small", tmp_path, str(tmp_path), None)
