"""The dashboard: the view that W&B is given, built without a server, and its picture of the same names."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
from conftest import assert_refused, command

from methyl_lightning.report import dashboard
from methyl_lightning.report.dashboard import GROUP, SECTIONS, Line, Panel, Parallel, Runs, build_view, is_metric
from methyl_lightning.report.picture import Logged, draw_dashboard, read_logged

KEY = "fedcba9876543210fedcba9876543210fedcba98"


def named(panel: Panel) -> list[str]:
    """List all that a panel draws."""
    match panel:
        case Parallel(_, columns) | Runs(_, columns):
            return list(columns)
        case Line(_, x, y):
            return [x, y]
        case _:
            return list(panel[1:])


def specification() -> dict[str, Any]:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    view = build_view("somebody", "methylation")._to_model()
    assert (view.entity, view.project) == ("somebody", "methylation")
    return json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))["section"]


def test_the_view_has_the_sections_and_their_panels() -> None:
    spec = specification()
    sections = {one["name"]: one["panels"] for one in spec["panelBankConfig"]["sections"]}
    assert list(sections) == ["reproduction", "dilution", "seeds", "cost"]
    mae, spearman, mas_pcc = (panel["config"] for panel in sections["dilution"])
    assert [line["metrics"] for line in (mae, spearman, mas_pcc)] == [
        ["dilution/mae"],
        ["dilution/spearman"],
        ["dilution/mas_pcc"],
    ]
    for line in (mae, spearman, mas_pcc):
        assert line["xAxis"] == "dilution/retention" and line["xLogScale"] is True
        assert (line["groupBy"], line["groupAgg"], line["groupArea"]) == ("model.value.network", "mean", "stddev")
    (scatter,) = [panel["config"] for panel in sections["reproduction"] if panel["viewType"] == "Scatter Plot"]
    assert scatter["xAxis"] == "summary:test/unseen_unseen/mae"
    assert scatter["yAxis"] == "summary:test/unseen_unseen/mas_pcc"
    (parallel,) = [panel["config"] for panel in sections["seeds"] if panel["viewType"] == "Parallel Coordinates Plot"]
    accessors = [column["accessor"] for column in parallel["columns"]]
    assert {"config:seed.value", "config:model.value.learning_rate", "summary:test/unseen_unseen/mas_pcc"} < set(
        accessors
    )
    assert any(panel["viewType"] == "Run Comparer" for panel in sections["reproduction"])
    (runs,) = spec["runSets"]
    assert "summary:test/unseen_unseen/mae" in runs["runFeed"]["columnPinned"]


def test_panels_draw_what_runs_log(workplace: Path) -> None:
    logged = read_logged([str(workplace / "run")])
    settings, metrics = set(logged.summary), set(logged.history) | set(logged.summary)
    for panels in SECTIONS.values():
        for panel in panels:
            for name in named(panel):
                if not name.startswith(("dilution/", "trainer/")):  # a run without a dilution; W&B's own name
                    assert name in (metrics if is_metric(name) else settings), name


def test_bands_are_over_runs_of_a_model() -> None:
    levels = [(10.0, 0.30, "A"), (10.0, 0.34, "A"), (100.0, 0.20, "A"), (100.0, 0.20, "A"), (10.0, 0.1, "B")]
    history = pd.DataFrame(levels, columns=["dilution/retention", "dilution/mae", GROUP])
    summary = pd.DataFrame({GROUP: ["A", "A", "B"], "seed": [0, 1, 0]})
    line = Line("mae", "dilution/retention", "dilution/mae", log_x=True)
    figure = draw_dashboard(Logged(summary, history), {"dilution": [line]})
    (axes,) = figure.subfigs[0].axes
    assert axes.get_xscale() == "log"
    (first, second) = axes.get_lines()
    assert first.get_xydata().round(9).tolist() == [[10, 0.32], [100, 0.2]]
    assert second.get_xydata().tolist() == [[10, 0.1]]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(0.32 + 0.02 * 2**0.5) and band[:, 1].min() == pytest.approx(0.2)


def test_the_picture_is_drawn_from_run_folders(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(workplace / "run")
    result = command("report", ["runs=run", "dashboard=picture.png"], tmp_path)
    assert (result.status, result.out) == (0, "dashboard: picture.png\n"), result.err
    height, width, _ = matplotlib.image.imread(tmp_path / "picture.png").shape
    assert height > 1000 and width > 1000


@pytest.mark.parametrize("place", ["nobody", "a/b/c", "/b"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    assert_refused(command("report", [f"dashboard={place}"], tmp_path), "ENTITY/PROJECT")


def test_without_a_key_or_a_server_the_remedy_is_told(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    environment = {"WANDB_BASE_URL": "http://user:password@127.0.0.1:9", "WANDB_API_KEY": KEY}
    result = command("report", ["dashboard=somebody/methylation"], tmp_path, **environment)
    assert_refused(result, "http://127.0.0.1:9 does not answer", "WANDB_API_KEY", "dashboard=PICTURE.png")
    assert KEY not in result.err and "password" not in result.err


def test_without_the_package_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb_workspaces", None)
    result = command("report", ["dashboard=somebody/methylation"], tmp_path)
    assert_refused(result, "pip install wandb-workspaces")


def test_what_the_server_says_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="wandb-workspaces is not installed")
    saved: list[Any] = []
    monkeypatch.setattr(dashboard, "refusal", lambda: None)
    monkeypatch.setattr(workspaces.Workspace, "save", lambda view: saved.append(view))
    monkeypatch.setattr(workspaces.Workspace, "url", "https://wandb.ai/somebody/methylation?nw=1")
    result = command("report", ["dashboard=somebody/methylation"], tmp_path)
    assert result.out == "dashboard: https://wandb.ai/somebody/methylation?nw=1\n"
    assert [view.project for view in saved] == ["methylation"]

    def refused(view: Any) -> None:
        raise ValueError(f"unauthorised: {KEY}")

    monkeypatch.setattr(workspaces.Workspace, "save", refused)
    result = command("report", ["dashboard=somebody/methylation"], tmp_path)
    assert_refused(result, "dashboard=somebody/methylation: not saved")
    assert KEY not in result.err
