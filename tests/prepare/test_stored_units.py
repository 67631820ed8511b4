"""Whatever the units of a table: one store, one model, and prediction of a training sample as the model's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TRAINER, assert_refused, command
from raw_tables import make_cohort, write_cohort, write_table

from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.predict import predict

RNG = np.random.default_rng(0)
N_SAMPLES, N_GENES, N_CPGS = 40, 30, 24
SAMPLES = [f"TCGA-AA-{s:04d}-01" for s in range(N_SAMPLES)]
GENES = [f"GENE{g}" for g in range(N_GENES)]
COUNTS_GS = RNG.poisson(RNG.gamma(0.5, 2_000, (N_GENES, 1)) * RNG.gamma(5, 0.2, (1, N_SAMPLES)))
COUNTS_GS[3, ::2] = 0
CPM_GS = COUNTS_GS / COUNTS_GS.sum(axis=0) * 1e6
LOG2_GS = np.log2(CPM_GS + 1)
TABLES = {
    "counts": (COUNTS_GS, "counts", "log2(cpm+1)"),
    "tpm": (CPM_GS, "cpm", "log2(norm+1)"),
    "log2": (LOG2_GS, "log2", "log2(norm+1)"),
    "toil": (np.log2(CPM_GS + 0.001), "log2(x+0.001)", "log2(norm+1)"),
    "natural": (np.log1p(CPM_GS / 100), "log1p", "log2(norm+1)"),
}


def write(folder: Path, values_GS: np.ndarray, **more: np.ndarray) -> dict[str, Path]:
    """Write a cohort with such an expression, and rows that are no genes."""
    files = write_cohort(folder)
    cpgs = [f"cg{c:08d}" for c in range(N_CPGS)]
    beta = pd.DataFrame(RNG.random((N_CPGS, N_SAMPLES)).round(3), cpgs, SAMPLES)
    beta.to_csv(files["methylation"], sep="\t", index_label="sample")
    table = pd.concat(
        [pd.DataFrame(row[None], [name], SAMPLES) for name, row in more.items()]
        + [pd.DataFrame(values_GS, GENES, SAMPLES)]
    )
    table.to_csv(files["expression"], sep="\t", index_label="sample")
    places = [[cpg, "chr1", str(1_000 * (c + 1)), "."] for c, cpg in enumerate(cpgs)]
    write_table(files["probe_map"], [["id", "chrom", "chromStart", "strand"], *places])
    genes = [[gene, "chr1", str(900 * (g + 1)), str(900 * (g + 1) + 50), "+"] for g, gene in enumerate(GENES)]
    write_table(files["genes"], [["symbol", "chr", "start", "end", "strand"], *genes])
    return {name: path for name, path in files.items() if name != "sequences"}


@pytest.mark.parametrize("name", TABLES)
def test_units_are_recognised_converted_and_recorded(tmp_path: Path, name: str) -> None:
    values_GS, units, stored = TABLES[name]
    told = {"units": "log1p"} if name == "natural" else {}  # by values alone it could be log2
    store = make_cohort(write(tmp_path, values_GS), **told)
    expected_GS = np.log2(CPM_GS / 100 + 1) if name == "natural" else LOG2_GS
    np.testing.assert_allclose(store.expression_SG, expected_GS.T, rtol=1e-4, atol=2e-4)
    assert store.attributes["units"] == stored
    record = store.attributes["provenance"]["expression"]["TINY"]
    assert (record["units"], record["stored"]) == (units, stored) and record["reason"]


def test_what_is_on_the_scale_stays_to_the_bit(tmp_path: Path) -> None:
    store = make_cohort(write(tmp_path, LOG2_GS.round(4)))
    np.testing.assert_array_equal(store.expression_SG, LOG2_GS.round(4).T.astype(np.float32))


def test_counters_do_not_count_in_a_million(tmp_path: Path) -> None:
    store = make_cohort(write(tmp_path, COUNTS_GS, N_unmapped=np.full(N_SAMPLES, 9_000_000)))
    assert store.genes["id"].tolist() == GENES
    np.testing.assert_allclose(store.expression_SG, LOG2_GS.T, rtol=1e-5)


def test_units_as_told(tmp_path: Path) -> None:
    floor = np.log2(CPM_GS + 0.25)
    files = write(tmp_path, floor)
    with pytest.raises(InputError, match="is -2, it is below 0: scaled or centred values, or a logarithm of x plus"):
        make_cohort(files)
    store = make_cohort(files, units="log2(fpkm+0.25)")
    assert store.attributes["units"] == "log2(fpkm+1)"
    np.testing.assert_allclose(store.expression_SG, LOG2_GS.T, rtol=1e-4, atol=1e-4)
    kept = make_cohort(files, units="vst")
    np.testing.assert_allclose(kept.expression_SG, floor.T, rtol=1e-6)
    for units, values_GS, stored in (
        ("TPM", CPM_GS, "log2(tpm+1)"),
        ("log10(cpm+1)", np.log10(CPM_GS + 1), "log2(cpm+1)"),
        ("ln(cpm+1)", np.log1p(CPM_GS), "log2(cpm+1)"),
    ):
        store = make_cohort(write(tmp_path, values_GS), units=units)
        assert store.attributes["units"] == stored
        np.testing.assert_allclose(store.expression_SG, LOG2_GS.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "values_GS",
    [LOG2_GS - LOG2_GS.mean(axis=1, keepdims=True), (LOG2_GS - 8) / LOG2_GS.std(), LOG2_GS.clip(-1) - 1.5],
    ids=["centred", "z-scored", "shifted"],
)
def test_centred_values_are_refused(tmp_path: Path, values_GS: np.ndarray) -> None:
    with pytest.raises(
        InputError, match=r"expression.tsv: the value of 'TCGA-AA-00\d\d-01', gene 'GENE\d+' is -.*below 0"
    ):
        make_cohort(write(tmp_path, values_GS))
    assert not list(tmp_path.glob("*.h5"))


def test_cohorts_in_different_units_are_refused(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", COUNTS_GS), write(tmp_path / "other", LOG2_GS)
    cohorts = {
        name: {key: str(files[key]) for key in ("methylation", "expression")}
        for name, files in (("A", one), ("B", other))
    }
    text = other["expression"].read_text().replace("TCGA-AA", "TCGA-BB")
    other["expression"].write_text(text)
    other["methylation"].write_text(other["methylation"].read_text().replace("TCGA-AA", "TCGA-BB"))
    with pytest.raises(
        InputError, match=r"other/expression.tsv: is in log2, stored as log2\(norm\+1\), .* counts; give"
    ):
        make_cohort(one, cohorts=cohorts)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on counts by the command."""
    folder = tmp_path_factory.mktemp("units")
    files = write(folder, COUNTS_GS)
    sources = [f"data.source.{name}={path}" for name, path in files.items()]
    settings = ["data=tcga_xena", "data.name=t", "data.source.window=20", "data.block=[8,8]", "data.val_cpgs=2"]
    overrides = [*sources, *settings, "data.val_samples=4", *TRAINER, "trainer.max_steps=2", "model=bilinear_ridge"]
    result = command("train", [*overrides, "hydra.run.dir=run"], folder)
    assert result.status == 0, result.err
    return folder


