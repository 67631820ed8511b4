"""Training: the loss over measured cells, checkpoints that stand alone, resuming, and several processes."""

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import anndata
import lightning as L
import numpy as np
import pytest
import torch
from conftest import SMALL, command, files, process, rewrite
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from torch import Tensor

from methyl_lightning.data.batches import GridBatch, PairBatch
from methyl_lightning.data.datamodule import Block, GridDataModule, GridDataset, GridSampler
from methyl_lightning.data.splits import TEST_VIEWS, load_split
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.scores import spearman
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule, correlation_loss
from methyl_lightning.train.fit import build_module

CHECKPOINT_KEYS = {"format", "version", "provenance", "card", "tables"}


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def build(network: str = "LevyJurgenson", **settings: Any) -> MethylationModule:
    torch.manual_seed(0)
    return MethylationModule(network, n_genes=40, window=100, **settings)


def fit(module: MethylationModule, datamodule: GridDataModule, *callbacks: Callback, **settings: Any) -> L.Trainer:
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **{"max_epochs": -1, "val_check_interval": 2, "check_val_every_n_epoch": None, **settings},
    )
    trainer.fit(module, datamodule)
    return trainer


def outputs_of(module: MethylationModule, batch: GridBatch | PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a training step; return the network's outputs, holding their gradients, and the loss."""
    kept: list[torch.Tensor] = []
    forward = MethylationModule.forward

    def keep(batch: Any) -> torch.Tensor:
        kept.append(forward(module, batch))
        kept[0].retain_grad()
        return kept[0]

    module.forward = keep
    module.log = lambda *args, **settings: None
    loss = module.training_step(batch, 0)
    assert loss is not None
    loss.backward()
    return kept[0], loss.detach()


@pytest.mark.parametrize("pairs", [False, True])
def test_missing_cells_touch_neither_loss_nor_gradient(store: Store, pairs: bool) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 120, 60), rng.integers(0, 43, 60)) if pairs else (np.arange(30), np.arange(12))
    batch = GridDataset(store)[Block(*rows, pairs)]
    batch[2][torch.rand(batch[2].shape, generator=torch.Generator().manual_seed(0)) < 0.3] = torch.nan
    module = build()
    predicted, loss = outputs_of(module, batch)
    beta, value = batch[2].numpy(), predicted.detach().numpy()
    measured = np.isfinite(beta)
    assert 0.2 < 1 - measured.mean() < 0.45
    assert float(loss) == pytest.approx(np.abs(value - beta)[measured].mean(), rel=1e-5)
    assert predicted.grad is not None
    expected = np.where(measured, np.sign(value - beta) / measured.sum(), 0)
    np.testing.assert_allclose(predicted.grad, expected, rtol=1e-5)


def test_block_without_measured_cells_has_no_gradient(store: Store) -> None:
    batch = GridDataset(store)[Block(np.arange(20), np.arange(10))]
    batch[2][:] = torch.nan
    module = build()
    predicted, loss = outputs_of(module, batch)
    assert float(loss) == 0
    assert not predicted.grad.any()
    assert all(value.grad is not None and not value.grad.any() for value in module.parameters())


def test_correlation_is_lost_cpg_by_cpg_over_measured_cells() -> None:
    rng = np.random.default_rng(0)
    beta_CS, value_CS = rng.random((6, 30)), rng.random((6, 30))
    beta_CS[rng.random(beta_CS.shape) < 0.2] = np.nan
    beta_CS[3], beta_CS[4, 2:], value_CS[5] = 0.4, np.nan, 0.7  # no variance, too few cells; a flat prediction counts
    known = ~np.isnan(beta_CS)
    r = [np.corrcoef(beta_CS[c, known[c]], value_CS[c, known[c]])[0, 1] for c in range(3)]
    predicted_CS = torch.tensor(value_CS, requires_grad=True)
    loss = correlation_loss(predicted_CS, torch.tensor(beta_CS))
    assert loss.item() == pytest.approx(1 - sum(r) / 4, rel=1e-6)
    loss.backward()
    assert predicted_CS.grad is not None and predicted_CS.grad.isfinite().all()
    assert not predicted_CS.grad[[3, 4]].any() and not predicted_CS.grad[torch.tensor(~known)].any()
    assert correlation_loss(predicted_CS, torch.full((6, 30), torch.nan)).item() == 0


def test_correlation_weight_adds_to_the_error_and_needs_whole_samples(store: Store) -> None:
    batch = GridDataset(store)[Block(np.arange(30), np.arange(12))]
    plain, weighted = (outputs_of(build(correlation_weight=weight), batch) for weight in (0.0, 0.5))
    lost = correlation_loss(plain[0], batch.beta_CS)
    assert weighted[1].item() == pytest.approx((plain[1] + 0.5 * lost).item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"correlation_weight=0.5: needs data.sampling=grid"):
        build(correlation_weight=0.5).fit_statistics(GridDataModule(str(store.path), sampling="pairs"))


