"""Jobs that differ in settings of their test train once, and W&B's files of an offline sweep say what a run was."""

import json
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import SMALL, assert_refused, command, files
from omegaconf import OmegaConf
from wandb_files import read_wandb

from methyl_lightning.data.store import Store
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.train.once import TRAININGS, fingerprint, trained_once

LEVELS = [3, 300]
TEST = [
    "+experiment=dilution",
    *SMALL,
    "model=sequence_only",
    "trainer.max_steps=4",
    "dilution.repeats=2",
    "dilution.match=scaler",
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where levels were tested one by one in a sweep, and together in a run."""
    folder, steps = tmp_path_factory.mktemp("swept"), []
    step = MethylationModule.training_step
    sweep = ["--multirun", *TEST, f"dilution.retention={','.join(map(str, LEVELS))}", "logger=wandb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethylationModule, "training_step", lambda *args: steps.append(0) or step(*args))
        result = command("train", [*sweep, "hydra.sweep.dir=sweep"], folder, WANDB_MODE="offline", WANDB_SILENT="true")
    assert result.status == 0, result.err
    assert len(steps) == 4  # of the first job alone
    assert "sweep/1: checkpoint and test are those of" in result.out
    assert result.out.count("wandb sync") == 2
    result = command("train", [*TEST, f"dilution.retention={LEVELS}", "hydra.run.dir=single"], folder)
    assert result.status == 0, result.err
    return folder


def test_a_sweep_over_levels_trains_once(swept: Path) -> None:
    first, second = (swept / "sweep" / job for job in "01")
    notes = [json.loads((folder / "training.json").read_text()) for folder in (first, second)]
    assert [note["trained_in"] for note in notes] == [".", "../0"]
    assert notes[0]["fingerprint"] == notes[1]["fingerprint"]
    assert (second / notes[1]["trained_in"] / "best.ckpt").samefile(first / "best.ckpt")
    own = {"config.yaml", "training.json", "metrics.json", "best.ckpt", "references/ceiling/metrics.json", "table.md"}
    assert own <= files(second)
    assert OmegaConf.load(second / "config.yaml").dilution.retention == LEVELS[1]
    assert set(pd.read_csv(second / "dilution.csv")["retention"].dropna()) == {LEVELS[1]}


def test_sweep_and_single_run_give_the_same_numbers(swept: Path) -> None:
    keys = ["test", "retention", "repeat"]
    single = pd.read_csv(swept / "single" / "dilution.csv").sort_values(keys, ignore_index=True)
    jobs = pd.concat([pd.read_csv(swept / "sweep" / job / "dilution.csv") for job in "01"])
    pd.testing.assert_frame_equal(jobs.drop_duplicates(keys).sort_values(keys, ignore_index=True), single)
    for name in ("metrics.json", "strata.csv"):
        assert (swept / "single" / name).read_text() == (swept / "sweep" / "1" / name).read_text()
    states = [torch.load(swept / run / "best.ckpt", weights_only=True)["state_dict"] for run in ("single", "sweep/1")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_decides_training_decides_the_fingerprint(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(swept)
    cfg, store = OmegaConf.load("single/config.yaml"), Store("stores/simulated.h5")
    key = fingerprint(cfg, store)
    for name, value, same in (
        ("dilution.retention", 7, True),
        ("data.num_workers", 2, True),
        ("name", "other", True),
        ("seed", 1, False),
        ("model.learning_rate", 0.1, False),
        ("data.train_retention", [7], False),
        ("trainer.max_steps", 5, False),
        ("average_decay", 0.9, False),
        ("new_setting", 1, False),  # what nobody has thought of decides
    ):
        other = OmegaConf.merge(cfg)
        OmegaConf.update(other, name, value, force_add=True)
        assert (fingerprint(other, store) == key) is same, name
    Path("stores/simulated.h5").touch()
    assert fingerprint(cfg, Store("stores/simulated.h5")) != key


def test_jobs_of_a_parallel_launcher_wait_and_take_over(tmp_path: Path) -> None:
    order: list[Any] = []
    (tmp_path / "0").mkdir()
    started = threading.Event()

    def second() -> None:
        with trained_once(tmp_path, "key", tmp_path / "1") as former:
            order.append(former)

    with trained_once(tmp_path, "key", tmp_path / "0") as former:
        assert former is None
        other = threading.Thread(target=lambda: (started.set(), second()))
        other.start()
        started.wait()
        other.join(0.2)
        assert other.is_alive() and order == []
        (tmp_path / "0" / "metrics.json").write_text("{}")
    other.join(10)
    assert order == [tmp_path / "0"]
    with pytest.raises(KeyError), trained_once(tmp_path, "failing", tmp_path / "0"):
        raise KeyError
    with trained_once(tmp_path, "failing", tmp_path / "1") as former:
        assert former is None  # what failed is trained again
    assert {"key.json", "failing.json"} <= files(tmp_path / TRAININGS)


def test_a_sweep_with_processes_is_one_line(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    overrides = ["--multirun", *SMALL, "trainer=ddp", "seed=0,1", "hydra.sweep.dir=sweep"]
    result = command("train", overrides, tmp_path)
    told = [line for line in result.err.splitlines() if "[HYDRA]" not in line]
    assert_refused(result._replace(err=told[0] + "\n"), "trainer.devices=2", "one device a job", "torchrun")
    assert len(told) == 1


def test_wandb_knows_the_settings_and_the_data(swept: Path) -> None:
    told = read_wandb(swept / "sweep" / "1")
    assert told["name"] == "sequence_only retention=300 seed=0"
    assert (told["group"], told["job"], told["tags"]) == ("sweep", "dilution", ["sequence_only", "simulated"][::-1])
    config = OmegaConf.to_container(OmegaConf.load(swept / "sweep" / "1" / "config.yaml"))
    assert isinstance(config, dict) and config.pop("logger").keys() == told["config"]["logger"].keys() == {"wandb"}
    assert {name: told["config"][name] for name in config} == config
    assert told["config"]["split"]["cpg"] == {"test": 12, "val": 12, "train": 96}
    assert told["config"]["provenance"]["source"]["settings"]["n_cpgs"] == 120
    assert {"methyl_lightning", "torch", "wandb"} <= told["config"]["versions"].keys()


def test_wandb_draws_over_steps_and_levels(swept: Path) -> None:
    first, second = (read_wandb(swept / "sweep" / job) for job in "01")
    assert first["steps"]["dilution/mae"] == "dilution/retention"
    assert first["steps"]["val/mae"] == "trainer/global_step"
    assert (first["best"]["val/mae"], first["best"]["val/spearman"]) == ((True, False), (False, True))
    for told, level in ((first, 3), (second, 300)):
        (row,) = [row for row in told["history"] if "dilution/mae" in row]
        frame = pd.read_csv(swept / "single" / "dilution.csv")
        expected = frame.loc[frame["retention"] == level, "mae"].mean()
        assert row["dilution/retention"] == level and row["dilution/mae"] == pytest.approx(expected, rel=1e-9)
        assert row["dilution/mae_low"] <= row["dilution/mae"] <= row["dilution/mae_high"]
        metrics = json.loads((swept / "single" / "metrics.json").read_text())
        for short, view in (("unseen_unseen", "test_cpg-test_sample"), ("unseen_seen", "test_cpg-train_sample")):
            assert told["summary"][f"test/{short}/mae"] == metrics[view]["mae"]
            sides = [told["summary"][f"test/{short}/mae_{side}"] for side in ("low", "high")]
            assert sides == metrics[view]["mae_ci95"]
        ceiling = json.loads((swept / "single" / "references" / "ceiling" / "metrics.json").read_text())
        for metric in ("mae", "spearman", "mas_pcc"):
            shown = told["summary"][f"references/ceiling/unseen_unseen/{metric}"]
            assert shown == ceiling["test_cpg-test_sample"][metric]
    assert [row["val/mae"] for row in first["history"] if "val/mae" in row]
    steps = [row for row in first["history"] if "train/pairs" in row]
    assert [row["train/pairs"] for row in steps] == [408, 816, 1224, 1632]  # of 24 CpGs and 17 samples each
    for name in ("train/gradient_norm", "train/pairs_per_second", "train/peak_rss_gb", "train/mae"):
        assert all(row[name] > 0 for row in steps), name
    assert all(row["train/learning_rate"] == 1e-3 for row in steps)
    assert first["summary"]["cost/steps"] == second["summary"]["cost/steps"] == 4


def test_wandb_keeps_the_report_the_model_and_the_tables(swept: Path) -> None:
    told = read_wandb(swept / "sweep" / "1")
    assert told["artifacts"]["report"] == ["report.html"]
    assert set(told["artifacts"]["model"]) == {"best.ckpt", "card.txt", "metrics.json"}
    assert told["artifacts"]["store"] == ["provenance.json"] and told["inputs"] == ["store-simulated"]
    assert told["digests"]["store"] == read_wandb(swept / "sweep" / "0")["digests"]["store"]
    assert "limits of use" in (swept / "sweep" / "1" / "card.txt").read_text()
    logged = set().union(*(row.keys() for row in told["history"]))
    shown = {name.split(".")[0].removeprefix("report/") for name in logged}
    assert {"scores", "results", "strata", "dilution", "dilution_retention", "mae_of_models_table"} <= shown
    assert {"report/mae_of_models", "report/mas_pcc_of_models"} <= told["charts"]
    assert told["exit"] == 0


KEY = "0123456789abcdef0123456789abcdef01234567"


def test_a_key_without_a_server_is_offline_after_one_line(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    environment = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "WANDB_SILENT": "true"}
    overrides = [*SMALL, "model=constant", "logger=wandb", "hydra.run.dir=run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        result = command("train", overrides, tmp_path, **environment)
    assert result.status == 0, result.err
    assert [line for line in result.err.splitlines() if "W&B" in line] == [
        "W&B: http://127.0.0.1:9 does not answer; this run is logged offline"
    ]
    assert read_wandb(tmp_path / "run")["name"] == "constant block=[24,20] val_cpgs=10 val_samples=4 seed=0"
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert KEY not in result.out + result.err and not [p for p in written if KEY.encode() in p.read_bytes()]


def test_a_failed_job_is_marked_failed(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    overrides = [*SMALL, "model=sequence_only", "trainer.max_steps=1", "logger=wandb", "hydra.run.dir=run"]
    result = command("train", overrides, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    assert_refused(result, "before its first validation")
    assert read_wandb(tmp_path / "run")["exit"] == 1
