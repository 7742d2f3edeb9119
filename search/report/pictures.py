"""The page's main pictures as PNG, for where no page can be opened.

Drawn by matplotlib on a canvas of their own: the caller's figures and backend stay as they are.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from pipelines.verdict import ForecastExample
from search.config import SearchConfig
from search.places import weights_folder
from search.record import TrialState
from search.report.course import STATE_COLOURS, history_of, named_below
from search.report.errors import ordered_examples
from search.report.evidence import Evidence, read_evidence
from search.report.layers import COLOURS, LayerMap, colour_range, layer_maps
from search.report.outcome import verdict_sentences
from search.report.parts import BLUE, GREEN, GREY, ORANGE, framed, number, shortened

DOTS_PER_INCH = 110


def write_pictures(config: SearchConfig, study: str, folder: Path | None = None) -> list[Path]:
    """Write the pictures for which the study has data, and return their paths.

    Args:
        config: where the record lies.
        study: its name.
        folder: where to; None: beside the study's weights.

    Raises:
        UnknownStudyError: where there is no such study, or its record cannot be read.
        OSError: where a file cannot be written.
    """
    return draw_pictures(read_evidence(config, study), folder or weights_folder(config, study))


def draw_pictures(evidence: Evidence, folder: Path) -> list[Path]:
    """Write the pictures of what was read already."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in PICTURES.items():
        figure = draw(evidence)
        path = folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)  # of an older state of the study
        else:
            _save(figure, path)
            written.append(path)
    return written


def _save(figure: Figure, path: Path) -> None:
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)  # type: ignore[attr-defined]  # a column may be called $\x$
    FigureCanvasAgg(figure)
    unfinished = path.with_name(f".{path.name}.part")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(unfinished, format="png", dpi=DOTS_PER_INCH)
    unfinished.replace(path)


def _verdict(evidence: Evidence) -> Figure | None:
    found = evidence.verdict
    if found is None:
        return None
    scores = [found.model, *found.baselines]
    values = [(evidence.metric_of_row(score.errors), score.name) for score in scores]
    shown = [(value, name) for value, name in values if value is not None]
    figure, (axes,) = _figure(9, 2.2 + 0.4 * len(shown), 1)
    bars = axes.barh(
        range(len(shown)),
        [value for value, _ in shown],
        color=[BLUE, *[GREY] * (len(shown) - 1)],
    )
    axes.bar_label(bars, [number(value) for value, _ in shown], padding=4)
    axes.set_yticks(range(len(shown)), [shortened(name) for _, name in shown])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(f"{evidence.metric_name} on the sealed test part")
    first, _ = verdict_sentences(evidence, found)
    figure.suptitle(_in_lines(first, 95), x=0.02, ha="left", fontsize=12)
    return figure


def _history(evidence: Evidence) -> Figure | None:
    found = history_of(evidence)
    if not found.trials:
        return None
    figure, (axes,) = _figure(9, 4.5, 1)
    for state in (TrialState.PRUNED, TrialState.FAILED, TrialState.COMPLETE):
        places = [place for place, trial in enumerate(found.trials) if trial.state is state]
        if places:
            axes.scatter(
                [place + 1 for place in places],
                [found.values[place] for place in places],
                s=18,
                color=STATE_COLOURS[state],
                label="stopped early" if state is TrialState.PRUNED else str(state),
                alpha=0.9 if state is TrialState.COMPLETE else 0.5,
            )
    best = [(place + 1, v) for place, v in enumerate(found.best_so_far) if v is not None]
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=GREEN, lw=2, label="best so far")
    baselines = evidence.baseline_values()
    reach, _ = framed(found.values, tuple(baselines.values()))
    axes.set_ylim(reach[0], reach[1])
    _draw_baselines(axes, baselines, reach)
    axes.set_xlabel("trials ended")
    axes.set_ylabel(evidence.metric_name)
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    figure.suptitle(f"Study {evidence.name}: the best so far", x=0.02, ha="left", fontsize=12)
    return figure


