"""The trained networks beside the paper's: what they see, pairs as cells of the grid, learning, checkpoints."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.metrics.scores import mae, mas_pcc
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks import FactorNetwork, MethylProphet
from methyl_lightning.networks.baselines.features import cpg_rows
from methyl_lightning.networks.factor_network import StrandConvolution
from methyl_lightning.prepare.simulated import simulate

NETWORKS: dict[str, dict[str, Any]] = {
    "FactorNetwork": {"n_factors": 5, "n_filters": 8, "learning_rate": 0.01, "expression_scaling": "none"},
    "MethylProphet": {"width": 16, "n_layers": 1, "learning_rate": 3e-3, "expression_scaling": "zscore"},
}
BLOCKS = {"FactorNetwork": (64, 64), "MethylProphet": (24, 16)}
HEADLINE = "test_cpg-test_sample"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate a cohort small enough for a transformer."""
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5"
    simulate(path, n_cpgs=500, n_patients=60, n_genes=60, window=100, seed=2, effects=10)
    return path


def cohort(path: Path, name: str) -> GridDataModule:
    return GridDataModule(str(path), block=BLOCKS[name])


def build(name: str, datamodule: GridDataModule, **settings: Any) -> MethylationModule:
    torch.manual_seed(0)
    module = MethylationModule(name, 60, 100, correlation_weight=0.3, **NETWORKS[name] | settings)
    module.fit_statistics(datamodule)
    return module


def fit(module: MethylationModule, datamodule: GridDataModule, steps: int) -> L.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **quiet,
    )
    trainer.fit(module, datamodule)
    return trainer


@pytest.mark.parametrize("name", NETWORKS)
def test_pairs_are_cells_of_the_grid_and_share_their_gradients(name: str, path: Path) -> None:
    datamodule = cohort(path, name)
    network = build(name, datamodule).network.eval()
    view = datamodule.training_view(2_000)
    _, cpgs = next(cpg_rows(view.cpgs, 9))
    cpg_N, sample_N = torch.arange(9), 3 + torch.arange(9)
    gradients = []
    for on_grid in (True, False):
        network.zero_grad()
        encoded, samples = network.encode_cpgs(cpgs), network.encode_samples(view.expression_SG)
        if on_grid:
            beta_N = network.combine(encoded, samples)[cpg_N, sample_N]
        else:
            beta_N = network.combine_pairs(encoded, type(samples)(*(part[sample_N] for part in samples)))
        beta_N.square().sum().backward()
        gradients.append([beta_N.detach(), *(value.grad for value in network.parameters())])
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    assert float(gradients[0][0].std()) > 0


def test_tiles_of_the_transformer_are_one_grid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule = cohort(path, "MethylProphet")
    network = build("MethylProphet", datamodule).network.eval()
    view = datamodule.training_view(1_000)
    with torch.no_grad():
        whole_CS = network(view.cpgs, view.expression_SG)
        monkeypatch.setattr("methyl_lightning.networks.methylprophet.TILE_PAIRS", 37)
        torch.testing.assert_close(network(view.cpgs, view.expression_SG), whole_CS)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_learns_and_a_checkpoint_keeps_it(name: str, path: Path, tmp_path: Path) -> None:
    datamodule = cohort(path, name)
    module = build(name, datamodule)
    rows = datamodule.split.view(HEADLINE)
    measured_CS = datamodule.store.beta(*rows)
    before_CS = predict_grid(module, datamodule.store, *rows)
    trainer = fit(module.train(), datamodule, 40)
    after_CS = predict_grid(module, datamodule.store, *rows)
    assert mae(measured_CS, after_CS) < 0.9 * mae(measured_CS, before_CS)
    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    loaded = MethylationModule.load_from_checkpoint(tmp_path / "kept.ckpt", weights_only=True).eval()
    np.testing.assert_array_equal(predict_grid(loaded, datamodule.store, *rows), after_CS)


def test_factors_are_told_from_expression_before_the_slopes_are(path: Path) -> None:
    datamodule = cohort(path, "FactorNetwork")
    module = build("FactorNetwork", datamodule)
    fit(module, datamodule, 80)
    rows = datamodule.split.view(HEADLINE)
    assert mas_pcc(datamodule.store.beta(*rows), predict_grid(module, datamodule.store, *rows)) > 0.25


def test_a_sequence_and_its_reverse_complement_are_one() -> None:
    torch.manual_seed(0)
    convolution = StrandConvolution(6)
    sequence_CL = torch.randint(0, 5, (20, 70), dtype=torch.uint8)
    convolution(sequence_CL)
    convolution.eval()
    reverse_CL = torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)[sequence_CL.flip(1).long()]
    described_CF = convolution(sequence_CL)
    torch.testing.assert_close(convolution(reverse_CL), described_CF)
    assert not torch.allclose(convolution(sequence_CL.flip(1)), described_CF)


def test_tokens_are_six_mers_and_islands(path: Path) -> None:
    network = MethylProphet(60, 20, width=8, n_layers=1)
    view = cohort(path, "MethylProphet").training_view(300)
    _, cpgs = next(cpg_rows(view.cpgs, 3))
    sequence_CL = torch.tensor([0] + 3 * [2, 1, 0, 0, 0, 3] + [0], dtype=torch.uint8).repeat(3, 1)
    sequence_CL[1, 7] = 4
    annotation_CP = torch.full((3, 19), torch.nan)
    annotation_CP[0, :4] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    tokens_CTD = network.encode_cpgs(cpgs._replace(sequence_CL=sequence_CL, annotation_CP=annotation_CP)).token_CTD
    place_TD, kmer = network.place_TD, network.kmer.weight
    code = 2 + 1 * 4 + 3 * 4**5
    torch.testing.assert_close(tokens_CTD[0, 1:], kmer[code] + place_TD)
    torch.testing.assert_close(tokens_CTD[1, 2], kmer[4**6] + place_TD[1])
    torch.testing.assert_close(tokens_CTD[:2, 0], network.island.weight[[1, 4]])


def test_data_without_places_sequences_or_genes_are_fitted(path: Path) -> None:
    view = cohort(path, "FactorNetwork").training_view(8_000)
    blank = view.cpgs._replace(
        sequence_CL=torch.full_like(view.cpgs.sequence_CL, 4),
        position_C=torch.full_like(view.cpgs.position_C, -1),
        gene_N=view.cpgs.gene_N[:0],
        bp_N=view.cpgs.bp_N[:0],
        offset_C=torch.zeros_like(view.cpgs.offset_C),
    )
    network = FactorNetwork(60, n_factors=3, n_filters=4)
    network.fit_statistics(Blank(view._replace(cpgs=blank)))  # type: ignore[arg-type]
    for training in (True, False):
        assert network.train(training)(blank, view.expression_SG).isfinite().all()


class Blank:
    """Training data that are given."""

    def __init__(self, view: Any):
        self.view = lambda most_cells: view


@pytest.mark.parametrize(
    ("build_network", "words"),
    [
        (lambda: FactorNetwork(60, n_factors=0), "n_factors=0, n_filters=64: must be at least 1"),
        (lambda: MethylProphet(60, 5), "window=5: must be at least 6"),
        (
            lambda: MethylProphet(60, 60, width=30),
            "width=30, n_layers=2: must be at least 1, the width a multiple of 4",
        ),
    ],
)
def test_wrong_sizes_are_named(build_network: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_network()
