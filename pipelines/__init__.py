"""From a table to a scored model; knows no search.

Shapes, here and in every module below: B batch, L lookback, H horizon, F features, T targets
(the first T of the F features), K covariates known ahead, N rows of the table. Scales: "original
units" are those of the table, "standardised" values have mean 0 and deviation 1 on the training
rows.
"""
