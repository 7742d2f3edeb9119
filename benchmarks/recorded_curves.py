"""Learning curves of real trials, to stand in for training.

    python -m benchmarks.recorded_curves RECORD.db STUDY > benchmarks/scale_curves.json

`scale_curves.json` holds the trials of a random search without pruning on the embedded table. A
configuration that was not among them gets a mean of the nearest ones', times its own luck.
"""

import argparse
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from search.record import TrialState
from search.space import TrialConfig
from search.stored_studies import read_study

FILE = Path(__file__).with_name("scale_curves.json")

NUM_NEAREST = 5
LUCK = 0.02
"""Standard deviation of the logarithm of a trial's own factor: assumed, not fitted."""


@dataclass(frozen=True)
class Curves:
    """Curves of R recorded trials with S evaluations each."""

    steps: tuple[int, ...]
    configs: tuple[TrialConfig, ...]
    errors: npt.NDArray[np.float64]
    """[R, S]: MAE on standardised values."""
    seconds: npt.NDArray[np.float64]
    """[R, S]: from the last evaluation to this one."""

    @classmethod
    def read(cls, file: Path = FILE) -> Self:
        """Read what `recorded` wrote."""
        content = json.loads(file.read_text(encoding="utf-8"))
        trials = content["trials"]
        return cls(
            tuple(content["steps"]),
            tuple(TrialConfig.model_validate_json(json.dumps(trial["config"])) for trial in trials),
            np.array([trial["errors"] for trial in trials]),
            np.array([trial["seconds"] for trial in trials]),
        )

    def expected(self, config: TrialConfig) -> npt.NDArray[np.float64]:
        """[S]: the curve of a configuration, without luck.

        A mean of the logarithms of the nearest five, each weighted by 1 / distance².
        """
        logarithms = self._weights(config) @ np.log(self.errors)
        expected: npt.NDArray[np.float64] = np.exp(logarithms)
        return expected

    def drawn(
        self, config: TrialConfig, seed: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """[S] and [S]: errors and seconds of one trial of a configuration."""
        luck = np.random.default_rng(seed).normal(scale=LUCK)
        return self.expected(config) * math.exp(luck), self._weights(config) @ self.seconds

    @cached_property
    def _table(self) -> tuple[list[str], npt.NDArray[np.float64]]:
        """Names of the traits, and [R, traits]."""
        known = [_traits(each) for each in self.configs]
        names = sorted({name for traits in known for name in traits})
        return names, np.array([[traits.get(name, 0.0) for name in names] for traits in known])

    def _weights(self, config: TrialConfig) -> npt.NDArray[np.float64]:
        names, table = self._table
        spread = np.maximum(table.std(axis=0), 1e-9)
        traits = _traits(config)
        point = np.array([traits.get(name, 0.0) for name in names])
        distances = np.sqrt((((table - point) / spread) ** 2).sum(axis=1))
        weights = 1 / (distances**2 + 1e-6)
        weights[np.argsort(distances)[NUM_NEAREST:]] = 0
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares


def _traits(config: TrialConfig) -> dict[str, float]:
    """A configuration as numbers: logarithms of what is searched so, 0 and 1 for choices."""
    widths = config.model.widths
    traits = {"layers": float(len(widths)), "cells": math.log2(sum(widths) + 1)}
    fields: dict[str, Any] = config.model.model_dump(exclude={"widths"})
    fields |= config.training.model_dump(
        include={"lookback", "calendar", "learning_rate", "weight_decay", "batch_size"}
    )
    for name, value in fields.items():
        match value:
            case bool():
                traits[name] = float(value)
            case int() | float():
                traits[name] = math.log10(value + 1e-6)
            case _:
                traits[f"{name}={value}"] = 1.0
    return traits


def recorded(url: str, study: str) -> dict[str, Any]:
    """The curves of a study's complete trials, as plain JSON."""
    _, trials = read_study(url, study)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return {
        "steps": [each.evaluation.step for each in complete[0].evaluations],
        "trials": [
            {
                "config": json.loads(trial.config.model_dump_json()) if trial.config else None,
                "errors": [round(e.evaluation.errors.mae_scaled, 5) for e in trial.evaluations],
                "seconds": [
                    round(e.evaluation.train_seconds + e.evaluation.evaluate_seconds, 3)
                    for e in trial.evaluations
                ],
            }
            for trial in complete
        ],
    }


def main() -> None:
    """Print the curves of a study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    parser.add_argument("study")
    given = parser.parse_args()
    content = recorded(f"sqlite:///{given.record}", given.study)
    print(json.dumps(content, separators=(",", ":")))


if __name__ == "__main__":
    main()
