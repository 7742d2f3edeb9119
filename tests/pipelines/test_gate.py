"""Contracts of the gate: when a model passes, and the words for it."""

import pytest

from pipelines.gate import judge
from pipelines.verdict import Comparison


def against(
    opponent: str, skill: float | None, lower: float | None, num_blocks: int = 10, note: str = ""
) -> Comparison:
    return Comparison(
        opponent=opponent,
        skill=skill,
        lower=lower,
        upper=None if lower is None or skill is None else 2 * skill - lower,
        num_blocks=num_blocks,
        block_length=168,
        diebold_mariano=None,
        p_value=None,
        note=note,
    )


EASY = against("persistence", 0.8, 0.7)


def test_a_model_that_beats_every_baseline_surely_passes() -> None:
    assert judge([EASY, against("ridge", 0.123, 0.081)]) == (
        True,
        "it beats every baseline: ridge, the best of them, by 12.3 %; surely by 8.1 % against "
        "ridge",
    )


@pytest.mark.parametrize(
    ("hardest", "reason"),
    [
        (
            against("ridge", -0.031, -0.05),
            "no LSTM beat ridge here: the model's error is 3.1 % higher",
        ),
        (against("ridge", 0.0, 0.0), "no LSTM beat ridge here: the model's error is 0.0 % higher"),
        (
            against("ridge", 0.02, -0.013),
            "not surely better than ridge: better by 2.0 %, but the interval begins at -1.3 %",
        ),
        (
            against("ridge", 0.02, 0.0),
            "not surely better than ridge: better by 2.0 %, but the interval begins at 0.0 %",
        ),
        (against("an oracle", None, None), "no LSTM beat an oracle here: its error is 0"),
        (
            against("ridge", 0.02, None, note="no interval: some reason"),
            "not surely better than ridge: no interval: some reason",
        ),
    ],
    ids=["worse", "equal", "not surely", "just not", "no error", "no interval"],
)
def test_one_baseline_that_is_not_beaten_surely_is_enough_to_fail(
    hardest: Comparison, reason: str
) -> None:
    assert judge([EASY, hardest]) == (False, reason)
    assert judge([hardest, EASY]) == (False, reason)


def test_the_hardest_baseline_is_named() -> None:
    passed, reason = judge([against("ridge", -0.1, -0.2), against("linear twin", -0.2, -0.3)])
    assert not passed
    assert reason == "no LSTM beat linear twin here: the model's error is 20.0 % higher"


def test_the_baseline_that_is_least_surely_beaten_is_named_though_another_errs_less() -> None:
    noisy, steady = against("persistence", 0.3, -0.1), against("ridge", 0.1, 0.05)
    assert judge([steady, noisy])[1].startswith("not surely better than persistence: better by 30")
    assert judge([steady, against("persistence", 0.3, 0.01)]) == (
        True,
        "it beats every baseline: ridge, the best of them, by 10.0 %; surely by 1.0 % against "
        "persistence",
    )


def test_a_short_test_part_does_not_pass_and_says_why() -> None:
    short = [against("ridge", 0.5, None, num_blocks=5), against("mean", 0.9, None, num_blocks=5)]
    assert judge(short) == (
        False,
        "the test part is too short for an interval: 5 blocks of 168 windows, 8 are needed; the "
        "model beats every baseline, ridge, the best of them, by 50.0 %, but that may be chance",
    )
    worse = [*short, against("linear twin", -0.1, None, num_blocks=5)]
    assert judge(worse)[1].startswith("no LSTM beat linear twin here")


@pytest.mark.parametrize(
    ("skill", "is_passed"),
    [(0.1, True), (0.0, True), (-0.001, False), (None, False)],
)
def test_a_model_must_be_no_worse_than_todays_champion(
    skill: float | None, is_passed: bool
) -> None:
    champion = against("champion (version 3)", skill, None if skill is None else skill - 0.1)
    passed, reason = judge([EASY], champion)
    assert passed == is_passed
    if not passed:
        assert reason == (
            "it beats every baseline, persistence, the best of them, by 80.0 %, but not today's "
            "champion"
        )


def test_a_champion_does_not_save_a_model_that_a_baseline_beats() -> None:
    assert not judge([against("ridge", -0.1, -0.2)], against("champion", 0.5, 0.4))[0]
