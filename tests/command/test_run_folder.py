"""A run folder belongs to one run: another gets a name of its own, or one line, and locks end with their process."""

import subprocess
import sys
from pathlib import Path

from conftest import DATA, SMALL, assert_refused, command, files
from omegaconf import OmegaConf

from methyl_lightning.command.run_folder import release, take

QUICK = [*SMALL, "model=constant"]


def test_a_second_run_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for seed in (0, 1):
        result = command("train", [*QUICK, "hydra.run.dir=run", f"seed={seed}"], tmp_path)
        assert result.status == 0, result.err
    assert "run: belongs to another run; this one writes into" in result.err
    assert f"run folder: {tmp_path / 'run-2'}" in result.out
    for folder, seed in (("run", 0), ("run-2", 1)):
        assert OmegaConf.load(tmp_path / folder / "config.yaml").seed == seed
    checkpoints = [(tmp_path / folder / "split.json").read_text() for folder in ("run", "run-2")]
    assert checkpoints[0] != checkpoints[1]


def test_two_runs_started_in_the_same_second_do_not_meet(tmp_path: Path) -> None:
    """The folder of the first holds nothing yet when the second starts."""
    script = "import pathlib, methyl_lightning.command.run_folder as r; print(r.take(pathlib.Path('run'), ())); input()"
    holds = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holds.stdout is not None and holds.stdout.readline() == "True\n"
    result = command("train", [*QUICK, "hydra.run.dir=run"], tmp_path)
    assert result.status == 0, result.err
    assert files(tmp_path / "run") == {".lock"} and "metrics.json" in files(tmp_path / "run-2")
    holds.kill()
    holds.communicate()
    assert take(tmp_path / "run", ("config.yaml",))  # the lock of a killed process is nobody's
    assert not take(tmp_path / "run", ("config.yaml",))
    release()
    assert files(tmp_path / "run") == set()


def test_a_folder_without_a_run_is_taken_again(tmp_path: Path) -> None:
    assert_refused(command("train", [*QUICK, "hydra.run.dir=run", "patience=0"], tmp_path), "patience=0")
    assert command("train", [*QUICK, "hydra.run.dir=run"], tmp_path).status == 0
    assert "metrics.json" in files(tmp_path / "run") and not (tmp_path / "run-2").exists()


def test_jobs_of_a_sweep_do_not_share_a_folder(tmp_path: Path) -> None:
    assert command("prepare", DATA, tmp_path).status == 0
    sweep = ["--multirun", *QUICK, "hydra.sweep.dir=sweep", "seed=0,1"]
    result = command("train", [*sweep, "hydra.sweep.subdir=job"], tmp_path)
    assert result.status == 2 and "job: holds another run; let hydra.sweep.subdir differ" in result.err
    assert command("train", sweep, tmp_path).status == 0
    assert {"0/metrics.json", "1/metrics.json"} <= files(tmp_path / "sweep-2")
    assert OmegaConf.load(tmp_path / "sweep-2" / "1" / "config.yaml").seed == 1
