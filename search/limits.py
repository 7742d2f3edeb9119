"""Which configurations are refused before they cost anything."""

from dataclasses import dataclass

from pipelines.splits import SearchData
from pipelines.training import window_shape
from search.space import TrialConfig


@dataclass(frozen=True)
class Limits:
    """What a configuration must not exceed on one table."""

    data: SearchData
    max_parameters: int
    max_training_teraflops: float | None

    def num_parameters(self, config: TrialConfig) -> int:
        """Parameters of the forecaster.

        Raises:
            ValueError: where model and windows contradict each other.
        """
        return config.model.num_parameters(window_shape(config.training, self.data))

    def training_teraflops(self, config: TrialConfig) -> float:
        """Floating-point operations of a whole trial's training, in 10¹²; see `num_flops`."""
        shape = window_shape(config.training, self.data)
        windows = config.training.batch_size * config.training.max_steps
        return 3 * config.model.num_flops(shape) * windows / 1e12  # backward costs twice forward

    def why_refused(self, config: TrialConfig) -> str | None:
        """Return the reason against a configuration, or None."""
        try:
            num_parameters = self.num_parameters(config)
        except ValueError as error:
            return str(error)
        if num_parameters > self.max_parameters:
            limit = f"search.max_parameters={self.max_parameters:,}"
            return f"{num_parameters:,} parameters exceed {limit}"
        num_rows = config.training.lookback + self.data.horizon
        if num_rows > self.data.num_train_rows:
            limit = f"{self.data.num_train_rows} rows to train on"
            return f"lookback and horizon, {num_rows} rows together, exceed the {limit}"
        teraflops, most = self.training_teraflops(config), self.max_training_teraflops
        if most is not None and teraflops > most:
            limit = f"search.max_training_teraflops={most:g}"
            return f"its training's {teraflops:.1f} teraflops exceed {limit}"
        return None
