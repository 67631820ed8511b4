"""In bf16-mixed only products are rounded: what is trained, and what a checkpoint keeps, stays float32."""

from pathlib import Path

import torch
from conftest import SMALL, command


def test_weights_stay_float32_in_bfloat16_training(tmp_path: Path) -> None:
    steps = ["trainer.max_steps=2", "trainer.precision=bf16-mixed"]
    result = command("train", [*SMALL, *steps, "hydra.run.dir=run"], tmp_path)
    assert result.status == 0, result.err
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert all(tensor.dtype != torch.bfloat16 for tensor in checkpoint["state_dict"].values())
