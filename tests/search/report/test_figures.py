"""What the figures are drawn from: each calculation beside a slow, obvious one."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.record import TrialRecord, TrialState
from search.report.costs import pareto_front
from search.report.course import MOST_CURVES, curves, history_of, named_below
from search.report.evidence import Evidence
from search.report.layers import layer_maps
from search.report.parallel import parallel
from search.report.parts import Figure, framed, log_axis, number, seconds_in_words
from search.report.time_spent import intervals_of, time_spent

MakeEvidence = Callable[..., Evidence]


def with_widths(trial: TrialRecord, widths: tuple[int, ...], **model: Any) -> TrialRecord:
    assert trial.config is not None
    changed = trial.config.model.model_copy(update={"widths": widths, **model})
    return dataclasses.replace(trial, config=trial.config.model_copy(update={"model": changed}))


# The best so far


def test_the_best_so_far_falls_only_with_complete_trials(make_evidence: MakeEvidence) -> None:
    found = history_of(make_evidence(40))
    times = [trial.ended_at for trial in found.trials]
    assert times == sorted(times, key=lambda time: time or 0.0)
    for place, best in enumerate(found.best_so_far):
        complete = [
            value
            for trial, value in zip(found.trials[: place + 1], found.values, strict=False)
            if trial.state is TrialState.COMPLETE
        ]
        assert best == min(complete, default=None)


# Curves


def test_of_very_many_trials_the_best_are_drawn_and_the_others_evenly(
    make_evidence: MakeEvidence,
) -> None:
    evidence = make_evidence(MOST_CURVES + 500)
    [figure] = curves(evidence).parts
    assert isinstance(figure, Figure)
    drawn = {name for trace in figure.data for name in trace["text"] if name}
    assert len(drawn) <= MOST_CURVES
    assert {trial.name for trial in evidence.complete[:100]} <= drawn
    assert f"{len(drawn)} of {MOST_CURVES + 500} are drawn" in figure.caption


def test_a_thinned_curve_keeps_its_last_evaluation(make_evidence: MakeEvidence) -> None:
    evidence = make_evidence(900)
    [figure] = curves(evidence).parts
    assert isinstance(figure, Figure)
    ends = {
        (trace["text"][place - 1], trace["x"][place - 1])
        for trace in figure.data
        for place, step in enumerate(trace["x"])
        if step is None
    }
    assert ends == {(t.name, t.evaluations[-1].evaluation.step) for t in evidence.trials}


def test_of_two_close_lines_the_lower_has_its_name_below() -> None:
    levels = [(0.30, "a"), (0.31, "b"), (0.50, "c")]
    assert named_below(levels, [0.0, 1.0]) == [True, False, False]
    assert named_below([], [0.0, 1.0]) == []


# The frame


def test_one_diverged_trial_does_not_press_the_others_onto_a_line() -> None:
    values = [0.1 + 0.01 * place for place in range(20)]
    (low, high), num_beyond = framed([*values, 1e6])
    assert low < 0.1 < 0.29 < high < 1
    assert num_beyond == 1


@pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [0.0, 0.0, 0.0, 0.0, 0.0], [-2.0, -1.0]])
def test_a_frame_is_never_empty(values: list[float]) -> None:
    (low, high), num_beyond = framed(values)
    assert low < min(values) <= max(values) < high
    assert num_beyond == 0


def test_a_baseline_far_above_is_left_outside_the_frame() -> None:
    values = [0.1, 0.11, 0.12, 0.13, 0.14]
    assert framed(values, [0.15])[0][1] > 0.15
    assert framed(values, [5.0])[0][1] < 1


@pytest.mark.parametrize("ends", [(1e-6, 1e-1), (16, 256), (0.5, 0.5), (3, 4), (1, 1e12)])
def test_ticks_of_a_logarithmic_axis_are_few_and_within_reach(ends: tuple[float, float]) -> None:
    ticks = log_axis(ends).get("tickvals", [])
    assert len(ticks) <= 6
    assert all(0.85 * ends[0] <= tick <= 1.15 * ends[1] for tick in ticks)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.07512, "0.0751"),
        (74.9613, "74.961"),
        (1063.04, "1,063.0"),
        (0.00001, "1e-05"),
        (0.0, "0.0000"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_matter(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3.24, "3.2 s"), (150, "2 min"), (7500, "2 h 05 min")]
)
def test_durations_are_shown_in_words(seconds: float, shown: str) -> None:
    assert seconds_in_words(seconds) == shown


# Depth × width


def test_every_trial_lies_in_the_cell_of_each_of_its_layers(make_evidence: MakeEvidence) -> None:
    evidence = make_evidence(80)
    ranked = evidence.complete + evidence.stopped
    counted = 0
    for found in layer_maps(evidence):
        for row, name in enumerate(found.rows):
            for column, widths in enumerate(found.columns):
                low, _, high = widths.partition("–")
                inside = [
                    trial
                    for trial in ranked
                    if is_in_cell(trial, found, name, int(low), int(high or low))
                ]
                assert found.counts[row][column] == len(inside)
                best = min((trial.value or 0.0 for trial in inside), default=None)
                assert found.values[row][column] == best
                counted += len(inside)
    num_layers = [1 if is_uniform(t) else len(widths_of(t)) for t in ranked]
    assert counted == sum(num_layers)


def is_in_cell(trial: TrialRecord, found: Any, row: str, low: int, high: int) -> bool:
    widths = widths_of(trial)
    assert trial.config is not None
    if is_uniform(trial) is not found.is_uniform:
        return False
    if trial.config.model.bidirectional is not found.is_bidirectional:
        return False
    if is_uniform(trial):
        return row.split()[0] == str(len(widths)) and low <= widths[0] <= high
    _, layer, _, depth = row.split()
    return int(depth) == len(widths) and low <= widths[int(layer) - 1] <= high


def widths_of(trial: TrialRecord) -> tuple[int, ...]:
    assert trial.config is not None
    return trial.config.model.widths


def is_uniform(trial: TrialRecord) -> bool:
    return len(set(widths_of(trial))) == 1


def test_few_widths_have_a_column_each(make_evidence: MakeEvidence) -> None:
    evidence = make_evidence(6)
    answers = [(128,), (64, 64), (64, 128)]
    trials = [
        with_widths(trial, answers[place % 3], bidirectional=False)
        for place, trial in enumerate(evidence.trials)
    ]
    uniform, per_layer = layer_maps(dataclasses.replace(evidence, trials=trials))
    assert uniform.columns == per_layer.columns == ["64", "128"]
    assert uniform.rows == ["1 layer", "2 layers"]
    assert per_layer.rows == ["layer 1 of 2", "layer 2 of 2"]
    assert [[bool(count) for count in row] for row in per_layer.counts] == [
        [True, False],
        [False, True],
    ]


# The Pareto front


def test_the_front_holds_just_the_trials_that_none_beats_in_both(
    make_evidence: MakeEvidence,
) -> None:
    trials = make_evidence(90).complete

    def beats(one: TrialRecord, other: TrialRecord) -> bool:
        assert one.value is not None
        assert other.value is not None
        no_worse = one.num_parameters <= other.num_parameters and one.value <= other.value
        return no_worse and (one.num_parameters, one.value) != (other.num_parameters, other.value)

    unbeaten = {t.number for t in trials if not any(beats(other, t) for other in trials)}
    front = pareto_front(trials, lambda trial: trial.num_parameters)
    assert {trial.number for trial in front} == unbeaten
    assert 1 < len(front) < len(trials)


# Parallel coordinates


def test_every_complete_trial_runs_through_all_axes_between_their_ends(
    make_evidence: MakeEvidence,
) -> None:
    evidence = make_evidence(60)
    [figure] = parallel(evidence).parts
    assert isinstance(figure, Figure)
    frame, *groups = figure.data
    num_axes = len(figure.layout["xaxis"]["ticktext"])
    assert frame["x"][-2] == num_axes - 1
    lines = sum(trace["x"].count(None) for trace in groups)
    assert lines == len(evidence.complete)
    for trace in groups:
        heights = [height for height in trace["y"] if height is not None]
        assert len(heights) == num_axes * trace["x"].count(None)
        assert 0 <= min(heights) <= max(heights) <= 1


# The time


def timed(trial: TrialRecord, number: int, started: float, ended: float) -> TrialRecord:
    evaluations = tuple(
        dataclasses.replace(recorded, time=ended) for recorded in trial.evaluations[:1]
    )
    return dataclasses.replace(
        trial,
        number=number,
        started_at=started,
        ended_at=ended,
        evaluations=evaluations,
        final=None,
    )


def test_the_time_of_all_slots_is_accounted_for(make_evidence: MakeEvidence) -> None:
    evidence = make_evidence(10)
    one, *_ = evidence.trials
    spans = [(100, 104), (101, 104), (104, 106), (110, 111)]
    trials = [timed(one, place, *span) for place, span in enumerate(spans)]
    spent = time_spent(dataclasses.replace(evidence, trials=trials, created_at=95.0))
    assert spent is not None
    assert (spent.num_slots, spent.span, spent.start_up) == (2, 11, 5)
    assert spent.training == pytest.approx(4 * 0.5)
    assert spent.evaluating == pytest.approx(4 * 0.1)
    assert spent.around == pytest.approx(10 - 2.4)
    assert spent.free == pytest.approx(2 * 7 - 10)
    assert spent.idle == pytest.approx(2 * 4)


def test_as_many_slots_are_counted_as_ever_ran_at_once(make_evidence: MakeEvidence) -> None:
    generator = np.random.default_rng(3)
    evidence = make_evidence(30)
    trials = []
    for trial in evidence.trials:
        started = float(generator.uniform(0, 50))
        trials.append(timed(trial, trial.number, started, started + float(generator.uniform(0, 9))))
    changed = dataclasses.replace(evidence, trials=trials, created_at=0.0)
    spans = [(started, ended) for started, ended, _ in intervals_of(changed)]
    at_once = max(sum(a <= moment < b for a, b in spans) for moment, _ in spans)
    spent = time_spent(changed)
    assert spent is not None
    assert spent.num_slots == at_once
    pieces = (spent.training, spent.evaluating, spent.around, spent.free, spent.idle)
    assert sum(pieces) >= spent.num_slots * spent.span - 1e-6
    assert all(piece >= 0 for piece in pieces)


def test_a_trial_that_runs_still_counts_until_it_was_last_heard_of(
    make_evidence: MakeEvidence,
) -> None:
    evidence = make_evidence(2)
    running = dataclasses.replace(evidence.trials[0], state=TrialState.RUNNING, ended_at=None)
    [(started, ended, _)] = intervals_of(dataclasses.replace(evidence, trials=[running]))
    assert started == running.started_at
    assert ended == running.evaluations[-1].time


def test_the_generated_studies_have_every_kind_of_trial(make_evidence: MakeEvidence) -> None:
    states = {trial.state for trial in make_evidence(60).trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}
    names = [trial.params.keys() for trial in make_evidence(60).trials]
    assert any(one != other for one, other in itertools.pairwise(names))  # conditional ones
