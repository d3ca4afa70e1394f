"""The notebook of the documentation, and runs in any notebook."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from domainbed.training.stop_requests import AFTER_STEP

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "sweep.ipynb"


def code_of_notebook():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return notebook, [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_its_outputs():
    notebook, _ = code_of_notebook()
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_the_readme_shows_cells_of_the_notebook():
    _, cells = code_of_notebook()
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (shown,) = [block for block in blocks if "launch_sweep" in block]
    notebook = {line for cell in cells for line in cell.splitlines()}
    assert {*shown.splitlines()} <= notebook


@pytest.mark.slow
def test_a_notebook_shows_the_bar_of_a_run_and_where_it_writes_and_answers_an_interrupt(
    tmp_path, monkeypatch
):
    # A kernel in a test of ipykernel's own does not show what file descriptor 2 gets.
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook()
    code = (
        "import domainbed; domainbed.train(dataset='Debug28', steps=3, output_dir='run')[['step']]",
        "import signal\nfrom domainbed.algorithms import REGISTRY\nfrom domainbed.algorithms.erm import ERM\n"
        "class Stopping(ERM):\n"
        "    def update(self, *minibatches):\n        signal.raise_signal(signal.SIGINT)\n"
        "        return super().update(*minibatches)\n"
        "REGISTRY['Stopping'] = Stopping\n"
        "domainbed.train(dataset='Debug28', algorithm='Stopping', output_dir='stopped')",
    )
    notebook.cells = [nbformat.v4.new_code_cell(each) for each in code]
    settings = {"timeout": 600, "allow_errors": True, "resources": {"metadata": {"path": str(tmp_path)}}}
    cells = NotebookClient(notebook, **settings).execute().cells
    shown = ["".join(each["text"] for each in cell["outputs"] if "text" in each) for cell in cells]
    assert "ERM on Debug28: files go to run.\n" in shown[0]
    assert "ERM:   0%" in shown[0]
    assert AFTER_STEP in shown[1]
    (error,) = [each for each in cells[1]["outputs"] if each["output_type"] == "error"]
    assert error["evalue"] == "Interrupted. Run the same command to resume from the checkpoint."


@pytest.mark.slow
def test_the_notebook_runs_in_a_real_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook, _ = code_of_notebook()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    done = client.execute()
    outputs = {cell["id"]: cell["outputs"] for cell in done.cells if cell["cell_type"] == "code"}
    launched = "".join(each["text"] for each in outputs["launch"] if each.get("name") == "stdout")
    assert "About to launch 16 jobs." in launched
    assert all((run / "done").exists() for run in (tmp_path / "runs/notebook").iterdir() if run.is_dir())
    (means,) = [each["data"] for each in outputs["means"] if each["output_type"] == "execute_result"]
    assert "text/html" in means
    assert "AgrSum" in means["text/plain"]
    (paired,) = [each["data"] for each in outputs["paired"] if each["output_type"] == "execute_result"]
    assert "undecided" in paired["text/plain"]
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert not [each for cell in outputs.values() for each in cell if each["output_type"] == "error"]
