"""A run goes on as it began: with its own settings, its own best score, and no step after it had stopped."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from conftest import SMALL, assert_refused, command, files

from methyl_lightning.command.run_folder import LOCK, open_locked
from methyl_lightning.data.texts import SUMS
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.train.resume import RunCheckpoint

RUN = [*SMALL, "model=sequence_only", "model.learning_rate=0.01", "seed=3", "trainer.max_steps=4", "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run of four steps, and the same of eight, have been trained."""
    folder = tmp_path_factory.mktemp("trained")
    for overrides in (RUN, [*RUN, "trainer.max_steps=8", "hydra.run.dir=whole"]):
        result = command("train", overrides, folder)
        assert result.status == 0, result.err
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """Copy them, the run under another name."""
    shutil.copytree(trained / "stores", tmp_path / "stores")
    shutil.copytree(trained / "run", tmp_path / "renamed")
    return tmp_path


def state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same_end(one: Path, other: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        ends = [state(folder / name) for folder in (one, other)]
        assert ends[0]["global_step"] == ends[1]["global_step"]
        for key, value in ends[0]["state_dict"].items():
            assert torch.equal(value, ends[1]["state_dict"][key]), key
    assert (one / "metrics.json").read_text() == (other / "metrics.json").read_text()


def test_the_checkpoint_alone_goes_on_in_its_folder(trained: Path, place: Path) -> None:
    before = yaml.safe_load((place / "renamed" / "config.yaml").read_text())
    result = command("train", ["ckpt_path=renamed/last.ckpt", "trainer.max_steps=8"], place)
    assert result.status == 0, result.err
    assert f"run folder: {place / 'renamed'}" in result.out
    assert_same_end(trained / "whole", place / "renamed")
    after = yaml.safe_load((place / "renamed" / "config.yaml").read_text())
    assert after["trainer"].pop("max_steps") == 8 and before["trainer"].pop("max_steps") == 4
    assert after | {"ckpt_path": None} == before
    name, digest = "metrics.json", hashlib.sha256((place / "renamed" / "metrics.json").read_bytes()).hexdigest()
    assert f"{digest}  {name}" in (place / "renamed" / SUMS).read_text().splitlines()  # of the end, not the former one
    # what the run was started with is told where it was
    assert "seed=3" in (place / "renamed" / ".hydra" / "overrides.yaml").read_text()


def test_a_run_goes_on_in_another_folder_with_what_it_has(trained: Path, place: Path) -> None:
    overrides = [*RUN, "ckpt_path=renamed/last.ckpt", "trainer.max_steps=8", "hydra.run.dir=new"]
    before = (place / "renamed" / "last.ckpt").read_bytes()
    result = command("train", overrides, place)
    assert result.status == 0, result.err
    assert_same_end(trained / "whole", place / "new")
    assert (place / "renamed" / "last.ckpt").read_bytes() == before
    assert {"log/0/metrics.csv", "log/1/metrics.csv"} <= files(place / "new")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.learning_rate=0.1"], ["model.learning_rate=0.1: the run has 0.01", "trainer.*", "start a new run"]),
        (["data.block=[12,20]"], ["data.block=[12, 20]: the run has [24, 20]"]),
        (["data.sampling=pairs"], ["data.sampling=pairs: the run has grid"]),
        (["seed=0"], ["seed=0: the run has 3"]),
        (["model=levy_jurgenson"], ["model=levy_jurgenson: the run has sequence_only"]),
        (["+experiment=dilution"], ["experiment=dilution: the run has None"]),
        (["~data.val_cpgs"], ["data.val_cpgs=(left out): the run has 10"]),
        (["data.store=other.h5", "data.source.n_cpgs=120"], ["other.h5: is not the store of this run"]),
    ],
)
def test_other_settings_are_refused_by_name(place: Path, overrides: list[str], words: list[str]) -> None:
    if "data.store=other.h5" in overrides:
        smaller = [value.replace("n_cpgs=120", "n_cpgs=90") for value in SMALL if value.startswith("data.source.")]
        assert command("prepare", [*smaller, "data.store=other.h5"], place).status == 0
        config = place / "renamed" / "config.yaml"
        config.write_text(config.read_text().replace("n_cpgs: 120", "n_cpgs: 90"))
        overrides = overrides[:1]
    before = {name: (place / "renamed" / name).read_bytes() for name in ("config.yaml", "best.ckpt", "last.ckpt")}
    assert_refused(command("train", ["ckpt_path=renamed/last.ckpt", *overrides], place), *words)
    assert {name: (place / "renamed" / name).read_bytes() for name in before} == before


