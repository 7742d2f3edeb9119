"""LSTM forecasters in plain torch: no data file, no search and no tracker is known here.

- `models.config`: what a forecaster is made of, and its parameter count without building it.
- `models.lstm`: `StackedLSTM`, an LSTM with a width for each layer.
- `models.forecaster`: `Forecaster`, a window of the past in, a forecast out.

Nothing is imported with the package itself, so that reading a configuration does not load torch.

Legend of shapes, the same in every docstring:

- B batch
- L lookback: steps of the window, the last of them the newest known
- H horizon: steps to forecast
- F features: series in the window; the first T of them are the targets
- T targets: series to forecast
- K covariates known ahead, such as the hour of the day
- U hidden units of a layer, its width
- D directions: 2 when bidirectional, else 1
- P patch length: steps that the LSTM reads at once
"""
