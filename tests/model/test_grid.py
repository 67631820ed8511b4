"""Predictions equal the module's own forward, encode each row once, and survive the way to disk."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from methyl_lightning.data.datamodule import Block, GridDataModule, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.model.grid import predict_grid, to_anndata
from methyl_lightning.model.module import MethylationModule

NETWORKS: list[dict[str, Any]] = [
    {"network": "LevyJurgenson", "variant": 3},
    {"network": "LevyJurgenson", "variant": 1},
    {"network": "SequenceOnly"},
    {"network": "Constant"},
    {"network": "FactorNetwork", "n_factors": 3, "n_filters": 4},
    {"network": "MethylProphet", "width": 8, "n_layers": 1},
]


def build(datamodule: GridDataModule, settings: dict[str, Any]) -> MethylationModule:
    """Build a module whose statistics are not those of initialisation."""
    torch.manual_seed(0)
    module = MethylationModule(n_genes=40, window=100, **settings)
    module.fit_statistics(datamodule)
    module.train()
    batch = GridDataset(datamodule.store)[Block(np.arange(60), np.arange(30))]
    for _ in range(3):
        module(batch)
    return module


@pytest.mark.parametrize("settings", NETWORKS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_prediction_is_the_forward_pass_whatever_the_block(
    store: Store, datamodule: GridDataModule, settings: dict[str, Any]
) -> None:
    module = build(datamodule, settings)
    rng = np.random.default_rng(0)
    cpg_C, sample_S = rng.permutation(120)[:50], rng.permutation(43)[:21]
    with torch.no_grad():
        module.eval()
        expected_CS = module(GridDataset(store)[Block(cpg_C, sample_S)])
    for block in ((7, 5), (50, 1), (1, 21), (49, 20), (1000, 1000)):
        module.train()
        predicted_CS = predict_grid(module, store, cpg_C, sample_S, block)
        assert predicted_CS.dtype == np.float32 and predicted_CS.shape == (50, 21)
        np.testing.assert_allclose(predicted_CS, expected_CS, atol=1e-5)
    by_default = predict_grid(module, store, cpg_C, sample_S)
    np.testing.assert_allclose(by_default, expected_CS, atol=1e-5)


def test_each_row_is_encoded_once(store: Store, datamodule: GridDataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build(datamodule, NETWORKS[0])
    encoded: dict[str, list[torch.Tensor]] = {"cpgs": [], "samples": []}
    encode_cpgs, encode_samples = module.network.encode_cpgs, module.network.encode_samples
    monkeypatch.setattr(
        module.network, "encode_cpgs", lambda cpgs: (encoded["cpgs"].append(cpgs.sequence_CL), encode_cpgs(cpgs))[1]
    )
    monkeypatch.setattr(
        module.network, "encode_samples", lambda rows: (encoded["samples"].append(rows), encode_samples(rows))[1]
    )
    predict_grid(module, store, np.arange(120), np.arange(43), (16, 10))
    assert len(encoded["cpgs"]) == 8 and len(encoded["samples"]) == 5
    assert max(map(len, encoded["cpgs"])) <= 16 and max(map(len, encoded["samples"])) <= 10
    np.testing.assert_array_equal(torch.cat(encoded["cpgs"]), store.sequence_CL)
    scaled_SG = module.scaler(torch.from_numpy(np.array(store.expression_SG)))
    np.testing.assert_array_equal(torch.cat(encoded["samples"]), scaled_SG)


def test_prediction_leaves_the_module_as_it_was(store: Store, datamodule: GridDataModule) -> None:
    module = build(datamodule, NETWORKS[0])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    predict_grid(module, store, np.arange(30), np.arange(10))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_anndata_round_trip(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cpg_C, sample_S = np.array([7, 3, 100, 41]), np.array([20, 2, 42])
    predicted_CS = rng.random((4, 3)).astype(np.float32)
    measured_CS = store.beta(cpg_C, sample_S)
    measured_CS[1, 2] = np.nan
    data = to_anndata(store, cpg_C, sample_S, predicted_CS, measured_CS, view="some-view", checkpoint="best.ckpt")
    data.write_h5ad(tmp_path / "view.h5ad")
    read = anndata.read_h5ad(tmp_path / "view.h5ad")
    np.testing.assert_array_equal(read.X, predicted_CS.T)
    np.testing.assert_array_equal(read.layers["measured"], measured_CS.T)
    samples, cpgs = store.samples.iloc[sample_S], store.cpgs.iloc[cpg_C]
    assert read.obs_names.tolist() == samples["id"].tolist()
    assert read.var_names.tolist() == cpgs["id"].tolist()
    for column in ("patient", "cohort", "tissue_type"):
        assert read.obs[column].tolist() == samples[column].tolist()
    for column in ("chrom", "position", "island"):
        assert read.var[column].tolist() == cpgs[column].tolist()
    for c, cpg in zip(cpg_C, read.var.itertuples(), strict=True):
        row = store.distances.rows(np.array([c]))
        at = np.abs(row.bp_N).argmin()
        assert (cpg.nearest_gene, cpg.nearest_bp) == (store.genes["symbol"].iloc[row.gene_N[at]], row.bp_N[at])
    assert {name: read.uns["methyl_lightning"][name] for name in ("assembly", "view", "checkpoint")} == {
        "assembly": "simulated",
        "view": "some-view",
        "checkpoint": "best.ckpt",
    }
