"""Several processes: torchrun, another number of them, and one that dies. Two CPUs over gloo; no GPU."""

from pathlib import Path

import pytest
import torch
from conftest import SMALL, command, process

from methyl_lightning.data.datamodule import Block, GridDataset

TWO = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "methyl_lightning.train", "trainer=ddp"]
MODEL = [*SMALL, "model=sequence_only", "trainer.max_steps=4"]


def test_torchrun_and_going_on_with_one_process(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    result = process([*TWO, *MODEL, "hydra.run.dir=two"], tmp_path)
    assert result.status == 0 and "Traceback" not in result.err, result.err
    assert result.out.count("run folder: ") == 1 and "test_cpg-test_sample" in result.out
    # a step of two processes is a step over their two blocks
    one = [*MODEL, "trainer.val_check_interval=4", "+trainer.accumulate_grad_batches=2", "hydra.run.dir=one"]
    assert command("train", one, tmp_path).status == 0
    ends = [torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("two", "one")]
    assert [end["GridDataModule"]["blocks"] for end in ends] == [8, 8]
    weights = {name for name in ends[0]["state_dict"] if name.endswith(("weight", "bias"))}
    for name in weights:  # not the running statistics, which are of the first process's blocks
        if name.endswith("convolution.bias"):  # batch normalisation takes it out: its gradient is rounding alone
            continue
        torch.testing.assert_close(ends[0]["state_dict"][name], ends[1]["state_dict"][name], rtol=1e-4, atol=1e-5)

    taken: list[int] = []
    read = GridDataset.__getitem__

    def reading(dataset: GridDataset, block: Block) -> object:
        taken.append(block.number)
        return read(dataset, block)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridDataset, "__getitem__", reading)
        alone = ["trainer.devices=1", "+trainer.strategy=auto", "trainer.max_steps=6"]
        result = command("train", ["ckpt_path=two/last.ckpt", *alone], tmp_path)
    assert result.status == 0, result.err
    assert "goes on with 1 process instead of 2: blocks come in the same order" in result.err
    assert [number for number in taken if number] == [8, 9]
