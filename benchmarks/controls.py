"""Whether the gate lets pass what it should: python -m benchmarks.controls --seeds 20.

A model that has nothing to find must not pass, one that has found something must. Each kind of
series is made anew from each seed; a small LSTM is trained on it as a trial is, the best of three
configurations on the validation part meets all baselines on the test part, once, and the gate
judges. No Ray, record or view: what is tried is the judgement.

- white noise, and a random walk: nothing to find beyond the baselines.
- planted: a season of 12 rows whose height follows a logistic map, h' = 4 h (1 - h), from season to
  season, with noise. The heights are uncorrelated, so no linear map foretells the next one.
- the S&P 500's daily returns, 1999 to 2018, of the package `arch`; its seeds are the training's.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from models.config import LSTMConfig
from pipelines.baselines import fit_baselines
from pipelines.comparison import block_length_of, compare
from pipelines.contenders import Contender, ensemble_contender
from pipelines.data_config import DataConfig, SplitConfig
from pipelines.final_test import measure
from pipelines.gate import judge
from pipelines.scaling import Scaling
from pipelines.series import load
from pipelines.splits import SearchData, split
from pipelines.training import Training, build_forecaster
from pipelines.training_config import TrainConfig, TrainingBudget
from pipelines.verdict import Comparison
from pipelines.windows import build_windows

Column = npt.NDArray[np.float64]

NUM_ROWS = 2400
SEASON = 12
CANDIDATES = ((16, 1e-2), (32, 5e-3), (32, 1e-2))
"""Width of one layer, and highest learning rate: what stands for a search."""


def main() -> None:
    """Run the controls and print how many passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="series of each kind")
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    for kind in options.kinds:
        started = time.perf_counter()
        control = partial(run_control, kind, options.steps)
        on_one_thread = partial(torch.set_num_threads, 1)  # the tensors are tiny
        with ProcessPoolExecutor(options.processes, initializer=on_one_thread) as pool:
            outcomes = list(pool.map(control, range(options.seeds)))
        for seed, (is_passed, reason) in enumerate(outcomes):
            print(f"  {kind}, seed {seed}: {'passed' if is_passed else 'not passed'}: {reason}")
        num_passed = sum(is_passed for is_passed, _ in outcomes)
        seconds = time.perf_counter() - started
        print(f"{kind}: {num_passed} of {options.seeds} passed, {seconds:.0f} s", flush=True)


def white_noise(seed: int) -> Column:
    """Return independent normal values."""
    return np.random.default_rng(seed).normal(size=NUM_ROWS)


def random_walk(seed: int) -> Column:
    """Return their sums."""
    return white_noise(seed).cumsum()


def planted_signal(seed: int) -> Column:
    """Return seasons of one shape, whose heights a logistic map gives, with noise."""
    generator = np.random.default_rng(seed)
    heights = logistic_heights(generator.uniform(0.1, 0.9), NUM_ROWS // SEASON)
    phase = np.arange(SEASON) / SEASON
    seasons = np.sin(2 * np.pi * phase) + 3 * heights[:, None] * np.sin(np.pi * phase)
    return seasons.ravel() + generator.normal(scale=0.2, size=seasons.size)


def logistic_heights(first: float, num_seasons: int) -> Column:
    """Return the orbit of the logistic map that begins with a height between 0 and 1."""
    heights = np.empty(num_seasons)
    height = first
    for place in range(num_seasons):
        heights[place] = height
        height = 4 * height * (1 - height)
    return heights


def returns(seed: int) -> Column:
    """Return the S&P 500's daily returns in per cent, the same for every seed."""
    from arch.data import sp500  # a development dependency, and a slow import

    prices = np.asarray(sp500.load()["Adj Close"], dtype=np.float64)
    returns_in_per_cent: Column = 100 * np.diff(np.log(prices))
    return returns_in_per_cent


KINDS: dict[str, Callable[[int], Column]] = {
    "white noise": white_noise,
    "random walk": random_walk,
    "planted": planted_signal,
    "returns": returns,
}


def run_control(kind: str, num_steps: int, seed: int) -> tuple[bool, str]:
    """Return the gate's judgement of a small LSTM on one series."""
    frame = pd.DataFrame({"value": KINDS[kind](seed)})
    config = DataConfig(targets=("value",), frequency="none", season=SEASON, horizon=SEASON)
    data, sealed = split(load(config, frame), SplitConfig())
    budget = TrainingBudget(max_steps=num_steps, precision="float32")
    model, baselines = best_model(data, budget, seed), list(fit_baselines(data, budget, seed))
    test = sealed.open()
    own, *others = measure([model, *baselines], test, Scaling.fit(data))
    block_length = block_length_of(test.horizon, test.frequency)
    comparisons: list[Comparison] = [
        compare(other.contender.name, own.losses, other.losses, "mae", test.horizon, block_length)
        for other in others
    ]
    return judge(comparisons)


def best_model(data: SearchData, budget: TrainingBudget, seed: int) -> Contender:
    """Return the candidate that errs least on the validation part at the end of its training."""
    scaling = Scaling.fit(data)
    trained = []
    for width, learning_rate in CANDIDATES:
        training = TrainConfig(
            **budget.model_dump(),
            lookback=2 * SEASON,
            calendar=False,
            learning_rate=learning_rate,
            weight_decay=0.0,
            batch_size=64,
        )
        windows = build_windows(data, scaling, training.lookback, training.calendar, "cpu")
        model = LSTMConfig(widths=(width,))
        forecaster = build_forecaster(model, training, data, "cpu", seed)
        *_, last = Training(forecaster, windows, scaling, training, seed)
        trained.append((last.errors.mae_scaled, width, learning_rate, forecaster))
    error, width, learning_rate, forecaster = min(trained, key=lambda each: each[0])
    note = f"width {width}, learning rate {learning_rate:g}, validation MAE {error:.4f}"
    return ensemble_contender("model", note, [forecaster], scaling, training.lookback, False)


if __name__ == "__main__":
    main()