def test_training_passes_a_block_without_measured_cells(store: Store, tmp_path: Path) -> None:
    plain = GridDataModule(str(store.path), block=(24, 20))
    first = GridSampler(*plain.split.view("train_cpg-train_sample"), (24, 20), 0, 0, 1, lambda: 0).epoch_blocks(0)[0]
    beta_CS = store.beta(np.arange(120), np.arange(43))
    beta_CS[np.ix_(first.cpg_C, first.sample_S)] = np.nan
    rewrite(store, tmp_path / "blank.h5", beta_CS=beta_CS)

    class Losses(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.seen.append(float(outputs["loss"]))

    losses, module = Losses(), build()
    fit(module, GridDataModule(str(tmp_path / "blank.h5"), block=(24, 20)), losses, max_steps=3)
    assert losses.seen[0] == 0 and min(losses.seen[1:]) > 0
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_every_cell_once_an_epoch_when_gradients_are_accumulated(store: Store) -> None:
    seen: list[torch.Tensor] = []

    class Seen(Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
            seen.append(batch.beta_CS.nan_to_num(-1).flatten())

    datamodule = GridDataModule(str(store.path), block=(24, 20))
    trainer = fit(build("SequenceOnly"), datamodule, Seen(), max_steps=8, max_epochs=3, accumulate_grad_batches=2)
    assert trainer.global_step == 8 and len(seen) == 16
    expected = np.nan_to_num(store.beta(*datamodule.split.view("train_cpg-train_sample")), nan=-1).ravel()
    for epoch in (seen[:8], seen[8:]):
        np.testing.assert_array_equal(np.sort(torch.cat(epoch)), np.sort(expected))


def test_training_lowers_the_loss(store: Store) -> None:
    class Losses(Callback):
        seen: list[float] = []  # noqa: RUF012

        def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.seen.append(float(outputs["loss"]))

    losses = Losses()
    for sampling in ("grid", "pairs"):
        losses.seen.clear()
        datamodule = GridDataModule(str(store.path), block=(48, 40), sampling=sampling, batch_pairs=256)
        module = build(learning_rate=3e-3)
        trainer = fit(module, datamodule, losses, max_steps=40, val_check_interval=40)
        assert np.mean(losses.seen[-5:]) < 0.75 * np.mean(losses.seen[:5])
        measured = store.beta(datamodule.val_cpg_C, datamodule.val_sample_S)
        predicted = predict_grid(module, store, datamodule.val_cpg_C, datamodule.val_sample_S)
        logged = trainer.callback_metrics
        assert float(logged["val/mae"]) == pytest.approx(np.nanmean(np.abs(predicted - measured)), rel=1e-4)
        assert float(logged["val/spearman"]) == pytest.approx(spearman(measured, predicted), abs=1e-4)


def test_statistics_of_the_training_view_wait_for_a_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    datamodule, module = GridDataModule(str(store.path), block=(48, 40)), build()
    monkeypatch.setattr(Store, "beta_moments", None)
    module.fit_statistics(datamodule)
    monkeypatch.undo()
    pickle.loads(pickle.dumps(module))
    record = module.training_record()
    assert record is not None and record is module.training_record()
    mean_C = np.nanmean(store.beta(*datamodule.split.view("train_cpg-train_sample")), axis=1)
    measured = record.cpgs["training_mean"].to_numpy()
    np.testing.assert_allclose(measured[datamodule.split.cpg["train"]], mean_C, rtol=1e-5)
    assert np.isnan(measured[datamodule.split.cpg["test"]]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network": "Store"}, "network='Store': must be a class of"),
        ({"network": "LevyJurgenson", "learning_rate": 0}, "learning_rate=0: must be positive"),
        ({"network": "Constant", "correlation_weight": -1}, "correlation_weight=-1: must be at least 0"),
        ({"network": "LevyJurgenson", "expression_scaling": "log"}, "expression_scaling='log': must be one of"),
        ({"network": "LevyJurgenson", "variant": 7}, r"variant=7: must be one of \(1, 2, 3, 'port1'\)"),
        ({"network": "LevyJurgenson", "window": 9}, "window=9: must be at least 10"),
    ],
)
def test_wrong_arguments_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MethylationModule(**{"n_genes": 40, "window": 100} | settings)


def test_seed_decides_weights_and_split(workplace: Path) -> None:
    cfg, store = OmegaConf.load(workplace / "run" / "config.yaml"), Store(workplace / "stores" / "simulated.h5")
    first, same, other = (build_module(cfg.model, store, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["network.connected.weight"], other["network.connected.weight"])
    splits = [GridDataModule(str(store.path), seed=seed).split.cpg["test"].tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def assert_plain(value: Any) -> None:
    """Only what JSON knows, so that nothing but values is ever unpickled."""
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str
            assert_plain(item)
    elif isinstance(value, list | tuple):
        for item in value:
            assert_plain(item)
    else:
        assert value is None or type(value) in (str, int, float, bool), repr(value)


def test_checkpoint_holds_all_that_prediction_needs(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(workplace / "stores" / "simulated.h5")
    path = Path(shutil.copy(workplace / "run" / "best.ckpt", tmp_path))
    checkpoint = torch.load(path, weights_only=True)
    assert_plain(dict(checkpoint["hyper_parameters"]))
    assert_plain(checkpoint["methyl_lightning"])
    assert set(checkpoint["methyl_lightning"]) == CHECKPOINT_KEYS
    provenance = checkpoint["methyl_lightning"]["provenance"]
    tables = checkpoint["methyl_lightning"]["tables"]
    tables["cpgs"]["id"] = tables["cpgs"]["id"].split("\n")
    for name, table in (("genes", store.genes), ("cpgs", store.cpgs)):
        assert tables[name] == {column: table[column].tolist() for column in tables[name]}
    assert (provenance["assembly"], provenance["units"], provenance["window"]) == ("simulated", "log2(norm+1)", 100)
    assert provenance["source"] == store.attributes["provenance"]
    split = load_split(workplace / "run" / "split.json", store)
    assert provenance["sizes"]["cpg"] == {part: len(rows) for part, rows in split.cpg.items()}
    assert provenance["sizes"]["sample"] == {part: len(rows) for part, rows in split.sample.items()}

    batch = GridDataset(store)[Block(*split.view("test_cpg-test_sample"))]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Store, "__init__", lambda *args: pytest.fail("the store was opened"))
    module = MethylationModule.load_from_checkpoint(path, weights_only=True).eval()
    with torch.no_grad():
        predicted_CS = module(batch)
    written = anndata.read_h5ad(workplace / "run" / "predictions_test_cpg-test_sample.h5ad")
    np.testing.assert_allclose(predicted_CS.T, written.X, atol=1e-5)
    assert module.provenance == provenance


def test_constant_predicts_the_training_median(workplace: Path) -> None:
    store = Store(workplace / "stores" / "simulated.h5")
    train = load_split(workplace / "run" / "split.json", store).view("train_cpg-train_sample")
    median = np.nanmedian(store.beta(*train))
    for view in TEST_VIEWS:
        written = anndata.read_h5ad(workplace / "run" / "references" / "constant" / f"predictions_{view}.h5ad")
        np.testing.assert_allclose(written.X, median, atol=1e-6)


RUNS = [*SMALL, "model.learning_rate=0.01", "patience=100"]


def recorded_training(folder: Path, *overrides: str) -> list[bytes]:
    """Train by the command; return what each training step was given."""
    seen: list[bytes] = []
    step = MethylationModule.training_step

    def record(module: MethylationModule, batch: Any, index: int) -> Any:
        assert module.training
        seen.append(b"".join(tensor.numpy().tobytes() for tensor in (*batch.cpgs, *batch[1:3])))
        return step(module, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethylationModule, "training_step", record)
        result = command("train", [*RUNS, *overrides], folder)
    assert result.status == 0, result.err
    return seen


@pytest.mark.parametrize("sampling", ["grid", "pairs"])
def test_resumed_run_equals_the_uninterrupted_one(workplace: Path, tmp_path: Path, sampling: str) -> None:
    data = [f"data.store={workplace / 'stores' / 'simulated.h5'}", f"data.sampling={sampling}", "data.batch_pairs=100"]
    # the run stops in the middle of an epoch (of 8 blocks, or 32 draws of pairs)
    whole = recorded_training(tmp_path, *data, "trainer.max_steps=18", "hydra.run.dir=whole")
    head = recorded_training(tmp_path, *data, "trainer.max_steps=10", "hydra.run.dir=cut")
    stopped = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    assert stopped["global_step"] == 10
    tail = recorded_training(
        tmp_path,
        *data,
        "trainer.max_steps=18",
        "hydra.run.dir=cut",
        "ckpt_path=cut/last.ckpt",
    )
    assert len(whole) == 18 and head == whole[:10] and tail == whole[10:]
    assert len(set(whole)) == 18

    ends = [torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "cut")]
    assert [end["global_step"] for end in ends] == [18, 18]
    assert ends[0]["epoch"] == ends[1]["epoch"]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(value, ends[1]["state_dict"][name]), name
        if name.endswith("weight"):
            assert not torch.equal(value, stopped["state_dict"][name]), name
    states = [end["optimizer_states"][0]["state"] for end in ends]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 20
    for key, state in states[0].items():
        assert all(torch.equal(value, states[1][key][name]) for name, value in state.items())
    assert (tmp_path / "whole" / "split.json").read_text() == (tmp_path / "cut" / "split.json").read_text()
    # the best checkpoint is the same as well, and therefore all that is told of it
    assert (tmp_path / "whole" / "metrics.json").read_text() == (tmp_path / "cut" / "metrics.json").read_text()


def averaged_training(
    replicas: list[MethylationModule], datamodule: GridDataModule, blocks: list[Block]
) -> MethylationModule:
    """Train by hand: at each step every replica takes the next block and all step on the mean of their gradients."""
    optimisers = []
    for module in replicas:
        module.fit_statistics(datamodule)
        module.log = lambda *args, **settings: None
        optimisers.append(module.configure_optimizers())
    for start in range(0, len(blocks), len(replicas)):
        for module, block in zip(replicas, blocks[start:], strict=False):
            module.zero_grad()
            module.training_step(GridDataset(datamodule.store)[block], 0).backward()
        for same in zip(*(module.parameters() for module in replicas), strict=True):
            mean = sum(parameter.grad for parameter in same) / len(same)
            for parameter in same:
                parameter.grad = mean.clone()
        for optimiser in optimisers:
            optimiser.step()
    return replicas[0]


def test_two_processes_share_the_blocks_and_the_test(workplace: Path, tmp_path: Path) -> None:
    store_path = workplace / "stores" / "simulated.h5"
    overrides = [*SMALL, f"data.store={store_path}", "trainer=ddp", "trainer.devices=2", "trainer.max_steps=6"]
    overrides += ["+model@references.constant=constant", "hydra.run.dir=ddp"]
    done = process(["-m", "methyl_lightning.train", *overrides], tmp_path)
    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    folder = tmp_path / "ddp"
    assert {"best.ckpt", "last.ckpt", "metrics.json", "table.md", "references/constant/metrics.json"} <= files(folder)
    assert not [name for name in files(tmp_path) if name.endswith(".part")]

    # the weights are those of replicas that take every other block and average their gradients
    cfg, store = OmegaConf.load(folder / "config.yaml"), Store(store_path)
    datamodule = GridDataModule(str(store_path), block=(24, 20), split_file=str(folder / "split.json"))
    train_view, test_view = (datamodule.split.view(f"{part}_cpg-{part}_sample") for part in ("train", "test"))
    epoch_1, epoch_2 = (GridSampler(*train_view, (24, 20), 0, 0, 1, lambda: 0).epoch_blocks(epoch) for epoch in (0, 1))
    trained = torch.load(folder / "last.ckpt", weights_only=True)
    assert trained["global_step"] == 6
    start = [build_module(cfg.model, store, 0) for _ in "abc"]
    # a bias before a normalisation has a gradient that is rounding alone, of which Adam makes whole steps
    parameters = [(name, value) for name, value in start[0].named_parameters() if not name.endswith("bias")]
    weights = {name: value.detach().clone() for name, value in parameters}
    two = averaged_training(start[:2], datamodule, (epoch_1 + epoch_2)[:12])
    one = averaged_training(start[2:], datamodule, (epoch_1 + epoch_2)[:12:2])

    def distance(values: dict[str, Tensor], others: dict[str, Tensor]) -> float:
        """Return the Euclidean distance of all weights together."""
        return sum(float((values[name] - others[name]).square().sum()) for name in weights) ** 0.5

    moved = distance(two.state_dict(), weights)
    assert distance(trained["state_dict"], two.state_dict()) < 0.1 * moved
    assert distance(one.state_dict(), two.state_dict()) > 0.3 * moved
    shared_CS, alone_CS = predict_grid(two, store, *test_view), predict_grid(one, store, *test_view)
    assert np.abs(shared_CS - alone_CS).max() > 0.01

    # the same checkpoint in one process
    result = command("evaluate", ["checkpoint=ddp/best.ckpt", "hydra.run.dir=one"], tmp_path)
    assert result.status == 0, result.err
    had, has = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("ddp", "one"))
    for view in TEST_VIEWS:
        assert had[view].keys() == has[view].keys()
        for key, value in had[view].items():
            assert has[view][key] == pytest.approx(value, rel=1e-5, abs=1e-6), (view, key)
        written = anndata.read_h5ad(folder / f"predictions_{view}.h5ad")
        assert np.isfinite(written.X).all()
        assert int(np.isfinite(written.layers["measured"]).sum()) == had[view]["n_pairs"]
        assert written.shape == (had[view]["n_samples"], had[view]["n_cpgs"])