def test_a_schedule_is_not_stretched(place: Path) -> None:
    config = place / "renamed" / "config.yaml"
    config.write_text(config.read_text().replace("schedule: constant", "schedule: cosine"))
    result = command("train", ["ckpt_path=renamed/last.ckpt", "trainer.max_steps=8"], place)
    assert_refused(result, "trainer.max_steps=8: the run has max_steps=4, where its schedule ends")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + "\nextra: ${oc.env:HOME}\n", ["config.yaml: not written by"]),
        (lambda text: text.replace("lightning.Trainer", "os.system"), ["names 'os.system'", "not called"]),
        (lambda text: ": : :", ["config.yaml: missing or broken"]),
    ],
)
def test_a_strange_configuration_is_not_run(place: Path, change: Any, words: list[str]) -> None:
    config = place / "renamed" / "config.yaml"
    config.write_text(change(config.read_text()))
    assert_refused(command("train", ["ckpt_path=renamed/last.ckpt"], place), *words)


def test_without_the_best_checkpoint_a_run_does_not_go_on(place: Path) -> None:
    (place / "renamed" / "best.ckpt").unlink()
    assert_refused(command("train", ["ckpt_path=renamed/last.ckpt"], place), "best.ckpt: missing", "beside it")


def test_two_processes_do_not_go_on_with_one_run(place: Path) -> None:
    file = open_locked(place / "renamed" / LOCK, wait=False)
    assert file is not None
    result = command("train", ["ckpt_path=renamed/last.ckpt"], place)
    file.close()
    assert_refused(result, "renamed: another process is writing this run")


def test_a_moved_folder_keeps_its_best_score(tmp_path: Path) -> None:
    had = RunCheckpoint(tmp_path / "old", "best", "val/score", mode="max")
    had.best_model_score, had.best_model_path = torch.tensor(0.9), str(tmp_path / "old" / "best.ckpt")
    had.best_k_models = {had.best_model_path: had.best_model_score}
    had.kth_best_model_path, had.kth_value = had.best_model_path, had.best_model_score
    has = RunCheckpoint(tmp_path / "new", "best", "val/score", mode="max")
    has.load_state_dict(had.state_dict())
    assert has.best_model_path == str(tmp_path / "new" / "best.ckpt") and float(has.best_model_score) == pytest.approx(
        0.9
    )
    assert not has.check_monitor_top_k(L.Trainer(logger=False, enable_checkpointing=False), torch.tensor(0.8))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    taken: list[int] = []
    step = MethylationModule.training_step

    def count(module: MethylationModule, batch: Any, index: int) -> Any:
        taken.append(module.global_step)
        return step(module, batch, index)

    monkeypatch.setattr(MethylationModule, "training_step", count)
    yield taken


def test_a_run_that_had_stopped_does_not_train_on(
    place: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = [*RUN, "trainer.max_steps=400", "patience=2", "hydra.run.dir=stops"]
    assert command("train", stopping, place).status == 0
    last = state(place / "stops" / "last.ckpt")["global_step"]
    assert len(steps) == last < 400
    metrics = json.loads((place / "stops" / "metrics.json").read_text())
    (place / "stops" / "metrics.json").unlink()
    steps.clear()
    result = command("train", ["ckpt_path=stops/last.ckpt"], place)
    assert result.status == 0, result.err
    assert steps == [] and json.loads((place / "stops" / "metrics.json").read_text()) == metrics
    assert command("train", ["ckpt_path=stops/last.ckpt", "patience=3"], place).status == 0
    assert steps[0] == last  # whoever asks for more gets it
