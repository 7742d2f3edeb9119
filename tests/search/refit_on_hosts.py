"""Refits two seeds on a cluster; `test_hosts.py` takes one of its machines away meanwhile."""

import sys
from dataclasses import fields

from conftest import small_data

from models.config import LSTMConfig
from pipelines.splits import SearchData, TestData
from pipelines.training_config import TrainConfig
from search.cluster import connect
from search.config import Resources
from search.side_workers import refit_seeds
from search.slots import Slots
from search.space import TrialConfig

NUM_STEPS = 4000  # some five seconds


def main(address: str) -> None:
    connect(Resources(address=address), is_verbose=False)
    small = small_data()
    rows = {item.name: getattr(small, item.name) for item in fields(SearchData)}
    training = TrainConfig(
        lookback=12,
        calendar=True,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=8,
        max_steps=NUM_STEPS,
        evaluate_every_steps=NUM_STEPS,
        warmup_steps=0,
        precision="float32",
    )
    weights = refit_seeds(
        TestData(**rows, first_test_row=100),
        TrialConfig(model=LSTMConfig(widths=(4,)), training=training),
        [1, 2],
        NUM_STEPS,
        Resources(),
        Slots(2, 1, 0.0, "cpu"),
    )
    assert len(set(weights)) == 2


if __name__ == "__main__":
    main(sys.argv[1])
