"""Runs that differ in their seeds alone: one row a model, with means, deviations and intervals on two levels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report import Page, edit, numbers

from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.data.texts import SUMS
from methyl_lightning.evaluate.comparisons import FILE, read_bootstrap
from methyl_lightning.metrics.bootstrap import interval, over_seeds
from methyl_lightning.report.page import gather, write_report
from methyl_lightning.report.runs import find_runs, read_run
from methyl_lightning.report.seeds import gather_seeds, seeds_of

SHIFTS = {0: 0.0, 1: 0.02, 2: 0.07}


def shift(folder: Path, by: float) -> None:
    """Change a model's MAE everywhere, as another seed might."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    for values in metrics.values():
        values["mae"] += by
    path.write_text(json.dumps(metrics))
    with np.load(folder / FILE) as arrays:
        changed = {key: arrays[key] + by if "/mae/" in key else arrays[key] for key in arrays}
    np.savez_compressed(folder / FILE, allow_pickle=False, **changed)


@pytest.fixture(scope="module")
def sweep(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a sweep over three seeds out of one run."""
    folder = tmp_path_factory.mktemp("seeds") / "sweep"
    for seed, by in SHIFTS.items():
        run = folder / str(seed)
        shutil.copytree(workplace / "run", run, ignore=shutil.ignore_patterns("*.ckpt", "figures", ".hydra", SUMS))
        edit(run, seed=seed, data__split_seed=0)
        shift(run, by)
    return folder


def test_runs_of_several_seeds_are_one(sweep: Path) -> None:
    (found,) = gather(str(sweep))
    table = found.scores.set_index(["view", "model", "metric"])
    row = table.loc[(HEADLINE, "LevyJurgenson", "mae")]
    values = [json.loads((sweep / str(seed) / "metrics.json").read_text())[HEADLINE]["mae"] for seed in SHIFTS]
    assert (row["value"], row["sd"], row["n_runs"]) == pytest.approx((np.mean(values), np.std(values, ddof=1), 3))
    cells, runs = zip(*(read_bootstrap(sweep / str(seed))[HEADLINE, "mae"] for seed in SHIFTS), strict=True)
    mean = over_seeds(runs, cells)
    assert (row["low"], row["high"]) == interval(mean.value, mean.patients_R)[1:]
    assert (row["low_cpgs"], row["high_cpgs"]) == interval(mean.value, mean.cpgs_R)[1:]
    assert row["low"] < interval(runs[0].value, runs[0].patients_R).low + 0.03 < row["high"]
    alone = table.loc[(HEADLINE, "constant", "mae")]  # the same in every run
    single = json.loads((sweep / "0" / "references" / "constant" / "metrics.json").read_text())[HEADLINE]
    assert (alone["value"], alone["sd"]) == pytest.approx((single["mae"], 0))
    assert (alone["low"], alone["high"]) == pytest.approx(single["mae_ci95"], abs=0.003)
    assert np.isnan(table.loc[(HEADLINE, "constant", "spearman")][["value", "sd", "low"]].astype(float)).all()
    differences = found.comparisons.set_index(["view", "reference", "metric"])
    paired = differences.loc[(HEADLINE, "constant", "mae")]
    assert paired["difference"] == pytest.approx(np.mean(values) - single["mae"])
    one = pd.read_csv(sweep / "0" / "comparisons.csv").set_index(["view", "reference", "metric"])
    narrow = one.loc[(HEADLINE, "constant", "mae")]
    assert paired["high"] - paired["low"] > narrow["high"] - narrow["low"]


def test_the_page_says_how_many_seeds_there_are(sweep: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    write_report(str(sweep), output)
    page = Page(output)
    (found,) = gather(str(sweep))
    row = found.scores.set_index(["view", "model", "metric"]).loc[(HEADLINE, "LevyJurgenson", "mae")]
    wanted = row[["value", "sd", "low", "high", "low_cpgs", "high_cpgs"]].astype(float).round(3).tolist()
    assert numbers(page.row(HEADLINE, "LevyJurgenson")[1]) == wanted
    assert "<p>3 runs\non simulated" in page.text and "LevyJurgenson, mean of 3 seeds: MAE" in page.text
    assert f"Standard deviation over seeds: MAE {row['sd']:.3f}" in page.text
    (cells,) = [cells for _, cells in page.rows if cells[0].strip() == "LevyJurgenson" and "variant=" in cells[1]]
    assert cells[2].strip() == "0, 1, 2" and cells[5].strip() == "sweep/0, sweep/1, sweep/2"
    assert page.text.count("Shown is the run with seed 0") == 5  # not for the data: the split is shared
    (single,) = gather(str(sweep / "0"))
    assert single.scores["sd"].isna().all() and set(single.scores["n_runs"]) == {1}


def test_what_differs_otherwise_stays_apart(sweep: Path, tmp_path: Path) -> None:
    for seed in SHIFTS:
        shutil.copytree(sweep / str(seed), tmp_path / str(seed))
    runs = [read_run(folder) for folder in find_runs(str(tmp_path))]
    (one,) = gather_seeds(runs[::-1])
    assert [seeds_of(run) for run in one.repeats] == [(0, 0), (1, 0), (2, 0)] and one.folder == tmp_path / "0"
    edit(tmp_path / "2", data__split_seed=None)
    assert seeds_of(read_run(tmp_path / "2")) == (2, 2)
    assert len(gather_seeds([read_run(folder) for folder in find_runs(str(tmp_path))])) == 1
    edit(tmp_path / "2", model__without=["sequence"])
    edit(tmp_path / "1", seed=0)  # the very same settings as the first
    again = gather_seeds([read_run(folder) for folder in find_runs(str(tmp_path))])
    assert [len(run.repeats) for run in again] == [0, 0, 0]
