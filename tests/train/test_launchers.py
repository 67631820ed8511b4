"""Jobs of a sweep side by side, and jobs that SLURM puts back into its queue."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Result, assert_refused, command, files, process

from methyl_lightning.model.module import MethylationModule

MODEL = [*SMALL, "model=sequence_only", "trainer.max_steps=6"]
SLURM = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_RESTART_COUNT": "0"}
# SLURM ends a job that it puts back
SCONTROL = '#!/bin/sh\necho "$@" >> "$ASKED"\nkill -TERM $PPID\n'


def test_jobs_side_by_side_train_once(workplace: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    (tmp_path / "stores").symlink_to(workplace / "stores")
    sweep = ["--multirun", "+experiment=dilution", *MODEL, "dilution.repeats=2", "dilution.match=scaler"]
    sweep += ["dilution.retention=3,300", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep"]
    result = process(["-m", "methyl_lightning.train", *sweep], tmp_path)
    assert result.status == 0, result.err
    notes = [json.loads((tmp_path / "sweep" / job / "training.json").read_text()) for job in "01"]
    assert sorted(note["trained_in"] == "." for note in notes) == [False, True]
    assert all("dilution.csv" in files(tmp_path / "sweep" / job) for job in "01")
    assert result.err.count("waits for another job") == 1 and result.err.count("step 6/6") == 1


def test_a_launcher_without_its_plugin_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = "hydra_plugins.hydra_submitit_launcher"
    try:
        __import__(launcher)
    except ImportError:
        result = command("train", ["--multirun", "+launcher=slurm", "seed=0,1"], tmp_path)
        assert_refused(result, "hydra/launcher=submitit_slurm", "pip install hydra-submitit-launcher")
    else:
        arguments = ["-m", "methyl_lightning.train", "+launcher=slurm", "--cfg", "hydra", "--package", "hydra.launcher"]
        result = process(arguments, tmp_path)
        assert "SlurmLauncher" in result.out and "timeout_min: 240" in result.out, result.err


def in_slurm(folder: Path, overrides: list[str], **environment: str) -> Result:
    """Run in a job of a SLURM whose ``scontrol`` tells what it was asked, and ends the job."""
    scontrol = folder / "bin" / "scontrol"
    scontrol.parent.mkdir(exist_ok=True)
    scontrol.write_text(SCONTROL)
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}:{os.environ['PATH']}"
    return command("train", overrides, folder, **SLURM | {"PATH": path, "ASKED": str(folder / "asked")} | environment)


@pytest.mark.parametrize("sweep", [False, True])
def test_a_job_that_slurm_puts_back_goes_on(workplace: Path, tmp_path: Path, sweep: bool) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    single = ["hydra.run.dir=runs/${now:%H-%M-%S-%f}"]  # another one each time, as by default
    place = ["--multirun", "hydra.sweep.dir=sweep"] if sweep else single
    step, asked = MethylationModule.training_step, []

    def asked_in_the_middle(module: MethylationModule, *batch: object) -> object:
        if module.global_step == 4 and not asked:
            asked.append(module.global_step)
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(module, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethylationModule, "training_step", asked_in_the_middle)
        first = in_slurm(tmp_path, [*place, *MODEL])
    assert asked and first.status == 128 + signal.SIGTERM, first.err
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    (saved,) = tmp_path.rglob("hpc_ckpt_1.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 5  # the step that ran is whole
    other = in_slurm(tmp_path, ["hydra.run.dir=runs/other", *MODEL], SLURM_JOB_ID="78", SLURM_RESTART_COUNT="1")
    assert other.status == 0 and "step 2/6" in other.err  # another job's
    if sweep:  # the launcher starts the job again, not the sweep
        (tmp_path / "sweep" / "multirun.yaml").unlink()
    second = in_slurm(tmp_path, [*place, *MODEL], SLURM_RESTART_COUNT="1")
    assert second.status == 0, second.err
    assert "step 2/6" not in second.err and "step 6/6" in second.err
    assert "metrics.json" in files(saved.parent) and not saved.exists()
    ends = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (saved.parent, tmp_path / "runs/other")]
    assert all(torch.equal(value, ends[1]["state_dict"][name]) for name, value in ends[0]["state_dict"].items())
    assert ends[0]["callbacks"]["Pace"] == ends[1]["callbacks"]["Pace"]


def test_a_job_of_this_machine_that_submitit_starts_again_goes_on(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    place = ["--multirun", "hydra.sweep.dir=sweep", *MODEL]
    step = MethylationModule.training_step

    def out_of_time(module: MethylationModule, *batch: object) -> object:
        if module.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(module, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethylationModule, "training_step", out_of_time)
        assert command("train", place, tmp_path, SUBMITIT_LOCAL_JOB_ID="9").status == 128 + signal.SIGTERM
    (tmp_path / "sweep" / "multirun.yaml").unlink()
    assert "sweep/0: holds another run" in command("train", place, tmp_path, SUBMITIT_LOCAL_JOB_ID="10").err
    (tmp_path / "sweep" / "multirun.yaml").unlink()
    again = command("train", place, tmp_path, SUBMITIT_LOCAL_JOB_ID="9")
    assert again.status == 0 and "step 2/6" not in again.err and "step 6/6" in again.err
