"""Comparisons from what models leave in their folders. Axis letters: C CpGs, S samples."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import grids

from methyl_lightning.evaluate.comparisons import (
    COLUMNS,
    cells_key,
    compare,
    compare_references,
    comparison_lines,
    save_bootstrap,
)
from methyl_lightning.files import InputError
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics.bootstrap import bootstrap_grid, difference

VIEW = "test_cpg-test_sample"
PATIENTS = np.arange(24).astype(str)


def leave(folder: Path, measured_CS: np.ndarray, predicted_CS: np.ndarray, seed: int = 0) -> None:
    found = bootstrap_grid(measured_CS, predicted_CS, PATIENTS, seed, n_resamples=100)
    folder.mkdir(parents=True)
    save_bootstrap(folder, {VIEW: found}, {VIEW: cells_key(measured_CS, PATIENTS, seed)})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    measured_CS, predicted_CS = grids()
    rng = np.random.default_rng(0)
    worse_CS = predicted_CS + 0.1 * rng.normal(size=predicted_CS.shape).astype(np.float32)
    leave(tmp_path / "run", measured_CS, predicted_CS)
    leave(tmp_path / "run" / "references" / "worse", measured_CS, worse_CS)
    leave(tmp_path / "run" / "references" / "flat", measured_CS, np.full_like(predicted_CS, 0.5))
    leave(tmp_path / "run" / "references" / "ceiling", measured_CS, predicted_CS)
    return tmp_path / "run"


def test_references_are_compared_and_written(run: Path) -> None:
    table = compare_references(run, "Ours")
    read = pd.read_csv(run / "comparisons.csv")
    assert tuple(read.columns) == COLUMNS and len(read) == len(table) == 8 + 2
    assert set(read["model"]) == {"Ours"} and set(read["view"]) == {VIEW}
    assert read[read["reference"] == "flat"]["metric"].tolist() == ["mae", "mse"]  # the others are not defined
    measured_CS, predicted_CS = grids()
    rng = np.random.default_rng(0)
    worse_CS = predicted_CS + 0.1 * rng.normal(size=predicted_CS.shape).astype(np.float32)
    ours, theirs = (bootstrap_grid(measured_CS, grid_CS, PATIENTS, 0, 100) for grid_CS in (predicted_CS, worse_CS))
    for row in read[read["reference"] == "worse"].itertuples():
        name = str(row.metric)
        values = ours[name].value, theirs[name].value
        found = difference(*values, ours[name].patients_R, theirs[name].patients_R)
        np.testing.assert_allclose([row.difference, row.low, row.high, row.p], found, atol=1e-6)
        found = difference(*values, ours[name].cpgs_R, theirs[name].cpgs_R)
        np.testing.assert_allclose([row.low_cpgs, row.high_cpgs, row.p_cpgs], found[1:], atol=1e-6)
        assert values[0] == getattr(metrics, name)(measured_CS, predicted_CS)
    lines = comparison_lines(table, VIEW)
    assert len(lines) == 3 and VIEW in lines[0]
    assert lines[1].startswith("  Ours − flat: MAE -0.") and "Spearman" not in lines[1]
    assert (
        lines[2].startswith("  Ours − worse: MAE -0.") and "Spearman +0." in lines[2] and "(p 0.02; 0.02)" in lines[2]
    )
    assert comparison_lines(table, "another view") == []


def test_a_run_without_references_writes_nothing(tmp_path: Path) -> None:
    leave(tmp_path / "run", *grids())
    assert compare_references(tmp_path / "run", "Ours").empty
    assert not (tmp_path / "run" / "comparisons.csv").exists()
    assert comparison_lines(compare_references(tmp_path / "run", "Ours"), VIEW) == []


def test_only_like_is_compared_with_like(run: Path, tmp_path: Path) -> None:
    measured_CS, predicted_CS = grids()
    leave(tmp_path / "seed", measured_CS, predicted_CS, seed=1)
    changed_CS = measured_CS.copy()
    changed_CS[0, 0] = np.nan if np.isfinite(changed_CS[0, 0]) else 0.5
    leave(tmp_path / "cells", changed_CS, predicted_CS)
    leave(tmp_path / "again", measured_CS, predicted_CS)
    for other in ("seed", "cells"):
        with pytest.raises(
            InputError, match=rf"{other}: was not tested on the cells of .*run.*same store, split and seed"
        ):
            compare(run, tmp_path / other)
    assert (compare(run, tmp_path / "again")["difference"] == 0).all()
    with pytest.raises(InputError, match=r"bootstrap\.npz: no such file; test the model again"):
        compare(run, tmp_path / "nowhere")


def test_a_metric_that_an_older_version_lacks_is_left_out(run: Path, tmp_path: Path) -> None:
    leave(tmp_path / "older", *grids())
    path = tmp_path / "older" / "bootstrap.npz"
    with np.load(path) as arrays:
        kept = {key: arrays[key] for key in arrays if "mas_pcc_centred" not in key}
    np.savez_compressed(path, allow_pickle=False, **kept)
    assert "mas_pcc_centred" in set(compare(run, run / "references" / "worse")["metric"])
    table = compare(run, tmp_path / "older")
    assert len(table) == 7 and "mas_pcc_centred" not in set(table["metric"])
