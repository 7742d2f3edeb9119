"""What came out: the verdict in two sentences, the leaderboard, the finalists."""

from collections.abc import Sequence
from statistics import fmean, stdev

from pipelines.verdict import Comparison, TestScore, Verdict
from search.projection import last_time
from search.record import TrialRecord, TrialState, best_evaluation, metric_of_errors
from search.report.evidence import Evidence
from search.report.parts import (
    Part,
    Section,
    Table,
    Text,
    missing,
    number,
    percent,
    plural,
    seconds_in_words,
)

NUM_LEADERS = 15
MOST_TARGETS = 50


def verdict(evidence: Evidence) -> Section:
    """Whether the model may be used, in two sentences, and the figures behind them."""
    found = evidence.verdict
    if found is None:
        why = (
            "The test is still sealed: nothing here says yet how the best model does on rows that "
            "it was not chosen by. To open it, once:"
        )
        command = f"python -m search finalize {evidence.name}{evidence.place}"
        return Section(
            "verdict", "Verdict", [Text(why, "lead", command), *_validation_standing(evidence)]
        )
    parts: list[Part] = [Text(sentence, "lead") for sentence in verdict_sentences(evidence, found)]
    parts += [Text(warning, "warning") for warning in found.warnings]
    parts += [Text(found.champion_note)] if found.champion_note else []
    parts += [_scores_table(evidence, found), _comparisons_table(found)]
    if len(found.targets) > 1:
        parts.append(_targets_table(evidence, found))
    return Section("verdict", "Verdict", parts)


def verdict_sentences(evidence: Evidence, found: Verdict) -> tuple[str, str]:
    """The verdict: whether it passed and why, and the figures it rests on."""
    outcome = "The model passed" if found.is_passed else "The model did not pass"
    first = f"{outcome}: {found.reason.rstrip('.')}."
    best = best_test_baseline(evidence, found)
    against = ""
    if best is not None:
        against = f", that of the best baseline, {best.name}, is "
        against += number(evidence.metric_of_row(best.errors))
    opened = "once" if found.num_openings == 1 else f"{found.num_openings} times"
    second = (
        f"On {plural(found.num_windows, 'test window')} its {evidence.metric_name} is "
        f"{number(evidence.metric_of_row(found.model.errors))}{against}; the test part has been "
        f"opened {opened}, and the search itself had chosen by {number(found.validation_value)} on "
        "the validation part."
    )
    return first, second


def best_test_baseline(evidence: Evidence, found: Verdict) -> TestScore | None:
    """The baseline with the lowest test error."""
    scored = [
        (value, place)
        for place, score in enumerate(found.baselines)
        if (value := evidence.metric_of_row(score.errors)) is not None
    ]
    return found.baselines[min(scored)[1]] if scored else None


def _validation_standing(evidence: Evidence) -> list[Part]:
    """How the best trial stands where it was chosen, which is no verdict."""
    best, baselines = evidence.complete[:1], evidence.baseline_values()
    if not best or not baselines or best[0].value is None:
        return []
    name = min(baselines, key=lambda key: baselines[key])
    return [
        Text(
            f"On the validation part, by which it was chosen and which therefore flatters it, "
            f"trial {best[0].name} has the {evidence.metric_name} {number(best[0].value)}; the "
            f"best baseline, {name}, has {number(baselines[name])}."
        )
    ]


def _scores_table(evidence: Evidence, found: Verdict) -> Table:
    scores = [found.model, *found.baselines]
    rows = [_score_row(score.name, score) for score in scores]
    values = [evidence.metric_of_row(seed.errors) for seed in found.seeds]
    defined = [value for value in values if value is not None]
    if defined:
        spread = f" ± {number(stdev(defined))}" if len(defined) > 1 else ""
        shown = f"{evidence.metric_name}: {number(fmean(defined))}{spread}"
        note = f" A single seed has, over {plural(len(defined), 'seed')}, {shown}."
    else:
        note = ""
    caption = (
        "Errors on the sealed test part, on the same windows for every forecast; the lower the "
        f"better, and the first row is the model.{note}"
    )
    header = (
        "forecast",
        "MAE (std.)",
        "MSE (std.)",
        "RMSE (std.)",
        "MASE",
        "MAE (units)",
        "chosen",
    )
    return Table(caption, header, rows, frozenset({0}))


def _score_row(name: str, score: TestScore) -> list[str]:
    errors = score.errors
    shown = (errors.mae_scaled, errors.mse_scaled, errors.rmse_scaled, errors.mase, errors.mae)
    return [name, *map(number, shown), score.note]


def _comparisons_table(found: Verdict) -> Table:
    compared = [*found.comparisons, *([found.champion] if found.champion else [])]
    caption = (
        "Skill is the share by which the model errs less than the other forecast; only where the "
        "whole interval lies above zero is it better beyond chance. A p-value below 0.05 says that "
        "the two errors differ."
    )
    header = ("against", "skill", "lower bound", "upper bound", "Diebold–Mariano p", "note")
    return Table(caption, header, [_comparison_row(comparison) for comparison in compared])


