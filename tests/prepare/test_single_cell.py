"""Cells with calls of methylation and expression → store, and what training makes of it."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from methyl_lightning.data.datamodule import Block, GridDataModule, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.evaluate.evaluation import evaluate_model
from methyl_lightning.evaluate.table import results_table
from methyl_lightning.files import InputError
from methyl_lightning.model.card import calibrate_depths, calibrate_module, make_card
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.single_cell import single_cell

N_CELLS, N_CPGS, N_GENES = 30, 60, 25


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Any]:
    """Two .h5ad files whose cells stand in another order, and of which each has a cell of its own."""
    rng = np.random.default_rng(0)
    level_S = rng.uniform(0.1, 0.9, N_CELLS)
    names = [f"cell{s}" for s in range(N_CELLS)]
    call_SC = (rng.random((N_CELLS, N_CPGS)) < level_S[:, None]).astype(np.float32)
    call_SC[rng.random(call_SC.shape) < 0.7] = np.nan
    obs = pd.DataFrame({"culture": np.where(level_S < 0.5, "2i", "serum")}, index=names)
    var = pd.DataFrame({"chrom": "chr2", "position": 1_000 + 500 * np.arange(N_CPGS), "context": "Promoters"})
    anndata.AnnData(call_SC, obs, var.set_axis([f"cpg{c}" for c in range(N_CPGS)])).write_h5ad(tmp_path / "m.h5ad")
    count_SG = rng.poisson(30 * np.exp(np.outer(level_S, rng.normal(size=N_GENES)))).astype(np.float32)
    genes = pd.DataFrame(
        {"chr": "2", "start": 5_000 * np.arange(N_GENES), "end": 5_000 * np.arange(N_GENES) + 2_000, "strand": "-"},
        index=[f"Gene{g}" for g in range(N_GENES)],
    )
    genes.loc["Gene3", ["chr", "start", "end", "strand"]] = ["", -1, -1, ""]
    order = rng.permutation(N_CELLS)[1:]
    other = pd.DataFrame(index=[names[s] for s in order])
    anndata.AnnData(count_SG[order], other, genes).write_h5ad(tmp_path / "e.h5ad")
    return {"methylation": tmp_path / "m.h5ad", "expression": tmp_path / "e.h5ad", "call_SC": call_SC, "order": order}


def prepared(path: Path, sources: dict[str, Any], **settings: Any) -> Store:
    given = {name: sources[name] for name in ("methylation", "expression")} | settings
    single_cell(path, **given)
    return Store(path)


def test_cells_of_both_files_are_samples(tmp_path: Path, sources: dict[str, Any]) -> None:
    store = prepared(tmp_path / "s.h5", sources, tissue_type="culture", window=20)
    both = sorted(sources["order"])
    assert store.samples["id"].tolist() == [f"cell{s}" for s in both]
    assert set(store.samples["tissue_type"]) == {"2i", "serum"}
    assert (store.samples["patient"] == store.samples["id"]).all()
    every = np.arange(N_CPGS), np.arange(N_CELLS - 1)
    np.testing.assert_array_equal(store.beta(*every), sources["call_SC"][both].T)
    np.testing.assert_array_equal(store.reads(every[0][:, None], every[1]), ~np.isnan(sources["call_SC"][both].T))
    assert store.attributes["units"] == "log2(cpm+1)" and store.attributes["assembly"] == "mm10"
    assert store.cpgs["island"].tolist() == ["Promoters"] * N_CPGS
    gene = store.genes.iloc[2]
    assert (gene["chrom"], gene["start"], gene["end"], gene["strand"]) == ("chr2", 10_000, 12_000, "-")
    assert (store.genes["start"] < 0).tolist() == [g == 3 for g in range(N_GENES)]
    record = store.attributes["provenance"]
    assert record["source"] == "single_cell" and record["expression"]["single_cell"]["units"] == "counts"
    assert [file["file"] for file in record["inputs"]] == ["m.h5ad", "e.h5ad"]


def test_bismark_files_beside_expression(tmp_path: Path, sources: dict[str, Any]) -> None:
    (tmp_path / "cov").mkdir()
    for s in sources["order"]:
        read_C = np.flatnonzero(~np.isnan(sources["call_SC"][s]))
        lines = [
            f"2\t{p}\t{p}\t0\t{int(call)}\t{1 - int(call)}"
            for p, call in zip(1_001 + 500 * read_C, sources["call_SC"][s, read_C], strict=True)
        ]
        (tmp_path / "cov" / f"cell{s}.bismark.cov").write_text("\n".join(lines) + "\n")
    ours = prepared(tmp_path / "b.h5", sources | {"methylation": tmp_path / "cov"}, window=20)
    theirs = prepared(tmp_path / "s.h5", sources, window=20)
    row_S = pd.Index(ours.samples["id"]).get_indexer(theirs.samples["id"])
    assert ours.cpgs["position"].tolist() == theirs.cpgs["position"].tolist()
    every = np.arange(N_CPGS), np.arange(N_CELLS - 1)
    np.testing.assert_array_equal(ours.beta(every[0], row_S), theirs.beta(*every))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tissue_type": "batch"}, r"tissue_type=batch: no such column of obs among culture"),
        ({"methylation": "none.h5ad"}, "no such file"),
        ({"methylation": "m.tsv"}, "neither an .h5ad file nor a folder"),
        ({"window": 21}, "window=21 must be even"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, sources: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepared(tmp_path / "s.h5", sources, **settings)
    assert not (tmp_path / "s.h5").exists()


def test_cells_of_other_names_and_genes_without_places_are_named(tmp_path: Path, sources: dict[str, Any]) -> None:
    expression = anndata.read_h5ad(sources["expression"])
    del expression.var["strand"]
    expression.write_h5ad(tmp_path / "e.h5ad")
    with pytest.raises(InputError, match="no column for the strand of a gene among chr, start, end"):
        prepared(tmp_path / "s.h5", sources)
    expression.obs_names = [f"other{s}" for s in range(expression.n_obs)]
    expression.write_h5ad(tmp_path / "e.h5ad")
    with pytest.raises(InputError, match=r"has no cell of .*m.h5ad .*'other0', … here, 'cell0', … there"):
        prepared(tmp_path / "s.h5", sources)


def test_the_likelihood_of_calls_counts_every_read(tmp_path: Path, sources: dict[str, Any]) -> None:
    store = prepared(tmp_path / "s.h5", sources, window=20)
    module = MethylationModule("LevyJurgenson", N_GENES, 20, loss="bce", variant=2)
    module.log = lambda *args, **settings: None  # type: ignore[method-assign,assignment]
    module.scaler.fit(GridDataModule(str(store.path), fractions=(0.6, 0.2, 0.2)).train_expression())
    near_C = np.flatnonzero(np.diff(store.distances.indptr_C) > 0)[:12]
    batch = GridDataset(store)[Block(near_C, np.arange(20))]
    reads_CS = batch.reads_CS * torch_range(batch.reads_CS)
    loss = module.training_step(batch._replace(reads_CS=reads_CS), 0)
    loss.backward()
    module.eval()
    chance_CS, known_CS = module(batch).detach().numpy(), ~np.isnan(batch.beta_CS.numpy())
    assert ((chance_CS > 0) & (chance_CS < 1)).all()
    module.train()
    chance_CS, beta_CS = module(batch).detach().numpy()[known_CS], batch.beta_CS.numpy()[known_CS]
    weight = reads_CS.numpy()[known_CS]
    expected = -(weight * np.where(beta_CS == 1, np.log(chance_CS), np.log(1 - chance_CS))).sum() / weight.sum()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="loss='bce': must be mae, as the network is fitted by least squares"):
        MethylationModule("BilinearRidge", N_GENES, 20, loss="bce")
    with pytest.raises(ValueError, match="loss='nll': must be one of"):
        MethylationModule("LevyJurgenson", N_GENES, 20, loss="nll")


def torch_range(reads_CS: Any) -> Any:
    """Give every cell another number of reads, as those of the binary file are all one."""
    return 1 + (reads_CS.cumsum(1) % 3)


def test_testing_adds_the_metrics_of_calls(tmp_path: Path, sources: dict[str, Any]) -> None:
    store = prepared(tmp_path / "s.h5", sources, window=20)
    datamodule = GridDataModule(str(store.path), fractions=(0.4, 0.2, 0.4))
    module = MethylationModule("ExpressionOnly", N_GENES, 20, expression_scaling="none", n_components=5)
    module.fit_statistics(datamodule)
    tested = evaluate_model(module, store, datamodule.split, tmp_path / "run", 0, "best.ckpt")
    assert tested is not None
    scores = tested.metrics["test_cpg-test_sample"]
    assert 0 <= scores["auroc"] <= 1 and scores["auroc_ci95"][0] <= scores["auroc"] <= scores["auroc_ci95"][1]
    assert scores["auroc_per_cpg_ci95_cpgs"] == [None, None] and scores["sample_mean_r"] > 0.5
    header, *rows = results_table(tmp_path / "run", "ExpressionOnly", "cells")
    assert header[-3:] == ["AUROC", "AUROC, per CpG", "r of sample means"]
    assert {row[1] for row in rows} == {"ExpressionOnly"}  # figures that were published are of arrays
    calibrations = calibrate_module(module, store, datamodule.split)
    card = make_card(calibrations, calibrate_depths(module, store, datamodule.split), *tested)
    assert set(card["coverage"]) == set(tested.grids) and card["depths"][3]["seen"]["coverage"] <= 1
