"""The notebook runs from top to bottom, as a reader would run it."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "search.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The notebook's cells after a run in an empty folder."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return list(notebook.cells)


def output_of(cells: list[Any], source: str) -> str:
    """All text that the first cell with `source` in it printed or returned."""
    outputs = next(cell.outputs for cell in cells if source in cell.source and "outputs" in cell)
    return "\n".join(str(o.get("text") or o["data"].get("text/plain", "")) for o in outputs)


@pytest.mark.slow
def test_a_search_in_a_notebook_says_where_it_runs_and_what_it_read(cells: list[Any]) -> None:
    shown = output_of(cells, "result = run_search(config")
    assert "torch" in shown
    assert "at a time" in shown
    assert "study notebook" in shown


@pytest.mark.slow
def test_a_second_search_of_the_study_goes_on_to_the_new_total(cells: list[Any]) -> None:
    assert output_of(cells, "len(result.trials_dataframe())").strip().endswith("8")


@pytest.mark.slow
def test_the_best_model_of_the_notebook_is_at_hand(cells: list[Any]) -> None:
    assert "on standardised values" in output_of(cells, "result.best_value")
    assert "WindowShape(lookback=" in output_of(cells, "result.load_best()")
