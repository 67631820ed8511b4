"""The notebooks run from top to bottom, define nothing, and are kept without outputs."""

import ast
from pathlib import Path

import nbformat
import pytest
from conftest import SMALL, files
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
# a tiny cohort: what the notebooks do is tested here, not what they find
TINY = {
    "reproduction": "trainer.max_steps=4 ~references.constant ~references.cpg_mean ~references.bilinear_ridge",
    "dilution": "trainer.max_steps=4 dilution.retention=[10,100] dilution.repeats=3",
    "interpretation": "trainer.max_steps=4",
}
MARKS = {"reproduction": "expression_only", "dilution": "remain with none", "interpretation": "Knock-out: 40 genes"}
FIGURES = {"reproduction": 6, "dilution": 4, "interpretation": 4}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_tested() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_they_define_nothing_and_hold_no_outputs(name: str) -> None:
    for cell in read(name).cells:
        if cell.cell_type != "code":
            continue
        assert cell.outputs == [] and cell.execution_count is None
        code = ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%")))
        defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        assert not [node for node in ast.walk(code) if isinstance(node, defined)], cell.source


@pytest.mark.parametrize("name", TINY)
def test_they_run_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHYL_LIGHTNING_SETTINGS", " ".join([*SMALL, TINY[name]]))
    monkeypatch.delenv("METHYL_LIGHTNING_RUN", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = read(name)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(drawn) == FIGURES[name] and all(len(output.data["image/png"]) > 5_000 for output in drawn)
    folder = f"outputs/notebooks/{name}"
    made = {"reproduction": f"{folder}/report.html", "dilution": f"{folder}/dilution.csv"}
    made["interpretation"] = f"{folder}/interpretation/interpretation.json"
    assert {f"{folder}/metrics.json", made[name]} <= files(tmp_path)
    text = " ".join(output.data.get("text/markdown", "") for output in outputs if "data" in output)
    assert MARKS[name] in text
