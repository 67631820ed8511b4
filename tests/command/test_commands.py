"""The commands as a person types them: from raw settings to a tested model, and every wrong word in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SIZES, SMALL, command, files
from omegaconf import OmegaConf

from methyl_lightning.data.splits import TEST_VIEWS, load_split
from methyl_lightning.data.store import Store

METRICS = ("mae", "mse", "pearson", "spearman", "spearman_batch50", "mas_pcc", "mas_pcc_centred", "mac_pcc")
SIDES = ("ci95", "ci95_cpgs")
MODELS = (
    "LevyJurgenson",
    "bilinear_ridge",
    "constant",
    "cpg_mean",
    "expression_only",
    "methylation_factors",
    "sequence_only",
    "ceiling",
)
RUN_FILES = {
    "config.yaml",
    "split.json",
    "best.ckpt",
    "last.ckpt",
    "metrics.json",
    "data.json",
    "table.md",
    "usage.json",
    "strata.csv",
    "bootstrap.npz",
    "comparisons.csv",
    "figures/training_curves.png",
    "figures/predicted_against_measured_test_cpg-test_sample.png",
    *(f"predictions_{view}.h5ad" for view in TEST_VIEWS),
}


@pytest.fixture(scope="module")
def store(workplace: Path) -> Store:
    return Store(workplace / "stores" / "simulated.h5")


def metrics_of(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "metrics.json").read_text())


def table_of(folder: Path) -> list[list[str]]:
    lines = (folder / "table.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_prepare_says_what_the_store_holds(workplace: Path, store: Store) -> None:
    said = (workplace / "prepare.out").read_text()
    assert f"stores/simulated.h5: 120 CpGs × {len(store.samples)} samples, 40 genes, window 100" in said
    assert files(workplace / "stores") == {"simulated.h5", "simulated.truth.h5"}
    settings = store.attributes["provenance"]["settings"]
    assert {name: settings[name] for name in SIZES} == SIZES


def test_run_folder_holds_everything(workplace: Path) -> None:
    assert files(workplace / "run") >= RUN_FILES
    assert not [name for name in files(workplace) if name.endswith(".part")]
    for file in ("metrics.json", "strata.csv", "bootstrap.npz"):
        assert {f"references/{name}/{file}" for name in MODELS[1:]} <= files(workplace / "run")
    config = OmegaConf.load(workplace / "run" / "config.yaml")
    assert config.data.block == [24, 20] and config.data.source.n_cpgs == 120
    assert OmegaConf.missing_keys(config) == set()
    assert "Traceback" not in (workplace / "train.err").read_text()


def test_training_shows_its_way(workplace: Path) -> None:
    lines = (workplace / "train.err").read_text().splitlines()
    for name in ("LevyJurgenson", "sequence_only"):
        shown = [line for line in lines if line.startswith(f"{name}: step ")]
        assert [line.split()[2] for line in shown] == ["2/6,", "4/6,", "6/6,"]
        assert all("steps/s" in line and "left" in line and "MAE" in line and "Spearman" in line for line in shown)
    log = (workplace / "run" / "log" / "0" / "metrics.csv").read_text().splitlines()
    assert {"step", "train/mae", "val/mae", "val/spearman"} <= set(log[0].split(","))


def test_metrics_have_sizes_values_and_intervals(workplace: Path, store: Store) -> None:
    split = load_split(workplace / "run" / "split.json", store)
    for name in MODELS:
        folder = workplace / "run" if name == "LevyJurgenson" else workplace / "run" / "references" / name
        results = metrics_of(folder)
        assert set(results) == set(TEST_VIEWS)
        for view, result in results.items():
            cpg_C, sample_S = split.view(view)
            beta_CS = store.beta(cpg_C, sample_S)
            assert (result["n_cpgs"], result["n_samples"]) == (len(cpg_C), len(sample_S))
            assert result["n_pairs"] == np.isfinite(beta_CS).sum()
            assert set(result) == {
                "n_cpgs",
                "n_samples",
                "n_pairs",
                *METRICS,
                *(f"{key}_{side}" for key in METRICS for side in SIDES),
            }
            for key in ("mae", "mse"):
                low, high = result[f"{key}_ci95"]
                assert 0 < low <= result[key] <= high < 1 and low < high
            assert (result["spearman"] is None) == (name == "constant")


def test_predictions_are_what_the_metrics_were_taken_from(workplace: Path, store: Store) -> None:
    results, split = metrics_of(workplace / "run"), load_split(workplace / "run" / "split.json", store)
    for view in TEST_VIEWS:
        data = anndata.read_h5ad(workplace / "run" / f"predictions_{view}.h5ad")
        cpgs, samples = store.cpgs.iloc[split.view(view)[0]], store.samples.iloc[split.view(view)[1]]
        assert data.obs_names.tolist() == samples["id"].tolist()
        assert data.var_names.tolist() == cpgs["id"].tolist()
        assert data.obs["patient"].tolist() == samples["patient"].tolist()
        assert data.var["chrom"].tolist() == cpgs["chrom"].tolist()
        assert data.var["position"].tolist() == cpgs["position"].tolist()
        measured = data.layers["measured"]
        np.testing.assert_array_equal(measured.T, store.beta(*split.view(view)))
        assert np.isfinite(data.X).all()
        error = (data.X - measured)[np.isfinite(measured)]
        assert results[view]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
        assert results[view]["mse"] == pytest.approx(np.square(error).mean(), rel=1e-5)
        assert results[view]["mas_pcc"] == pytest.approx(np.nanmedian(data.var["pearson"]), rel=1e-12)
        assert results[view]["mac_pcc"] == pytest.approx(np.nanmedian(data.obs["pearson"]), rel=1e-12)


def test_strata_are_parts_of_the_views(workplace: Path, store: Store) -> None:
    results = metrics_of(workplace / "run")
    table = pd.read_csv(workplace / "run" / "strata.csv")
    names = ["view", "by", "group", "n_cpgs", "n_samples", "n_cells", "metric", "value", "low", "high"]
    assert table.columns.tolist() == names
    assert set(table["metric"]) == set(METRICS) - {"spearman_batch50"}
    for view, result in results.items():
        mae = table[(table["view"] == view) & (table["metric"] == "mae")]
        assert set(mae["by"]) == {"tss_distance", "island", "variance", "cohort"}
        for _, rows in mae.groupby("by"):  # every measured cell stands in one group
            assert rows["n_cells"].sum() == result["n_pairs"]
            assert (rows["value"] @ rows["n_cells"]) / result["n_pairs"] == pytest.approx(result["mae"], rel=1e-6)


def test_references_are_compared_with_the_model(workplace: Path) -> None:
    table = pd.read_csv(workplace / "run" / "comparisons.csv")
    assert set(table["reference"]) == set(MODELS[1:-1]) and set(table["model"]) == {"LevyJurgenson"}
    ours = metrics_of(workplace / "run")
    for row in table.itertuples():
        theirs = metrics_of(workplace / "run" / "references" / str(row.reference))
        expected = ours[str(row.view)][str(row.metric)] - theirs[str(row.view)][str(row.metric)]
        assert row.difference == pytest.approx(expected, abs=1e-9)
        assert 0 < row.p <= 1 and row.low <= row.high
    said = (workplace / "train.out").read_text()
    assert "differences on test_cpg-test_sample (p over patients; over CpGs; all in comparisons.csv):" in said
    assert said.count("  LevyJurgenson − ") == len(MODELS) - 2
    assert "split: 96 train + 12 val + 12 test CpGs, 34 train" in said


def test_chromosomes_are_held_out(elsewhere: Path) -> None:
    overrides = [*SMALL, "model=constant", "data.cpg_split=chromosome", "data.most_variable=100", "hydra.run.dir=new"]
    result = command("train", overrides, elsewhere)
    assert result.status == 0, result.err
    assert "120 store, 120 eligible, 100 most variable, divided by chromosome, val: chr" in result.out
    split = load_split(elsewhere / "new" / "split.json", Store(elsewhere / "stores" / "simulated.h5"))
    held_out = set(split.how["chromosomes"]["val"] + split.how["chromosomes"]["test"])
    assert not held_out & set(split.how["chromosomes"]["train"])
    checkpoint = torch.load(elsewhere / "new" / "best.ckpt", weights_only=True)
    assert checkpoint["methyl_lightning"]["provenance"]["split"] == split.how
    assert sum(checkpoint["methyl_lightning"]["provenance"]["sizes"]["cpg"].values()) == 100


def test_figures_are_pictures(workplace: Path) -> None:
    paths = list((workplace / "run" / "figures").iterdir())
    assert len(paths) == 2
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[0] > 300 and pixels.shape[1] > 800
        assert len(np.unique(pixels[..., 1])) > 50
        assert pixels[..., :3].mean() > 0.5  # mostly paper


def test_table_has_model_references_ceiling_and_published(workplace: Path) -> None:
    header, rule, *rows = table_of(workplace / "run")
    assert header[:5] == ["view", "model", "cohort", "MAE", "Spearman"] and set(rule) == {"---"}
    ours, published = rows[:-3], rows[-3:]
    assert [(row[0], row[1]) for row in ours] == [(view, name) for view in reversed(TEST_VIEWS) for name in MODELS]
    for view, name, cohort, mae, spearman, *_ in ours:
        folder = workplace / "run" if name == "LevyJurgenson" else workplace / "run" / "references" / name
        result = metrics_of(folder)[view]
        assert cohort == "simulated"
        assert float(mae.split()[0]) == pytest.approx(result["mae"], abs=5e-4)
        assert (spearman == "–") if name == "constant" else (float(spearman.split()[0]) <= 1)
    assert [row[3:5] for row in published] == [["0.14", "0.8"], ["0.173", "0.74"], ["0.167", "0.742"]]
    assert all(row[0] == "published" and "TCGA" in row[2] for row in published)
    said = (workplace / "train.out").read_text()
    assert "ceiling" in said and "PyTorch port" in said and f"run folder: {workplace / 'run'}" in said


def test_nothing_beats_the_ceiling(workplace: Path) -> None:
    best = metrics_of(workplace / "run" / "references" / "ceiling")
    for name in ("constant", "sequence_only"):
        result = metrics_of(workplace / "run" / "references" / name)
        assert all(best[view]["mae"] < result[view]["mae"] for view in TEST_VIEWS)
    assert all(best[view]["spearman"] > 0.6 for view in TEST_VIEWS)


def test_evaluate_finds_the_metrics_of_training_again(workplace: Path, elsewhere: Path) -> None:
    result = command("evaluate", ["checkpoint=run/best.ckpt", "hydra.run.dir=again"], elsewhere)
    assert result.status == 0, result.err
    assert metrics_of(elsewhere / "again") == metrics_of(workplace / "run")
    assert {"config.yaml", "split.json", "data.json"} <= files(elsewhere / "again")  # a run folder like any other
    rows = table_of(elsewhere / "again")
    assert [row for row in rows if row[1] in ("LevyJurgenson", "ceiling") or row[0] == "published"] == [
        row for row in table_of(workplace / "run") if row[1] in ("LevyJurgenson", "ceiling") or row[0] == "published"
    ]
    for view in TEST_VIEWS:
        again, first = (
            anndata.read_h5ad(folder / f"predictions_{view}.h5ad")
            for folder in (elsewhere / "again", workplace / "run")
        )
        np.testing.assert_array_equal(again.X, first.X)
    assert "figures/predicted_against_measured_test_cpg-test_sample.png" in files(elsewhere / "again")


def test_evaluate_another_copy_of_the_store(elsewhere: Path) -> None:
    (elsewhere / "stores").rename(elsewhere / "moved")
    overrides = [
        "checkpoint=run/last.ckpt",
        "store=moved/simulated.h5",
        "split_file=run/split.json",
        "hydra.run.dir=again",
    ]
    assert command("evaluate", overrides, elsewhere).status == 0
    assert metrics_of(elsewhere / "again").keys() == set(TEST_VIEWS)


def test_train_makes_the_store_and_runs_offline_without_a_key(tmp_path: Path) -> None:
    overrides = [*SMALL, "model=sequence_only", "logger=wandb", "trainer.max_steps=2", "hydra.run.dir=run"]
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "WANDB_API_KEY": ""}
    result = command("train", overrides, tmp_path, **environment)
    assert result.status == 0, result.err
    assert files(tmp_path / "stores") == {"simulated.h5", "simulated.truth.h5"}
    assert "preparing stores/simulated.h5" in result.out
    said = [line for line in result.out.splitlines() if "wandb sync" in line]
    assert len(said) == 1
    folder = Path(said[0].split("wandb sync ")[1])
    assert list(folder.glob("*.wandb")) and tmp_path in folder.parents
    logged = {path.name.rsplit("_", 2)[0]: path for path in (folder / "files" / "media").rglob("*.*")}
    assert {"scores", "density", "correlations", "calibration", "training", "results"} <= set(logged)
    table = json.loads(logged["results"].read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    (row,) = [r for r in rows if (r["view"], r["model"], r["metric"]) == (TEST_VIEWS[-1], "SequenceOnly", "mae")]
    assert row["value"] == metrics_of(tmp_path / "run")[TEST_VIEWS[-1]]["mae"]
    assert {"metrics.json", "best.ckpt"} <= files(tmp_path / "run")
    assert {row[1] for row in table_of(tmp_path / "run")[2:-3]} == {"SequenceOnly", "ceiling"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prepare", ["data: ", "simulated", "tcga_xena", "upstream", "data.store=FILE", "data.source.window="]),
        (
            "train",
            [
                "model: ",
                "levy_jurgenson",
                "trainer: ddp, default",
                "logger: csv, wandb",
                "trainer.max_steps=",
                "data.block=",
                "model.variant=",
                "ckpt_path=FILE",
                "seed=0",
                "+experiment=NAME",
                "experiment: ",
            ],
        ),
        ("evaluate", ["checkpoint=FILE", "split_file=FILE", "hydra.run.dir=FOLDER"]),
    ],
)
def test_help_shows_groups_and_settings(tmp_path: Path, name: str, words: list[str]) -> None:
    result = command(name, ["--help"], tmp_path)
    assert (result.status, result.err) == (0, "")
    assert f"usage: python -m methyl_lightning.{name}" in result.out
    for word in words:
        assert word in result.out
    assert files(tmp_path) == set()


def test_options_of_lightning_do_what_its_users_expect(elsewhere: Path) -> None:
    overrides = [*SMALL, "+model@references.constant=constant"]
    result = command("train", [*overrides, "hydra.run.dir=quick", "+trainer.fast_dev_run=true"], elsewhere)
    assert result.status == 0, result.err
    assert "LevyJurgenson: fast_dev_run has trained and validated on 1 block(s); nothing is kept" in result.out
    assert not [name for name in files(elsewhere / "quick") if name.endswith((".ckpt", ".h5ad", "metrics.json"))]
    epoch = ["trainer.max_steps=-1", "trainer.max_epochs=1", "hydra.run.dir=epoch"]
    result = command("train", [*overrides, *epoch], elsewhere)
    assert result.status == 0, result.err
    steps = [line.split()[2] for line in result.err.splitlines() if line.startswith("LevyJurgenson: step ")]
    assert steps == ["2/8,", "4/8,", "6/8,", "8/8,"] and "-" not in "".join(steps)


@pytest.mark.parametrize(("reader", "flushing"), [("head -n 1", "1"), ("true", "")])
def test_a_reader_that_stops_early_is_no_error(elsewhere: Path, reader: str, flushing: str) -> None:
    (elsewhere / "matplotlibrc").write_text("font.family: Nowhere Sans\n")  # a font that no machine has
    shown = f"{sys.executable} -m methyl_lightning.prepare check=stores/simulated.h5 | {reader}"
    environment = os.environ | {"PYTHONUNBUFFERED": flushing, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", shown], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("stores/simulated.h5" if reader != "true" else "")
