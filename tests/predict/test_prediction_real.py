"""A model of a public cohort predicts real sections and real cells, and its own cohort as its test did."""

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import assert_refused, command

from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.predict import predict

DATA = Path(os.environ.get("METHYL_LIGHTNING_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")).resolve()
MODEL = "tcga_brca_hm27"

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the closed-form network on a public cohort."""
    if not (DATA / MODEL).is_dir():
        pytest.skip(f"{DATA / MODEL} is not there; METHYL_LIGHTNING_DATA names the folder of the public cohorts")
    folder = tmp_path_factory.mktemp("real")
    overrides = [f"data={MODEL}", f"raw={DATA}", "model=bilinear_ridge", "hydra.run.dir=run"]
    result = command("train", overrides, folder)
    assert result.status == 0, result.err
    return folder / "run"


def test_cohort_is_predicted_as_in_its_test(run: Path) -> None:
    data = predict(run / "best.ckpt", DATA / MODEL / "HiSeqV2.gz", match="none")
    assert data.uns["methyl_lightning"]["units"] == "log2"
    for view in TEST_VIEWS:
        tested = anndata.read_h5ad(run / f"predictions_{view}.h5ad")
        found = data[tested.obs_names, tested.var_names]
        np.testing.assert_allclose(found.X, np.clip(tested.X, 0, 1), atol=1e-4)


def test_section_is_predicted_at_positions_of_a_genome(run: Path, tmp_path: Path) -> None:
    probes = pd.read_parquet(DATA / "annotation" / "hm450_probe_annotation_hg19.parquet")
    known = probes[
        (probes["chr_hg19"] == "chr22") & (probes["pos_hg19"] < 21_999_000) & ~probes["probe"].str.match("ch|rs")
    ]
    bed = [f"{p.chr_hg19}\t{p.pos_hg19 - 1}\t{p.pos_hg19 + 1}\t{p.probe}" for p in known.itertuples()]
    (tmp_path / "cpgs.bed").write_text("\n".join(bed) + "\n")
    section = DATA / "her2st" / "A1.h5ad"
    overrides = [f"checkpoint={run / 'best.ckpt'}", f"expression={section}", "cpgs=cpgs.bed", "output=methylation.h5ad"]
    overrides += [f"genome={DATA / 'annotation' / 'hg19_chr22_1-22000000.fa.gz'}", "groupby=pathologist_label"]
    assert_refused(command("predict", overrides, tmp_path), "1 of 346 samples ('11x17'", "skip_empty=true")
    overrides.append("skip_empty=true")
    result = command("predict", overrides, tmp_path)
    assert result.status == 0, result.err
    assert "units: counts (all values are whole numbers)" in result.out
    data, spots = anndata.read_h5ad(tmp_path / "methylation.h5ad"), anndata.read_h5ad(section)
    assert data.shape == (len(spots), len(known)) and (data.var["chrom"] == "chr22").all()
    np.testing.assert_array_equal(data.obsm["spatial"], spots.obsm["spatial"])
    assert data.obs["pathologist_label"].tolist() == spots.obs["pathologist_label"].tolist()
    empty = np.isnan(data.X).any(axis=1)
    assert empty.sum() == 1 and f"samples: {empty.sum()} have no expression" in result.out
    predicted = data.X[~empty]
    assert predicted.min() >= 0 and predicted.max() <= 1 and predicted.std(axis=0).min() > 0
    means = pd.read_csv(tmp_path / "methylation_by_pathologist_label" / "means.tsv", sep="\t", index_col="cpg")
    invasive = predicted[(data.obs["pathologist_label"] == "invasive cancer").to_numpy()[~empty]].mean(axis=0)
    np.testing.assert_allclose(means["invasive cancer"], invasive, atol=1e-5)


def test_cells_of_an_old_file_are_read_from_raw(run: Path, tmp_path: Path) -> None:
    overrides = [f"checkpoint={run / 'best.ckpt'}", f"expression={DATA / 'pbmc68k_reduced.h5ad'}", "output=cells.h5ad"]
    assert_refused(command("predict", overrides, tmp_path), "below min_coverage=0.5")
    scaled = command("predict", [*overrides, "min_coverage=0.01"], tmp_path)
    assert_refused(scaled, "is below 0: scaled or centred values", "raw=true")
    assert not list(tmp_path.iterdir())
    result = command("predict", [*overrides, "min_coverage=0.01", "raw=true"], tmp_path)
    assert result.status == 0, result.err
    assert "units: log1p (undone, the values are counts, or multiples" in result.out
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").obs["bulk_labels"].nunique() == 10


def test_spots_are_on_the_level_of_the_cohort_by_quantiles(run: Path) -> None:
    section = anndata.read_h5ad(DATA / "her2st" / "D1.h5ad")
    predicted = {}
    for match in ("library", "quantile"):
        data = predict(run / "best.ckpt", section, match=match)
        assert data.shape == (306, 465) and (data.X.std(axis=0) > 0).all()
        predicted[match] = abs(data.X.mean() - data.var["training_mean"].mean())
    assert predicted["quantile"] < 0.1 < predicted["library"]  # the zeros of shallow spots lie outside the training
    around = predict(run / "best.ckpt", section, match="quantile", aggregate="spatial", k=8)
    assert 0 < np.median(around.X.std(axis=0)) < 0.1 and not np.array_equal(around.X, data.X)
