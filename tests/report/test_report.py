"""The report: one page that holds every number of the runs, and nothing from elsewhere."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import command, files
from omegaconf import OmegaConf
from scipy import stats

from methyl_lightning.data.splits import HEADLINE, TEST_VIEWS
from methyl_lightning.data.texts import SUMS
from methyl_lightning.evaluate.table import PUBLISHED
from methyl_lightning.files import InputError
from methyl_lightning.metrics.names import COLUMNS, HEADINGS
from methyl_lightning.report import page as report_page
from methyl_lightning.report.__main__ import beside
from methyl_lightning.report.page import draw, extremes, gather, write_report
from methyl_lightning.report.runs import find_runs, read_run, results, test_sets
from methyl_lightning.report.tables import (
    best_and_worst,
    cpg_scores,
    in_short,
    number,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}
SECTIONS = ["short", "runs", "data", "results", "comparisons", "correlations", "density", "calibration", "strata"]
SECTIONS += ["extremes", "training", "cost", "words"]


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in order; keeps ids, links, images and the cells of tables."""

    def __init__(self, path: Path):
        super().__init__()
        self.text = path.read_text()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str | None, list[str]]] = []
        self.view: str | None = None
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("table", "tbody"):
            self.view = dict(attributes).get("data-view")
        if tag == "tr":
            self.rows.append((self.view, []))
        if tag in ("th", "td"):
            self.rows[-1][1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"th", "td"} & set(self.open) and "table" in self.open:
            self.rows[-1][1][-1] += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    def row(self, view: str, model: str) -> list[str]:
        (found,) = [cells for at, cells in self.rows if at == view and cells[0].split() == [model]]
        return found


def numbers(cell: str) -> list[float]:
    return [float(text.replace("−", "-")) for text in re.findall(r"[−]?\d+\.\d+", cell)]


