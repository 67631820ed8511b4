"""SIGTERM and Ctrl-C: a status that is no success, and one line with the command that goes on."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Result, command, files

from methyl_lightning.evaluate import evaluation
from methyl_lightning.model.module import MethylationModule

RUN = [*SMALL, "model=sequence_only", "trainer.max_steps=6"]


def kill_in(patch: pytest.MonkeyPatch, target: Any, number: int, when: Callable[..., bool] = lambda *_: True) -> None:
    """Send this process a signal as soon as a function is called."""
    module, name = target
    original = getattr(module, name)

    def killed(*args: Any, **settings: Any) -> Any:
        if when(*args):
            os.kill(os.getpid(), number)
        return original(*args, **settings)

    patch.setattr(module, name, killed)


def assert_stopped(result: Result, number: int, *words: str) -> str:
    """Exactly one line beside the progress; return the command that it gives."""
    assert result.status == 128 + number
    lines = [line for line in result.err.splitlines() if ": step " not in line]
    assert len(lines) == 1 and lines[0].startswith(f"stopped by {signal.Signals(number).name}; "), result.err
    assert all(word in lines[0] for word in words)
    return lines[0].split(": ", 1)[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_fit_that_is_stopped_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    assert command("train", [*RUN, "hydra.run.dir=whole"], tmp_path).status == 0
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, (MethylationModule, "training_step"), number, lambda module, *_: module.global_step == 5)
        result = command("train", [*RUN, "hydra.run.dir=a run"], tmp_path)
    shown = assert_stopped(result, number, "go on with: python -m methyl_lightning.train ", "last.ckpt")
    assert signal.getsignal(number) == before
    assert not [name for name in files(tmp_path) if name.endswith((".part", ".lock"))]
    assert torch.load(tmp_path / "a run" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert command("train", shlex.split(shown)[3:], tmp_path).status == 0
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "a run")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_before_the_first_checkpoint_a_run_starts_again(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, (MethylationModule, "training_step"), signal.SIGTERM)
        result = command("train", [*RUN, "hydra.run.dir=run"], tmp_path)
    assert_stopped(result, signal.SIGTERM, "start again with: ", "model=sequence_only")


def test_the_test_of_a_run_is_stopped_alike(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, (evaluation, "to_anndata"), signal.SIGTERM)
        result = command("train", [*RUN, "hydra.run.dir=run"], tmp_path)
    assert_stopped(result, signal.SIGTERM, "go on with: python -m methyl_lightning.train ckpt_path=")
    shutil.copytree(workplace / "run", tmp_path / "tested", ignore=shutil.ignore_patterns("*.h5ad"))
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, (evaluation, "to_anndata"), signal.SIGINT)
        result = command("evaluate", ["checkpoint=tested/best.ckpt", "hydra.run.dir=again"], tmp_path)
    assert_stopped(result, signal.SIGINT, "start again with: ", "checkpoint=tested/best.ckpt")
    assert "metrics.json" in files(tmp_path / "again") and not list((tmp_path / "again").glob("*.h5ad"))


def two_processes(workplace: Path, tmp_path: Path) -> subprocess.Popen[bytes]:
    """Start a training in two processes, and wait until it has a checkpoint."""
    overrides = [*RUN, f"data.store={workplace / 'stores' / 'simulated.h5'}", "trainer=ddp", "trainer.max_steps=100000"]
    arguments = [sys.executable, "-m", "methyl_lightning.train", *overrides, "patience=100000", "hydra.run.dir=run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not (tmp_path / "run" / "last.ckpt").is_file():
        assert run.poll() is None
        time.sleep(0.2)
    return run


def test_one_that_dies_ends_both_within_a_minute(workplace: Path, tmp_path: Path) -> None:
    run = two_processes(workplace, tmp_path)
    (other,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(other), signal.SIGKILL)
    said = run.communicate(timeout=60)[1].decode().splitlines()
    assert run.returncode == 2 and "Traceback" not in "".join(said)
    assert said[-1].startswith("error: process 1 of 2 ended (SIGKILL) at step ")
    assert "last validation with: python -m methyl_lightning.train ckpt_path=" in said[-1]


def test_the_first_of_two_processes_ends_both(workplace: Path, tmp_path: Path) -> None:
    run = two_processes(workplace, tmp_path)
    run.terminate()
    said = run.communicate(timeout=60)[1].decode().splitlines()  # the pipe closes when both have ended
    assert run.returncode == 128 + signal.SIGTERM
    assert said[-1].startswith("stopped by SIGTERM; go on with: ") and "Traceback" not in "".join(said)
