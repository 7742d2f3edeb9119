"""A peer's own configurations and steps through this project's search.

    python -m benchmarks.peers.replay PEER_FOLDER --lookback 96 --horizon 24

The configurations are put first in line and each trial is stopped where the peer stopped it, by
the training that the peers use (mean squared error, constant learning rate, no weight decay).
Record, pruner, weights, view and screen are those of any search; only the pruner's answers are
replaced.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

from benchmarks.peers.task import EVALUATE_EVERY_STEPS, MAX_STEPS, NUM_SLOTS, TrialRun, read_runs
from pipelines.scores import Evaluation
from search.config import SearchConfig
from search.config_file import parse_config
from search.search import run_search
from search.study import Study


def search_config(
    runs: Sequence[TrialRun], home: Path, lookback: int, data: Mapping[str, object]
) -> SearchConfig:
    """A search that tries just these, in this order."""
    starts = [
        {
            "widths": [run.hidden_size] * run.num_layers,
            "learning_rate": run.learning_rate,
            "batch_size": run.batch_size,
        }
        for run in runs
    ]
    return parse_config(
        {
            "home": str(home),
            "data": dict(data),
            "space": {
                "num_layers": {"low": 1, "high": 3},
                "shape": "uniform",
                "bidirectional": False,
                "dropout": 0.0,
                "normalisation": "none",
                "linear_skip": "none",
                "head": "last_state",
                "calendar": False,
                "patch_length": 1,
                "lookback": lookback,
                "learning_rate": {"low": 1e-5, "high": 1.0, "log": True},
                "batch_size": {"choices": sorted({run.batch_size for run in runs})},
                "weight_decay": 0.0,
            },
            "training": {
                "max_steps": MAX_STEPS,
                "evaluate_every_steps": EVALUATE_EVERY_STEPS,
                "loss": "mse",
                "schedule": "constant",
                "warmup_steps": 0,
            },
            "search": {
                "trials": len(runs),
                "start_with": starts,
                "use_default_starts": False,
                "max_training_teraflops": 1000.0,
            },
            "resources": {"max_concurrent": NUM_SLOTS},
        }
    )


@contextmanager
def stopped_as(runs: Sequence[TrialRun]) -> Iterator[None]:
    """Let each trial take the steps that it took there."""
    steps = {run.learning_rate: run.steps for run in runs}
    judge = Study.report

    def report(study: Study, number: int, evaluation: Evaluation) -> bool:
        judge(study, number, evaluation)
        config = study.trial(number).config
        assert config is not None
        return MAX_STEPS > evaluation.step >= steps[config.training.learning_rate]

    with patch.object(Study, "report", report):
        yield


def main() -> None:
    """Replay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", type=Path, help="folder that a peer left its trials in")
    parser.add_argument("home", type=Path, help="folder for record and view")
    parser.add_argument("--lookback", type=int, default=96)
    parser.add_argument("--data", default="{}", help="section `data` of a configuration, as JSON")
    given = parser.parse_args()
    runs = read_runs(given.peer)
    config = search_config(runs, given.home, given.lookback, json.loads(given.data))
    with stopped_as(runs):
        result = run_search(config, console=Console(width=140))
    taken = sum(t.evaluations[-1].evaluation.step for t in result.trials if t.evaluations)
    assert taken == sum(run.steps for run in runs), f"other steps than the peer's: {taken}"


if __name__ == "__main__":
    main()