def _draw_baselines(axes: Axes, baselines: Mapping[str, float], reach: Sequence[float]) -> None:
    inside = sorted((v, name) for name, v in baselines.items() if reach[0] <= v <= reach[1])
    for (value, name), is_below in zip(inside, named_below(inside, reach), strict=True):
        axes.axhline(value, color=ORANGE, lw=1, ls="--")
        axes.annotate(
            shortened(name),
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="top" if is_below else "bottom",
            color=ORANGE,
            fontsize=8,
        )


def _forecasts(evidence: Evidence) -> Figure | None:
    examples = ordered_examples(evidence.verdict) if evidence.verdict else []
    if evidence.verdict is None or not examples:
        return None
    figure, all_axes = _figure(9, 1 + 2.5 * len(examples), len(examples))
    for axes, example in zip(all_axes, examples, strict=True):
        _draw_example(axes, example)
    all_axes[0].legend(frameon=False, fontsize=9, ncols=4, loc="upper left")
    all_axes[-1].set_xlabel("steps from the forecast's origin")
    target = shortened(evidence.verdict.targets[0])
    figure.suptitle(f"{target}: forecasts of the test part", x=0.02, ha="left", fontsize=12)
    return figure


def _draw_example(axes: Axes, example: ForecastExample) -> None:
    num_seen, ahead = len(example.history), range(1, len(example.truth) + 1)
    seen = range(1 - num_seen, 1)
    style: dict[str, Any] = {"lw": 1.6, "marker": "o" if len(example.truth) == 1 else None}
    axes.plot(seen, _floats(example.history), color=GREY, lw=1.2, label="seen")
    axes.plot(ahead, _floats(example.truth), color="black", label="truth", **style)
    axes.plot(ahead, example.forecast, color=BLUE, label="forecast", **style)
    axes.plot(ahead, example.best_baseline, color=ORANGE, ls="--", label="best baseline", **style)
    title = f"{example.kind}: {shortened(example.origin)}, error {number(example.error, 3)}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(y=0.2)


def _floats(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _layers(evidence: Evidence) -> Figure | None:
    maps = layer_maps(evidence)
    if not maps:
        return None
    heights = [1.2 + 0.45 * max(2, len(found.rows)) for found in maps]
    figure, all_axes = _figure(7, 0.6 + sum(heights), len(maps), height_ratios=heights)
    low, high = colour_range(maps)
    for axes, found in zip(all_axes, maps, strict=True):
        _draw_map(axes, found, Normalize(low, high, clip=True))
    text = f"The lowest {evidence.metric_name} by layer and width (×: trials)"
    figure.suptitle(text, x=0.02, ha="left", fontsize=12)
    return figure


def _draw_map(axes: Axes, found: LayerMap, scale: Normalize) -> None:
    colours = LinearSegmentedColormap.from_list("errors", list(COLOURS))
    axes.imshow([_floats(row) for row in found.values], cmap=colours, norm=scale, aspect="auto")
    for row, values in enumerate(found.values):
        for column, value in enumerate(values):
            if value is not None:
                text = f"{number(value)}\n×{found.counts[row][column]}"
                ink = "white" if scale(value) < 0.45 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(found.columns)), list(found.columns))
    axes.set_yticks(range(len(found.rows)), list(found.rows))
    axes.set_title(found.title, loc="left", fontsize=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _figure(width: float, height: float, num_rows: int, **grid: Any) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    all_axes = figure.subplots(num_rows, 1, squeeze=False, gridspec_kw=grid)[:, 0]
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(all_axes)


def _in_lines(text: str, width: int) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


PICTURES: dict[str, Callable[[Evidence], Figure | None]] = {
    "verdict": _verdict,
    "history": _history,
    "forecasts": _forecasts,
    "layers": _layers,
}
"""By the name of their file; None where the study has nothing to draw."""
