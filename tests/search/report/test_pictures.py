"""The main pictures as PNG files."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from pipelines.verdict import Verdict
from search.config import SearchConfig
from search.report.evidence import Evidence
from search.report.pictures import draw_pictures, write_pictures
from search.study import Study

MakeEvidence = Callable[..., Evidence]

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_tested_study_has_four_pictures(
    make_evidence: MakeEvidence, make_verdict: Callable[..., Verdict], tmp_path: Path
) -> None:
    written = draw_pictures(make_evidence(verdict=make_verdict()), tmp_path)
    names = ["verdict.png", "history.png", "forecasts.png", "layers.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for path in written:
        assert path.read_bytes().startswith(PNG)
        height, width, _ = plt.imread(path).shape
        assert 200 < height < 4000
        assert 500 < width < 2000


def test_a_picture_that_no_longer_applies_is_taken_away(
    make_evidence: MakeEvidence, make_verdict: Callable[..., Verdict], tmp_path: Path
) -> None:
    draw_pictures(make_evidence(4, verdict=make_verdict()), tmp_path)
    draw_pictures(make_evidence(4), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.png", "layers.png"]


def test_without_a_trial_there_is_no_picture(make_evidence: MakeEvidence, tmp_path: Path) -> None:
    assert draw_pictures(make_evidence(0, baselines=[]), tmp_path) == []


@pytest.mark.parametrize("horizon", [1, 12])
def test_hostile_names_and_short_horizons_are_drawn(
    hostile_evidence: Evidence, tmp_path: Path, horizon: int
) -> None:
    verdict = hostile_evidence.verdict
    assert verdict is not None
    examples = tuple(
        shown.model_copy(
            update={
                "truth": shown.truth[:horizon],
                "forecast": shown.forecast[:horizon],
                "best_baseline": shown.best_baseline[:horizon],
            }
        )
        for shown in verdict.inspection.examples
    )
    inspection = verdict.inspection.model_copy(update={"examples": examples})
    changed = verdict.model_copy(
        update={"inspection": inspection, "targets": ("気温 $\\bad", "load")}
    )
    written = draw_pictures(dataclasses.replace(hostile_evidence, verdict=changed), tmp_path)
    assert len(written) == 4


def test_the_callers_figures_and_backend_stay_as_they_are(
    make_evidence: MakeEvidence, tmp_path: Path
) -> None:
    backend, figures = mpl.get_backend(), plt.get_fignums()
    draw_pictures(make_evidence(4), tmp_path)
    assert mpl.get_backend() == backend
    assert plt.get_fignums() == figures


def test_the_pictures_of_a_recorded_study_lie_beside_its_weights(
    played_study: Study, tmp_path: Path
) -> None:
    written = write_pictures(SearchConfig(home=str(tmp_path)), "small")
    assert {path.parent for path in written} == {tmp_path / "studies" / "small"}