@pytest.mark.parametrize("name", [name for name in TABLES if name != "natural"])
def test_prediction_of_training_samples_is_the_models_own(trained: Path, tmp_path: Path, name: str) -> None:
    store, module = Store(trained / "stores" / "t.h5"), load_checkpoint(trained / "run" / "best.ckpt")
    assert store.attributes["units"] == "log2(cpm+1)"
    every = np.arange(len(store.cpgs)), np.arange(len(store.samples))
    expected_SC = predict_grid(module, store, *every).T.clip(0, 1)
    table = write(tmp_path, TABLES[name][0])["expression"]
    found = predict(trained / "run" / "best.ckpt", table, match="none")
    assert found.uns["methyl_lightning"]["units"] == TABLES[name][1]
    assert found.obs_names.tolist() == store.samples["id"].tolist()
    np.testing.assert_allclose(found.X, expected_SC, atol=1e-4)
    library = predict(trained / "run" / "best.ckpt", table, match="library")
    np.testing.assert_allclose(library.X, expected_SC, atol=1e-4)


def test_groups_of_counts_are_taken_per_million(trained: Path, tmp_path: Path) -> None:
    import anndata

    groups = pd.DataFrame({"group": [f"g{s // 2}" for s in range(N_SAMPLES)]}, index=SAMPLES)
    data = anndata.AnnData(COUNTS_GS.T.astype(np.float32), groups, pd.DataFrame(index=GENES))
    settings: dict[str, Any] = {"match": "none", "aggregate": "label", "label": "group"}
    found = predict(trained / "run" / "best.ckpt", data, **settings)
    sums = data.X.reshape(N_SAMPLES // 2, 2, N_GENES).sum(axis=1)[np.argsort([f"g{k}" for k in range(N_SAMPLES // 2)])]
    expected = predict(trained / "run" / "best.ckpt", anndata.AnnData(sums, var=data.var), match="none")
    np.testing.assert_allclose(found.X, expected.X, atol=1e-5)


def test_names_that_are_numbers_are_names(tmp_path: Path) -> None:
    files = write(tmp_path, LOG2_GS)
    for name, number in (("expression", "2024"), ("methylation", "1.50")):
        files[name] = files[name].rename(tmp_path / number)
    sources = [f"data.source.{name}={path.name}" for name, path in files.items()]
    settings = ["data=tcga_xena", "data.name=t", "data.source.window=20", *sources]
    result = command("prepare", [*settings, "data.store=7", "data.source.cohort=5"], tmp_path)
    assert result.status == 0, result.err
    store = Store(tmp_path / "7")
    assert set(store.samples["cohort"]) == {"5"}
    assert store.attributes["provenance"]["settings"]["methylation"] == "1.50"
    assert command("prepare", ["check=7"], tmp_path).status == 0
    for setting, words in (
        ("window=ten", "data.source.window=ten: input should be a valid integer"),
        ("selection.min_measured=half", "data.source.selection.min_measured=half: input should be a valid number"),
        ("genes=[a]", "data.source.genes=[a]: Hydra reads brackets otherwise; quote the value:"),
    ):
        assert_refused(command("prepare", [*settings, f"data.source.{setting}"], tmp_path), words)
