"""Averaged weights, the schedule and the smoothed score: what they are; a run with them goes on as it began."""

import json
import math
from itertools import pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import REPRODUCE, SMALL, assert_refused, command

from methyl_lightning.model.module import MethylationModule, rate_share
from methyl_lightning.train.averaging import RunAveraging

STEADY = ["average_decay=0.8", "score_window=2", "model.schedule=cosine", "patience=9"]


def weights(path: Path, key: str = "state_dict") -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)[key]


def assert_equal(some: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert some.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in some.items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train whole, and train the same in two parts: four steps of eight, then the rest."""
    folder = tmp_path_factory.mktemp("steady")
    train = [*SMALL, *STEADY, "trainer.max_steps=8"]
    result = command("train", [*train, "hydra.run.dir=whole"], folder)
    assert result.status == 0, result.err
    stop = "+trainer.limit_train_batches=4"  # ends the first part; the schedule is that of eight steps
    result = command("train", [*train, stop, "trainer.max_epochs=1", "hydra.run.dir=part"], folder)
    assert result.status == 0, result.err
    assert torch.load(folder / "part" / "last.ckpt", weights_only=True)["global_step"] == 4
    result = command(
        "train",
        ["+trainer.limit_train_batches=1.0", "trainer.max_epochs=-1", "ckpt_path=part/last.ckpt", "hydra.run.dir=part"],
        folder,
    )
    assert result.status == 0, result.err
    return folder


def test_a_run_with_them_goes_on_as_it_began(runs: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        assert_equal(weights(runs / "whole" / name), weights(runs / "part" / name))
    for key in ("current_model_state", "averaging_state"):
        assert_equal(weights(runs / "whole" / "last.ckpt", key), weights(runs / "part" / "last.ckpt", key))
    whole, part = (json.loads((runs / name / "metrics.json").read_text()) for name in ("whole", "part"))
    assert whole == part


def test_checkpoints_hold_the_mean_of_the_weights(runs: Path) -> None:
    last = torch.load(runs / "whole" / "last.ckpt", weights_only=True)
    name = "network.connected.weight"
    assert not torch.equal(last["state_dict"][name], last["current_model_state"][name])
    best = torch.load(runs / "whole" / "best.ckpt", weights_only=True)
    assert not {"current_model_state", "averaging_state", "optimizer_states"} & best.keys()
    if best["global_step"] == 8:
        assert_equal(best["state_dict"], last["state_dict"])


def test_the_mean_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    module, averaging = MethylationModule("SequenceOnly", 3, 20), RunAveraging(0.7)
    averaging.setup(L.Trainer(logger=False, enable_checkpointing=False), module, "fit")
    assert averaging._average_model is not None
    expected: dict[str, torch.Tensor] = {}
    for step in range(6):
        decay = min(0.7, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            value.copy_(torch.randn(value.shape) * 10)
            mean = step > 0 and value.is_floating_point()
            expected[name] = decay * expected[name] + (1 - decay) * value if mean else value.clone()
        averaging._average_model.update_parameters(module)
    assert module.saved_weights is not None
    found = module.saved_weights()
    assert found.keys() == expected.keys() and any(not value.is_floating_point() for value in found.values())
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_the_rate_warms_up_and_falls() -> None:
    shares = [rate_share(step, 100) for step in range(101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1]) and shares[5] == 1
    assert all(after < before for before, after in pairwise(shares[5:]))
    assert shares[52] == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95))) and shares[100] == pytest.approx(0)
    assert [rate_share(step, 2) for step in (0, 1, 2)] == pytest.approx([1, 1, 0])
    with pytest.raises(ValueError, match="schedule='steps': must be one of"):
        MethylationModule("LevyJurgenson", 40, 100, schedule="steps")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("average_decay=1", "average_decay=1: must lie between 0 and 1"),
        ("score_window=0", "score_window=0: must be a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, setting: str, words: str) -> None:
    assert_refused(command("train", [*REPRODUCE, setting], tmp_path), words)


def test_a_schedule_needs_its_length(tmp_path: Path) -> None:
    refused = command("train", [*REPRODUCE, "model.schedule=cosine", "trainer.max_steps=-1"], tmp_path)
    assert_refused(refused, "trainer.max_steps=-1: a schedule needs a number of steps")