def _comparison_row(comparison: Comparison) -> list[str]:
    note = comparison.note
    if comparison.lower is None:
        blocks = f"{plural(comparison.num_blocks, 'block')} of {comparison.block_length} windows"
        note = f"too short for an interval: {blocks}. {note}".strip()
    bounds = (comparison.skill, comparison.lower, comparison.upper)
    return [comparison.opponent, *map(percent, bounds), _p_value(comparison.p_value), note]


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _targets_table(evidence: Evidence, found: Verdict) -> Table:
    best = best_test_baseline(evidence, found)
    others = [best] if best is not None else []
    rows = []
    for place, target in enumerate(found.targets[:MOST_TARGETS]):
        scores = [found.model, *others]
        rows.append([target, *(number(_of_target(evidence, s, place)) for s in scores)])
    left_out = len(found.targets) - MOST_TARGETS
    more = f" {left_out} more are left out." if left_out > 0 else ""
    caption = f"The test error, {evidence.metric_name}, of each target.{more}"
    return Table(caption, ("target", "model", *(score.name for score in others)), rows)


def _of_target(evidence: Evidence, score: TestScore, place: int) -> float | None:
    return evidence.metric_of_row(score.by_target[place]) if place < len(score.by_target) else None


def leaders(evidence: Evidence) -> Section:
    """The best trials with the baselines among them, and the finalists."""
    title, anchor = "Leaderboard", "leaderboard"
    if not evidence.complete:
        parts: list[Part] = [missing(evidence.why_no_complete_trial), *_failures(evidence)]
        return Section(anchor, title, parts)
    return Section(anchor, title, [_leaders_table(evidence), *_finalists(evidence)])


def _leaders_table(evidence: Evidence) -> Table:
    best, baselines = evidence.complete[:NUM_LEADERS], evidence.baselines
    placed: list[tuple[float, bool, list[str]]] = []
    for rank, trial in enumerate(best, start=1):
        assert trial.value is not None
        placed.append((trial.value, False, [str(rank), *_trial_row(evidence, trial)]))
    for baseline in baselines:
        value = metric_of_errors(baseline.errors, evidence.metric)
        row = ["–", baseline.name, number(value), number(baseline.errors.mae), "", "", ""]
        placed.append((value, True, [*row, baseline.note]))
    placed.sort(key=lambda place: (place[0] != place[0], place[0]))  # what is undefined last
    marked = frozenset(row for row, (_, is_baseline, _) in enumerate(placed) if is_baseline)
    caption = (
        f"The best {plural(len(best), 'complete trial')} of {len(evidence.complete)} on the "
        "validation part, and, marked, the simple forecasts that an LSTM has to beat."
    )
    header = ("rank", "trial", evidence.metric_name, "MAE (units)", "parameters", "best step")
    return Table(caption, (*header, "took", "model"), [row for *_, row in placed], marked)


def _trial_row(evidence: Evidence, trial: TrialRecord) -> list[str]:
    assert trial.config is not None
    best, ended = best_evaluation(trial, evidence.metric), last_time(trial)
    took = "–"
    if ended is not None and trial.started_at is not None:
        took = seconds_in_words(ended - trial.started_at)
    return [
        trial.name,
        number(trial.value),
        number(best.errors.mae if best else None),
        f"{trial.num_parameters:,}",
        str(best.step) if best else "–",
        took,
        in_words(trial),
    ]


def in_words(trial: TrialRecord) -> str:
    """A trial's model and training in a line."""
    assert trial.config is not None
    model, training = trial.config.model, trial.config.training
    parts = [trial.config.describe(), f"normalised: {model.normalisation}", f"head: {model.head}"]
    parts += [f"linear skip: {model.linear_skip}"]
    parts += ["calendar"] if training.calendar else []
    return ", ".join([*parts, f"patch {model.patch_length}", f"rate {training.learning_rate:.1e}"])


def _failures(evidence: Evidence) -> list[Part]:
    failed = [trial for trial in evidence.trials if trial.state is TrialState.FAILED]
    rows = [[trial.name, trial.reason] for trial in failed[:NUM_LEADERS]]
    return [Table("Why trials failed.", ("trial", "reason"), rows)] if rows else []


def _finalists(evidence: Evidence) -> list[Part]:
    if not evidence.finalists:
        return []
    by_config: dict[str, list[TrialRecord]] = {}
    for run in evidence.finalists:
        assert run.config is not None
        by_config.setdefault(run.config.model_dump_json(), []).append(run)
    rows = sorted(map(_finalist_row, by_config.values()), key=lambda row: row[0])
    caption = (
        "The finalists, the best configurations trained again with several seeds on several cuts "
        f"of time, ranked by the mean {evidence.metric_name}: one validation part alone ranks "
        "wrongly."
    )
    header = ("rank", "mean", "± over runs", "runs", "seeds", "cuts", "model")
    ranked = [[str(rank), *row] for rank, (_, row) in enumerate(rows, start=1)]
    return [Table(caption, header, ranked, frozenset({0}))]


def _finalist_row(runs: Sequence[TrialRecord]) -> tuple[float, list[str]]:
    values = [run.value for run in runs if run.state is TrialState.COMPLETE and run.value]
    has_diverged = any(run.state is TrialState.PRUNED for run in runs)
    mean = fmean(values) if values and not has_diverged else float("inf")
    spread = number(stdev(values)) if len(values) > 1 else "–"
    seeds, folds = len({run.seed for run in runs}), len({run.fold for run in runs})
    counts = (f"{len(values)} of {len(runs)}", str(seeds), str(folds))
    return mean, [number(mean), spread, *counts, in_words(runs[0])]
