"""The notebook: its two files hold the same cells, its claims hold, and its outputs are of one whole run.

`python parity_tests/test_notebook.py` writes examples/derivation.ipynb: the cells of derivation.py, executed.
"""

from pathlib import Path

import jupytext
import nbclient
import pytest
from nbformat import NotebookNode

SCRIPT = Path(__file__).parents[1] / "examples" / "derivation.py"
NOTEBOOK = SCRIPT.with_suffix(".ipynb")
LARGEST = 600_000  # bytes: git keeps every version of it


def executed(folder: Path) -> NotebookNode:
    """The script as a notebook, run from its first cell to its last in a folder; raises what a cell does."""
    notebook = jupytext.read(SCRIPT)
    for k, cell in enumerate(notebook.cells):
        cell.id = str(k)  # else a random one: every cell would differ after every run
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=300, coalesce_streams=True, record_timing=False, resources=resources
    )
    return client.execute()


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebook_and_its_script_hold_the_same_cells() -> None:
    written, source = (jupytext.read(path).cells for path in (NOTEBOOK, SCRIPT))
    assert [(cell.cell_type, cell.source) for cell in written] == [(cell.cell_type, cell.source) for cell in source]


@pytest.mark.slow  # a minute of its own; .ci/run has it
def test_every_claim_in_it_holds_and_it_warns_of_nothing(tmp_path: Path) -> None:
    assert warnings(executed(tmp_path)) == []
    assert not list(tmp_path.iterdir())


def test_the_outputs_shown_are_of_one_whole_run() -> None:
    notebook = jupytext.read(NOTEBOOK)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert warnings(notebook) == []
    assert NOTEBOOK.stat().st_size < LARGEST


def test_every_cell_of_code_fits_a_slide() -> None:
    assert max(len(cell.source.splitlines()) for cell in code(jupytext.read(SCRIPT))) <= 15


def warnings(notebook: NotebookNode) -> list[str]:
    """Outputs that are neither printed nor drawn."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return [str(o) for o in outputs if o.output_type not in ("stream", "display_data") or o.get("name") == "stderr"]


if __name__ == "__main__":
    jupytext.write(executed(SCRIPT.parent), NOTEBOOK)
