"""The block is chosen by measured speed and memory, without a trace in the module, and kept in checkpoints."""

from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import SMALL as SMALL_RUN
from conftest import command
from omegaconf import OmegaConf

from methyl_lightning.data.datamodule import BLOCK, GridBatch, GridDataModule
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.train import auto_block
from methyl_lightning.train.auto_block import AutoBlock, Trial, choose, explain, probe

SMALL = ((8, 8), (16, 8), (200, 200))


def trainer(folder: Path, steps: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        callbacks=[AutoBlock()],
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )


def test_smallest_block_near_the_best_speed_is_chosen() -> None:
    measured = [((64, 64), 1.0, 1), ((64, 128), 1.1, 2), ((64, 256), 1.5, 3), ((128, 256), 2.6, 4)]
    trials = [Trial(*each, busy=1.0) for each in measured]
    assert choose(trials) == (64, 256)  # 68 %, 87 % and 100 % of the best
    assert choose(trials[:2]) == (64, 128)
    assert "64 CpGs × 256 samples" in explain(trials, (64, 256)) and "10,923 pairs/s" in explain(trials, (64, 256))


def test_probe_leaves_the_module_as_it_was(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_block, "CANDIDATES", SMALL)
    monkeypatch.setattr(auto_block, "REPEATS", 1)
    datamodule = GridDataModule(str(store_path), block="auto", val_cpgs=10, val_samples=4)
    module = MethylationModule("LevyJurgenson", 40, 100).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    precision = trainer(store_path.parent, 1).precision_plugin.train_step_context
    trials = probe(module, datamodule, precision)
    # the last is cut to the training view
    assert [trial.block for trial in trials] == [(8, 8), (16, 8), (96, len(datamodule.split.sample["train"]))]
    assert trials[0].saved_bytes < trials[1].saved_bytes < trials[2].saved_bytes
    assert not module.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in module.parameters())
    taken = sum(3 * parameter.nbytes for parameter in module.parameters())
    monkeypatch.setattr(auto_block, "free_bytes", lambda device: taken + 5 * trials[0].saved_bytes)
    assert [trial.block for trial in probe(module, datamodule, precision)] == [(8, 8), (16, 8)]


@pytest.mark.parametrize(("busy", "told"), [(0.5, True), (1.0, False)])
def test_one_thread_is_tried_where_others_use_the_cores(
    busy: float,
    told: bool,
    store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def trial(module: MethylationModule, batch: GridBatch, precision: object) -> Trial:
        n_cpgs, n_samples = batch.beta_CS.shape
        return Trial((n_cpgs, n_samples), float(torch.get_num_threads()), 1, busy)

    monkeypatch.setattr(auto_block, "_trial", trial)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        datamodule = GridDataModule(str(store_path), block="auto", val_cpgs=10, val_samples=4)
        trainer(tmp_path, 1).fit(MethylationModule("LevyJurgenson", 40, 100), datamodule)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert ("2 threads take 2.00 s a step, one takes 1.00 s" in capsys.readouterr().out) == told


@pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint")
def test_a_resumed_run_keeps_the_block(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auto_block, "CANDIDATES", SMALL[:1])
    module = MethylationModule("LevyJurgenson", 40, 100)
    first = GridDataModule(str(store_path), block="auto", val_cpgs=10, val_samples=4)
    assert first.block == BLOCK
    fit = trainer(tmp_path, 2)
    fit.fit(module, first)
    assert first.block == (8, 8) and "8 CpGs × 8 samples" in capsys.readouterr().out
    fit.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.setattr(auto_block, "CANDIDATES", SMALL[1:2])
    for block, expected in (("auto", (8, 8)), ((9, 9), (9, 9))):
        again = GridDataModule(str(store_path), block=block, val_cpgs=10, val_samples=4)
        trainer(tmp_path, 3).fit(module, again, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
        assert again.block == expected and "auto" not in capsys.readouterr().out


def test_the_command_keeps_the_choice_and_trains_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_block, "CANDIDATES", SMALL[:1])
    steps = ["trainer.max_steps=2", "trainer.precision=bf16-mixed"]
    result = command("train", [*SMALL_RUN, "data.block=auto", *steps, "hydra.run.dir=run"], tmp_path)
    assert result.status == 0, result.err
    assert "data.block=auto: 8 CpGs × 8 samples" in result.out
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").data.block == [8, 8]
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert checkpoint["GridDataModule"] == {"block": [8, 8]}
    assert all(tensor.dtype != torch.bfloat16 for tensor in checkpoint["state_dict"].values())
