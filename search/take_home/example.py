"""Forecast the rows of example.json, and compare with the forecast that is stored there.

python example.py
"""

import json
import sys
from datetime import datetime
from pathlib import Path

import torch

from search.take_home.model import load


def main() -> int:
    """Print the forecast; return 1 where it is not the stored one."""
    folder = Path(__file__).parent
    example = json.loads((folder / "example.json").read_text(encoding="utf-8"))
    timestamps = [datetime.fromisoformat(text) for text in example["timestamps"]]
    model = load(folder)
    forecast = model.forecast(example["values"], timestamps)
    print(*model.config["targets"], sep="\t")
    for number, row in enumerate(forecast.tolist(), start=1):
        place = len(timestamps) - len(forecast) + number - 1
        when = timestamps[place] if timestamps else f"step {number}"
        print(when, *(f"{value:.6g}" for value in row), sep="\t")
    stored = torch.tensor(example["forecast"], dtype=torch.float64)
    is_equal = torch.allclose(forecast, stored, rtol=1e-4, atol=1e-4 * float(stored.abs().max()))
    print("as stored" if is_equal else f"differs from the stored forecast:\n{stored}")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