@pytest.fixture(scope="module")
def run(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the trained run to where a test can change it, without what a report does not read."""
    folder = tmp_path_factory.mktemp("report") / "runs" / "first"
    shutil.copytree(workplace / "run", folder, ignore=shutil.ignore_patterns("*.ckpt", "figures", ".hydra"))
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    result = command("report", ["runs=runs/first", "output=page.html"], run.parents[1])
    assert result.status == 0, result.err
    assert result.out == "report: page.html\nfigures: page\n"
    return Page(run.parents[1] / "page.html")


@pytest.fixture(scope="module")
def found(run: Path) -> report_page.Results:
    (only,) = gather(str(run))
    return only


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(SUMS))  # tests change what is in it
    return tmp_path / "run"


def edit(path: Path, **changes: Any) -> None:
    """Change settings of a run."""
    config = OmegaConf.load(path / "config.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.save(config, path / "config.yaml")


def test_page_needs_nothing_else(page: Page) -> None:
    assert page.text.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?://|//cdn|@import|url\(", page.text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.seen}
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.all("img"))
    assert "prefers-color-scheme: dark" in page.text and "@media print" in page.text
    assert page.all("html") == [{"lang": "en"}] and any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_every_section_is_there_and_in_the_contents(page: Page) -> None:
    assert [section["id"] for section in page.all("section")] == SECTIONS
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in SECTIONS]
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    headings = [int(tag[1]) for tag, _ in page.seen if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    for part in page.text.split("<section")[1:]:
        assert re.search(r"</h2>\s*<p>\w", part) or 'id="words"' in part  # says what it shows and how to read it


def test_images_are_the_files_and_have_words(page: Page, run: Path) -> None:
    folder = run.parents[1] / "page"
    kinds = ("calibration", "correlations", "density", "scores", "strata", "training")
    assert files(folder) == {f"1_simulated_{kind}.png" for kind in kinds}
    embedded = {base64.b64decode((image["src"] or "").partition(",")[2]) for image in page.all("img")}
    assert embedded == {path.read_bytes() for path in folder.iterdir()}
    assert all(len(image["alt"] or "") > 20 for image in page.all("img"))
    assert all(image.startswith(b"\x89PNG") and len(image) > 10_000 for image in embedded)


def test_all_numbers_are_those_of_metrics_json(page: Page, run: Path) -> None:
    for folder in (run, *(run / "references").iterdir()):
        name = "LevyJurgenson" if folder == run else folder.name
        for view, result in json.loads((folder / "metrics.json").read_text()).items():
            cells = page.row(view, name)[1:]
            for key, cell in zip([*COLUMNS, "mse"], cells, strict=True):
                wanted = [result[key], *result[f"{key}_ci95"], *result[f"{key}_ci95_cpgs"]]
                assert numbers(cell) == [round(value, 3) for value in wanted if value is not None]
                assert ("–" in cell) == (result[key] is None)
    for name, _, mae, spearman in PUBLISHED:
        (cells,) = [cells for view, cells in page.rows if view == "published" and cells[0].startswith(name)]
        assert [float(cell) for cell in cells[1:3]] == [mae, spearman]
        assert {cell.strip() for cell in cells[3:]} == {"–"}


def test_differences_and_strata_are_those_of_their_files(page: Page, run: Path) -> None:
    table = pd.read_csv(run / "comparisons.csv").query("view == @HEADLINE and metric == 'mae'")
    shown = [cells for view, cells in page.rows if view == "comparisons"]
    assert [cells[0].split()[2] for cells in shown] == table["reference"].tolist()
    for cells, row in zip(shown, table.itertuples(), strict=True):
        assert numbers(cells[1])[:3] == [round(value, 3) for value in (row.difference, row.low, row.high)]
    table = pd.read_csv(run / "strata.csv").query("view == @HEADLINE and metric == 'mae'")
    shown = [cells for view, cells in page.rows if len(cells) == 8 and cells[1].strip() == "LevyJurgenson"]
    assert [cells[0].strip() for cells in shown] == table["group"].tolist()
    for cells, row in zip(shown, table.itertuples(), strict=True):
        assert numbers(cells[5]) == [round(value, 3) for value in (row.value, row.low, row.high) if np.isfinite(value)]


def test_page_says_what_was_run_on_which_data(page: Page, run: Path) -> None:
    split = json.loads((run / "split.json").read_text())
    for part, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        (cells,) = [cells for _, cells in page.rows if cells[0].strip() == name]
        assert [int(cell) for cell in cells[1:]] == [len(split["cpg"][part]), len(split["sample"][part])]
    data = json.loads((run / "data.json").read_text())
    assert data["provenance"]["settings"]["n_cpgs"] == data["n_cpgs"] == 120
    assert f"120 CpGs × {data['n_samples']} samples of 40 patients" in page.text
    assert "<code>n_drivers=2</code>" in page.text and "variant=3" in page.text
    usage = json.loads((run / "usage.json").read_text())
    (cells,) = [cells for _, cells in page.rows if cells[0].strip() == "LevyJurgenson" and len(cells) == 4]
    assert [float(cell) for cell in cells[1:]] == [usage["steps"], usage["train_seconds"], usage["peak_rss_gb"]]
    assert str(run.parents[1]) not in page.text  # where files lie is not told


def test_short_answer_sets_the_model_beside_what_it_must_beat(found: report_page.Results) -> None:
    scores = found.scores
    (sentence,) = in_short(scores, pd.DataFrame())
    assert sentence.startswith("LevyJurgenson: MAE ") and "expression_only" in sentence
    at = (scores["view"] == HEADLINE) & (scores["metric"] == "mas_pcc")
    for low, high, words in ((0.9, 0.95, "better"), (-0.9, -0.8, "worse"), (-1.0, 1.0, "overlap")):
        changed = scores.copy()
        changed.loc[at & scores["own"], ["value", "low", "high"]] = (low, low, high)
        changed.loc[at & (scores["model"] == "expression_only"), ["value", "low", "high"]] = (0.1, 0.0, 0.2)
        assert words in in_short(changed, pd.DataFrame())[0]
        paired = {"view": HEADLINE, "model": "LevyJurgenson", "reference": "expression_only", "metric": "mas_pcc"}
        paired |= {"difference": low, "low": low, "high": high, "p": 0.0001}
        assert f"{number(low)} to {number(high)}), p < 0.001" in in_short(changed, pd.DataFrame([paired]))[0]
        assert {"overlap": "no sign"}.get(words, words) in in_short(changed, pd.DataFrame([paired]))[0]


def test_cpg_scores_are_scipy_s(found: report_page.Results, run: Path) -> None:
    data = anndata.read_h5ad(run / f"predictions_{HEADLINE}.h5ad")
    scores = cpg_scores(data)
    measured_SC, predicted_SC = data.layers["measured"], data.X
    for c, row in enumerate(scores.itertuples()):
        there = np.isfinite(measured_SC[:, c])
        measured, predicted = measured_SC[there, c].astype(float), predicted_SC[there, c].astype(float)
        assert row.pearson == pytest.approx(stats.pearsonr(measured, predicted)[0], abs=1e-6)
        assert row.mae == pytest.approx(np.abs(measured - predicted).mean(), rel=1e-5)
        assert (row.measured_mean, row.measured_sd) == pytest.approx((measured.mean(), measured.std()), rel=1e-4)
        assert row.n == there.sum()
    assert found.cpgs["constant"]["pearson"].isna().all()
    assert np.median(scores["pearson"]) == pytest.approx(
        json.loads((run / "metrics.json").read_text())[HEADLINE]["mas_pcc"], abs=1e-6
    )


def test_best_and_worst_are_in_order_with_their_genes(found: report_page.Results, page: Page) -> None:
    best, worst = best_and_worst(found.cpgs["LevyJurgenson"], 3)
    ranked = found.cpgs["LevyJurgenson"]["pearson"].sort_values()
    assert best.index.tolist() == ranked.index[::-1][:3].tolist() and worst.index.tolist() == ranked.index[:3].tolist()
    few = found.cpgs["LevyJurgenson"].head(5)
    assert [len(part) for part in best_and_worst(few)] == [2, 2]  # no CpG is best and worst
    assert all(part.empty for part in best_and_worst(found.cpgs["constant"]))
    table = extremes(found, "LevyJurgenson")
    for row in table.itertuples():
        (cells,) = [cells for _, cells in page.rows if cells[0].strip() == row.cpg]
        assert cells[2].strip() == (row.nearest_gene or "none")
        assert numbers(cells[5]) == [round(row.pearson, 3)]


def test_figures_show_the_models(found: report_page.Results) -> None:
    figures = draw(found)
    models = [model.label for model in found.test_set.models]
    references = ["bilinear_ridge", "constant", "cpg_mean", "expression_only", "methylation_factors", "sequence_only"]
    assert models == ["LevyJurgenson", *references, "ceiling"]
    axes = figures["scores"].axes[0]
    assert [label.get_text().replace("\n", "") for label in axes.get_yticklabels()] == models
    assert len(figures["density"].axes) == 8 + 1  # seven models, an empty place, the colour scale
    lines = figures["training"].axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["LevyJurgenson", "sequence_only"]
    assert lines[0].get_xdata().tolist() == [1, 3, 5]
    words = " ".join(text.get_text() for text in figures["correlations"].axes[0].texts)
    assert words.count("not defined") == 3


def strata_table() -> pd.DataFrame:
    rows = []
    for by, groups in (("tss_distance", ("0-2 kb", "> 20 kb")), ("cohort", ("A", "B"))):
        for i, group in enumerate(groups):
            for metric, value in (("mae", 0.1 + i), ("mas_pcc", 0.3456 - i)):
                sizes = {"n_cpgs": 4321 + i, "n_samples": 5, "n_cells": 20}
                first = {"view": HEADLINE, "by": by, "group": group} | sizes
                rows.append(first | {"metric": metric, "value": value, "low": value - 0.01, "high": value + 0.02})
    return pd.DataFrame(rows)


def test_strata_and_comparisons_are_shown_where_they_are(copy: Path) -> None:
    for path in copy.rglob("strata.csv"):
        path.unlink()
    for folder in (copy, copy / "references" / "expression_only"):
        strata_table().to_csv(folder / "strata.csv", index=False)
    comparison = {"view": HEADLINE, "model": "LevyJurgenson", "reference": "constant", "metric": "mae"}
    comparison |= {"difference": -0.0776, "low": -0.091, "high": -0.0512, "p": 0.015}
    comparison |= {"low_cpgs": -0.1, "high_cpgs": -0.05, "p_cpgs": 0.004}
    pd.DataFrame([comparison]).to_csv(copy / "comparisons.csv", index=False)
    output = copy.parent / "page.html"
    folder = write_report(str(copy), output)
    assert "1_simulated_strata.png" in files(folder)
    page = Page(output)
    assert [section["id"] for section in page.all("section")] == SECTIONS
    (cells,) = [cells for view, cells in page.rows if view == "comparisons"]
    assert cells[0].strip() == "LevyJurgenson − constant" and [cell.strip() for cell in cells[2:]] == ["–", "–"]
    assert numbers(cells[1]) == [-0.078, -0.091, -0.051, 0.015, -0.1, -0.05, 0.004]
    cells = [cells for view, cells in page.rows if "nearest gene start" in (view or "") and "> 20 kb" in cells[0]]
    assert [row[1].strip() for row in cells] == ["LevyJurgenson", "expression_only"]
    assert [cell.strip() for cell in cells[1][2:5]] == ["4,322", "5", "20"]
    assert [numbers(cell) for cell in cells[1][5:]] == [[1.1, 1.09, 1.12], [], [-0.654, -0.664, -0.634]]


def test_several_runs_are_told_apart(copy: Path) -> None:
    folder = copy.parent
    shutil.copytree(copy, folder / "sweep" / "0")
    shutil.copytree(copy, folder / "sweep" / "1")
    edit(folder / "sweep" / "1", model__without=["sequence"], data__store="elsewhere.h5")
    moved = json.loads((copy / "split.json").read_text())
    moved["cpg"]["test"] = moved["cpg"]["test"][1:]
    (copy / "split.json").write_text(json.dumps(moved))
    edit(copy, seed=7, data__added_later=None)
    found = test_sets([read_run(path) for path in find_runs([str(folder / "run"), str(folder / "sw*")])])
    assert [one.name for one in found] == ["simulated, seed=7", "simulated, seed=0"]
    labels = [model.label for model in found[1].models]
    assert labels[:2] == ["LevyJurgenson, without=[]", "LevyJurgenson, without=[sequence]"]
    assert labels.count("constant") == 1 and labels[-1] == "ceiling"
    table = results(found[1])
    assert table.groupby(["view", "metric"])["model"].value_counts().max() == 1
    assert set(table["view"]) == set(TEST_VIEWS)
    edit(folder / "sweep" / "1", name="without_sequence")  # a name of its own says it
    (sweep,) = test_sets([read_run(path) for path in find_runs(str(folder / "sweep"))])
    assert [model.label for model in sweep.models[:2]] == [
        "LevyJurgenson, reproduce",
        "LevyJurgenson, without_sequence",
    ]
    # a reference that came out otherwise is another model
    path = folder / "sweep" / "1" / "references" / "constant" / "metrics.json"
    path.write_text(path.read_text().replace('"mae": 0.', '"mae": 0.0'))
    (sweep,) = test_sets([read_run(path) for path in find_runs(str(folder / "sweep"))])
    assert {"constant (1)", "constant (2)"} <= {model.label for model in sweep.models}


def test_one_command_draws_several_runs(copy: Path) -> None:
    shutil.rmtree(copy / "references")
    for name in ("strata.csv", "comparisons.csv"):  # not in every run
        (copy / name).unlink()
    shutil.copytree(copy, copy.parent / "other")
    edit(copy.parent / "other", data__name="a<b>")
    split = json.loads((copy / "split.json").read_text())
    (copy.parent / "other" / "split.json").write_text(json.dumps(split | {"sample": split["sample"] | {"val": []}}))
    (copy.parent / "other" / "data.json").unlink()  # as a run has it that is older
    shutil.rmtree(copy.parent / "other" / "log")
    result = command("report", ["runs=[run,other]"], copy.parent)
    assert result.status == 0, result.err
    page = Page(copy.parent / "report.html")
    assert "2 runs\non simulated; a&lt;b&gt;" in page.text and "<b>" not in page.text
    assert [part["id"] for part in page.all("section")] == [n for n in SECTIONS if n not in ("strata", "comparisons")]
    assert "No model of these runs was trained step by step" in page.text


def test_page_lies_beside_the_runs(run: Path, tmp_path: Path) -> None:
    assert beside([str(run)]) == run / "report.html"
    assert beside([str(run.parent)]) == run.parent / "report.html"
    shutil.copytree(run, tmp_path / "a" / "x")
    shutil.copytree(run, tmp_path / "b")
    assert beside([str(tmp_path / "a" / "*"), str(tmp_path / "b")]) == tmp_path / "report.html"


def test_a_reference_is_no_run_of_its_own(run: Path) -> None:
    with pytest.raises(InputError, match=r"references/constant/config\.yaml: no such file"):
        find_runs(str(run / "references" / "constant"))
    assert find_runs([str(run.parent), str(run)]) == [run]


def test_two_ceilings_have_no_predictions_either(copy: Path) -> None:
    other = copy.parent / "other"
    shutil.copytree(copy, other)
    path = other / "references" / "ceiling" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics[HEADLINE]["mae_ci95"] = [0.0, 1.0]  # as from another seed of the bootstrap
    for key in ("pearson", "pearson_ci95", "pearson_ci95_cpgs"):
        del metrics[HEADLINE][key]  # as from an older version
    path.write_text(json.dumps(metrics))
    (found,) = gather([str(copy), str(other)])
    ceilings = [model.label for model in found.test_set.models if model.folder.name == "ceiling"]
    assert len(ceilings) == 2 and not set(ceilings) & set(found.cells)
    page = copy.parent / "both.html"
    write_report([str(copy), str(other)], page)
    shown = [cells for view, cells in Page(page).rows if view == HEADLINE and cells[0].strip() in ceilings]
    assert [cells[4].strip() == "–" for cells in shown] == [False, True]


def test_a_run_of_a_version_without_a_metric_is_read(copy: Path) -> None:
    new = "mas_pcc_centred"
    assert new in set(results(test_sets([read_run(copy)])[0])["metric"])
    for path in copy.rglob("metrics.json"):
        views = json.loads(path.read_text())
        kept = {view: {key: value for key, value in found.items() if new not in key} for view, found in views.items()}
        path.write_text(json.dumps(kept))
    for path in [*copy.rglob("strata.csv"), copy / "comparisons.csv"]:
        table = pd.read_csv(path)
        table[table["metric"] != new].to_csv(path, index=False)
    output = copy.parent / "page.html"
    write_report(str(copy), output)
    (header,) = [
        cells for _, cells in Page(output).rows if cells[:2] == ["Model ", "MAE "] and "Spearman, by 50 " in cells
    ]
    assert HEADINGS[new] not in {cell.strip() for cell in header} and HEADINGS["mas_pcc"] in {c.strip() for c in header}
    (sentence,) = in_short(results(test_sets([read_run(copy)])[0]), pd.DataFrame())
    assert "centred" not in sentence
