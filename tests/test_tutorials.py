"""The notebooks run from top to bottom, and are kept with what they printed and drew."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
NotebookClient = pytest.importorskip("nbclient").NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_and_show_no_error(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_the_one_that_trains_begins_to():
    """Its cells up to the training, of two steps: it uses parts of the package that other notebooks and commands do not."""
    cells = nbformat.read(NOTEBOOKS[0].with_name("mueller_brown.ipynb"), as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    known = {}
    for source in sources[: next(k for k, q in enumerate(sources) if q.startswith("STEPS")) + 1]:
        exec(source.replace("STEPS, BATCH, POINTS = 5000", "STEPS, BATCH, POINTS = 2"), known)
    assert known["STEPS"] == 2
    assert known["energies"].keys() == {"denoising", "denoising + FP"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
