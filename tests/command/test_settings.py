"""Settings are typed at the door of each command: a wrong one is one line, and nothing is written."""

from pathlib import Path

import pytest
from conftest import assert_refused, command, files

NUMBER, TEXT, DICTIONARY = "input should be a valid number", "input should be a valid string", "a valid dictionary"


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("predict", "k=x", "k=x: input should be a valid integer"),
        ("predict", "k=0", "k=0: input should be greater than or equal to 1"),
        ("predict", "min_coverage=x", f"min_coverage=x: {NUMBER}"),
        ("predict", "min_coverage=7", "min_coverage=7: input should be less than or equal to 1"),
        ("predict", "raw=x", "raw=x: input should be a valid boolean"),
        ("predict", "checkpoint=[a]", "checkpoint=[a]: Hydra reads brackets otherwise; quote"),
        ("predict", "describe=5", "5: no such checkpoint"),
        ("evaluate", "checkpoint=null", f"checkpoint=null: {TEXT}"),
        ("evaluate", "checkpoint=5", "5: no such checkpoint"),
        ("evaluate", "seed=x", "seed=x: must be a whole number"),
        ("evaluate", "store=[a]", "store=[a]: Hydra reads brackets otherwise; quote"),
        ("evaluate", "+dilution=5", "dilution=5: input should be a valid dictionary"),
        ("interpret", "store=[a]", "store=[a]: Hydra reads brackets otherwise; quote"),
        ("interpret", "top=x", "top=x: input should be a valid integer"),
        ("interpret", "mutate=-1", "mutate=-1: input should be greater than or equal to 0"),
        ("report", "runs={a: 1}", "runs={a: 1}: Hydra reads brackets otherwise; quote"),
        ("report", "sweep=5", "5: no dilution test in its subfolders"),
        ("prepare", "check=[a]", "check=[a]: Hydra reads brackets otherwise; quote"),
        ("prepare", "data.store=null", f"data.store=null: {TEXT}"),
        ("prepare", "data.source=5", f"data.source=5: input should be {DICTIONARY}"),
        ("train", "data.store=null", f"data.store=null: {TEXT}"),
        ("train", "data.num_workers=-1", "data.num_workers=-1: must be a whole number of at least 0"),
        ("train", "references=5", f"references=5: input should be {DICTIONARY}"),
        ("train", "+references.a=5", f"references.a=5: input should be {DICTIONARY}"),
        ("train", "average_decay=x", f"average_decay=x: {NUMBER}"),
        ("train", "trainer.max_epochs=x", "trainer.max_epochs=x: input should be a valid integer"),
        ("train", "trainer.log_every_n_steps=x", "trainer.log_every_n_steps=x: input should be a valid integer"),
        ("train", "logger=5", "logger=5: not an option of this group"),
        ("train", "seed=x", "seed=x: must be a whole number"),
    ],
)
def test_a_setting_of_another_type_is_one_line(tmp_path: Path, name: str, setting: str, words: str) -> None:
    given = ["checkpoint=none.ckpt"] if name in ("evaluate", "interpret") else []
    place = ["hydra.run.dir=run"] if name in ("train", "evaluate") else []
    assert_refused(command(name, [*given, setting, *place], tmp_path), words)
    assert {path.split("/")[0] for path in files(tmp_path)} <= {"run"}
    assert not any(path.endswith((".h5", "config.yaml")) for path in files(tmp_path) if ".hydra" not in path)


def test_a_number_is_text_where_text_is_meant_and_the_last_counts(tmp_path: Path) -> None:
    result = command("predict", ["checkpoint=none.ckpt", "checkpoint=1.0", "expression=1", "output=2.h5ad"], tmp_path)
    assert_refused(result, "1.0: no such checkpoint")


@pytest.mark.parametrize("longest", [0, 7, 99])
def test_longer_kmers_do_not_hang(tmp_path: Path, longest: int) -> None:
    result = command("train", ["model=kmer_gbm", f"model.longest_kmer={longest}", "hydra.run.dir=run"], tmp_path)
    assert_refused(result, f"model.longest_kmer={longest}: must be 1 … 6")
