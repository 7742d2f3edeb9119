"""The notebook runs from top to bottom, as a reader would run it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "search.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_its_second_search_trains_only_what_is_missing(
    tmp_path: Path,
) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(str(output.get("text", output.get("data", ""))) for output in shown)
    assert "2 trials at a time" in text or "trial at a time" in text or "trials at a time" in text
    assert notebook.cells[10].outputs[-1]["data"]["text/plain"] == "8"
    assert (tmp_path / "mlruns" / "studies" / "notebook.db").exists()
