"""The weights on disk: whole files, of the best trials."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.scores import Evaluation
from search.kept_weights import KeptWeights
from search.study import Study

MakeEvaluation = Callable[..., Evaluation]
OpenStudy = Callable[..., Study]

WRITE_FOR_EVER = """
import sys
from itertools import cycle
from pathlib import Path
from search.kept_weights import KeptWeights

kept = KeptWeights(Path(sys.argv[1]))
for letter in cycle((b"a", b"b")):
    kept.write(17, letter * 4_000_000)
    print("written", flush=True)
"""


def test_a_trials_weights_are_replaced_by_its_newer_ones(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path / "study")
    kept.write(17, b"first")
    kept.write(17, b"second")
    assert kept.path(17).name == "017.safetensors"
    assert kept.path(17).read_bytes() == b"second"
    assert list((tmp_path / "study").iterdir()) == [kept.path(17)]


def test_a_reader_and_a_kill_at_any_moment_find_whole_weights(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path)
    for pause in (0.0, 0.003, 0.011):
        command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert is_whole(kept.path(17).read_bytes())
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        assert is_whole(kept.path(17).read_bytes())


def is_whole(weights: bytes) -> bool:
    return weights in (b"a" * 4_000_000, b"b" * 4_000_000)


def test_what_a_killed_writer_left_is_no_trials_weights(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path)
    kept.write(17, b"whole")
    kept.path(18).with_suffix(".part").write_bytes(b"wh")
    kept.keep_only([17, 18])
    assert not kept.path(18).exists()
    kept.write(18, b"whole")
    assert kept.path(18).read_bytes() == b"whole"


def test_only_the_named_trials_weights_are_kept(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path)
    for number in (3, 17, 1000):
        kept.write(number, b"weights")
    kept.keep_only({17, 1000, 5})
    assert [number for number in range(1001) if kept.path(number).exists()] == [17, 1000]


def test_before_the_first_weights_there_is_nothing_to_delete(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path / "study")
    kept.keep_only([])
    assert not (tmp_path / "study").exists()


def test_the_weights_of_the_best_trials_of_a_study_are_kept(
    tmp_path: Path, open_small_study: OpenStudy, make_evaluation: MakeEvaluation
) -> None:
    study, kept = open_small_study(sampler="random", pruner="none"), KeptWeights(tmp_path / "w")
    for mae in (0.5, 0.2, 0.4, 0.3):
        proposal = study.ask()
        assert proposal is not None
        kept.write(proposal.number, b"weights")
        study.report(proposal.number, make_evaluation(mae))
        study.complete(proposal.number)
        kept.keep_only(study.best_numbers(2))
    assert [number for number in range(4) if kept.path(number).exists()] == [1, 3]


@pytest.mark.parametrize("number", [0, 7, 123, 4567])
def test_numbers_are_read_back_from_the_names(number: int, tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path)
    kept.write(number, b"weights")
    kept.keep_only([number])
    assert kept.path(number).exists()
    kept.keep_only([number + 1])
    assert not kept.path(number).exists()
