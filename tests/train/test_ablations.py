"""What is left out of the paper's model is missed as the planted truth says, and jobs of a sweep stand side by side."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import SMALL, assert_refused, command

from methyl_lightning.data.datamodule import Block, GridDataModule, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.prepare.simulated import simulate

SCORES = ("mae", "mas_pcc", "mac_pcc")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> GridDataModule:
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5"
    simulate(path, n_cpgs=600, n_patients=80, n_genes=60, window=80, seed=3, effects=5)
    return GridDataModule(str(path), block=(48, 64))


@pytest.fixture(scope="module")
def headline(cohort: GridDataModule) -> dict[str, dict[str, float]]:
    """Scores on unseen CpGs × unseen patients of models that were trained alike."""
    parts = {"whole": [], "sequence": ["sequence", "sequence_attention"], "expression": ["expression"]}
    return {name: trained_scores(cohort, without) for name, without in parts.items()}


def trained_scores(cohort: GridDataModule, without: list[str]) -> dict[str, float]:
    L.seed_everything(0, verbose=False)
    module = MethylationModule("LevyJurgenson", 60, 80, learning_rate=3e-3, without=without)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=120,
        max_epochs=-1,
        limit_val_batches=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **quiet,
    )
    trainer.fit(module, cohort)
    rows = cohort.split.view("test_cpg-test_sample")
    measured_CS, predicted_CS = cohort.store.beta(*rows), predict_grid(module, cohort.store, *rows)
    return {name: getattr(metrics, name)(measured_CS, predicted_CS) for name in SCORES}


def test_without_sequence_unseen_cpgs_are_alike(headline: dict[str, dict[str, float]]) -> None:
    """Base levels follow CpG density and near genes, and which driver gene a CpG follows is written in its motif."""
    whole, without = headline["whole"], headline["sequence"]
    assert whole["mae"] < without["mae"] - 0.02
    assert whole["mac_pcc"] > 0.5 and without["mac_pcc"] < whole["mac_pcc"] - 0.1
    assert whole["mas_pcc"] > 0.25 and without["mas_pcc"] < whole["mas_pcc"] - 0.1


def test_without_expression_samples_are_alike(headline: dict[str, dict[str, float]]) -> None:
    """Levels of CpGs are still told, differences between samples are not."""
    whole, without = headline["whole"], headline["expression"]
    assert np.isnan(without["mas_pcc"])
    assert without["mac_pcc"] > 0.3
    assert whole["mae"] < without["mae"] - 0.01


@pytest.mark.parametrize(("variant", "reach_bp"), [(3, 20_000), (1, 2_001)])
def test_without_far_genes_only_genes_of_the_distance_matrix_count(
    store: Store, variant: int, reach_bp: int, tmp_path: Path
) -> None:
    datamodule = GridDataModule(str(store.path))
    module = MethylationModule("LevyJurgenson", 40, 100, variant=variant, without=["far_genes"])
    module.fit_statistics(datamodule)
    distances = store.distances.rows(datamodule.split.cpg["train"])
    near = set(distances.gene_N[np.abs(distances.bp_N) < reach_bp].tolist())
    assert 0 < len(near) < 40
    far = sorted(set(range(40)) - near)
    batch = GridDataset(store)[Block(np.arange(30), np.arange(20))]
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = MethylationModule.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True).eval()
    predicted_CS = loaded(batch)
    for genes, same in ((far, True), (sorted(near)[:1], False)):
        expression_SG = batch.expression_SG.clone()
        expression_SG[:, genes] += torch.linspace(1, 5, 20)[:, None]
        assert torch.equal(loaded(batch._replace(expression_SG=expression_SG)), predicted_CS) is same


def test_a_sweep_writes_one_run_folder_an_ablation(tmp_path: Path) -> None:
    sweep = ["--multirun", "+experiment=ablations", *SMALL, "trainer.max_steps=2", "hydra.sweep.dir=sweep"]
    result = command("train", [*sweep, "ablation=whole,without_expression"], tmp_path)
    assert result.status == 0, result.err
    folders = {path.parent.name: path.parent for path in tmp_path.glob("sweep/*/metrics.json")}
    assert set(folders) == {"simulated-whole-seed0", "simulated-without_expression-seed0"}
    assert all((folder / "config.yaml").is_file() for folder in folders.values())
    assert not list(tmp_path.glob("sweep/*/references/*/best.ckpt"))
    without = folders["simulated-without_expression-seed0"]
    assert "name: without_expression" in (without / "config.yaml").read_text()
    module = MethylationModule.load_from_checkpoint(without / "best.ckpt", weights_only=True)
    assert not module.network.reads_expression
    assert_refused(
        command("train", ["+experiment=ablations", "ablation=without_genes", *SMALL], tmp_path), "without_genes"
    )
