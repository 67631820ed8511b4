"""Every wrong word in one line, with a status, and nothing written."""

from pathlib import Path

import pytest
from conftest import DATA, SMALL, assert_refused, command, files, process

from methyl_lightning.data.store import Store


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.nonsense=1"], ["'data.nonsense'"]),
        (["model=nonsense"], ["'model/nonsense'", "levy_jurgenson"]),
        (["+experiment=nonsense"], ["'experiment/nonsense'", "reproduce"]),
        (["data=nonsense"], ["'data/nonsense'", "tcga_xena"]),
        (["logger=null"], ["logger=null: not an option of this group", "--help"]),
        (["+experiment=null"], ["experiment=null: not an option of this group"]),
        (["model.variant=7"], ["variant=7: must be one of (1, 2, 3, 'port1')"]),
        (["model.learning_rate=-1"], ["learning_rate=-1: must be positive"]),
        (["+model.nonsense=1"], ["nonsense"]),
        (["data.sampling=cells"], ["sampling='cells'"]),
        (["data.block=1"], ["block=[1, 1]"]),
        (["data.val_cpgs=0"], ["val_cpgs=0"]),
        (["data.block=large"], ["block="]),
        (["data.fractions=[.5,.5]"], ["fractions=[0.5, 0.5]", "sum to 1"]),
        (["data.fractions=[.97,.02,.01]"], ["simulated.h5: the test part has 1 of 120 CpGs", "data.fractions"]),
        (["data.cpg_split=genes"], ["cpg_split='genes': must be one of"]),
        (["data.most_variable=121"], ["simulated.h5: 120 CpGs have a variance", "lower data.most_variable"]),
        (["data.split_file=none.json"], ["none.json: no such split"]),
        (["data.split_file=stores/simulated.h5"], ["stores/simulated.h5: not a saved split"]),
        (["trainer.max_steps=many"], ["trainer.max_steps=many", "integer"]),
        (["trainer.devices=0"], ["devices=0"]),
        (["+trainer.nonsense=1"], ["nonsense"]),
        (["+trainer.sync_batchnorm=true"], ["sync_batchnorm=true", "leave it out"]),
        (["trainer.precision=bf16-true"], ["trainer.precision=bf16-true: not supported", "bf16-mixed"]),
        (["+trainer.overfit_batches=1"], ["trainer.overfit_batches=1: not supported", "data.most_variable"]),
        (["+trainer.limit_val_batches=0"], ["trainer.limit_val_batches=0: not supported", "chosen by validation"]),
        (["+trainer.limit_val_batches=0.0"], ["trainer.limit_val_batches=0.0: not supported"]),
        (["trainer.val_check_interval=often"], ["trainer.val_check_interval=often: must be above 0"]),
        (["hydra.run.dir=stores/simulated.h5/x"], ["simulated.h5/x: Not a directory", "hydra.run.dir=FOLDER"]),
        (["hydra.run.dir=" + 300 * "x"], ["File name too long", "shorter name"]),
        (["name=a=b"], ["name=a=b: Hydra reads", "quote the value: 'name=\"a=b\"'"]),
        (["data.store=s,1.h5"], ["data.store=s,1.h5: Hydra reads", "'data.store=\"s,1.h5\"'", "--multirun"]),
        (["data.store=Ä (1).h5"], ["data.store=Ä (1).h5: Hydra reads", "'data.store=\"Ä (1).h5\"'"]),
        (["ckpt_path=none.ckpt"], ["none.ckpt: no such checkpoint"]),
        (["ckpt_path=run/split.json"], ["run/split.json: no such checkpoint, or truncated"]),
        (["ckpt_path=run/best.ckpt"], ["run/best.ckpt: holds weights alone", "last.ckpt"]),
        (["trainer.val_check_interval=0"], ["trainer.val_check_interval=0: must be above 0"]),
        (["seed=abc"], ["seed=abc: must be a whole number"]),
        (["patience=0"], ["patience=0: must be a whole number of at least 1"]),
        (["data.store=null"], ["data.store=null: input should be a valid string"]),
        (["data.num_workers=-1"], ["data.num_workers=-1: must be a whole number of at least 0"]),
        (["data.val_cpgs=many"], ["data.val_cpgs=many", "valid integer"]),
        (["model=cpg_mean", "model.longest_kmer=99"], ["model.longest_kmer=99: must be 1 … 6"]),
        (["+model@references.constant=cpg_mean", "references.constant.longest_kmer=x"], ["longest_kmer=x", "integer"]),
        (["+experiment=dilution", "dilution.retention=-3"], ["retention=-3: with mask"]),
        (["+experiment=dilution", "dilution.method=half"], ["method='half': must be one of"]),
        (["+experiment=dilution", "dilution.repeats=0"], ["dilution.repeats=0", "at least one"]),
        (["+experiment=dilution", "dilution.repeats=few"], ["dilution.repeats=few", "valid integer"]),
        (["data.source.window=102"], ["simulated.h5: was prepared with window=100", "is now 102", "prepare"]),
        (["data.source.seed=6"], ["was prepared with seed=5, data.source.seed is now 6", "name another data.store"]),
        (["trainer.max_steps"], ["trainer.max_steps"]),
    ],
)
def test_wrong_training_settings_are_one_line(elsewhere: Path, overrides: list[str], words: list[str]) -> None:
    store_before = (elsewhere / "stores" / "simulated.h5").read_bytes()
    before = files(elsewhere)
    assert_refused(command("train", [*SMALL, "hydra.run.dir=new", *overrides], elsewhere), *words)
    assert (elsewhere / "stores" / "simulated.h5").read_bytes() == store_before
    made = {name for name in files(elsewhere) - before if not name.startswith("new/.hydra/")}
    assert made <= {"new/train.log", "new/config.yaml", "new/split.json", "new/data.json"}


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_training_that_diverges_ends_with_the_step(elsewhere: Path, rate: str) -> None:
    result = command("train", [*SMALL, "hydra.run.dir=new", f"model.learning_rate={rate}"], elsewhere)
    shown = result.err.splitlines()[-1]
    assert shown.startswith("error: LevyJurgenson: diverged at step ") and "learning_rate below" in shown
    assert result.status == 2 and "Traceback" not in result.err
    assert not (elsewhere / "new" / "best.ckpt").exists()


def test_training_that_ends_before_a_validation_is_one_line(elsewhere: Path) -> None:
    result = command("train", [*SMALL, "hydra.run.dir=new", "trainer.max_steps=1"], elsewhere)
    assert_refused(result, "trainer.val_check_interval=2", "step 1", "trainer.max_steps")


def test_too_few_patients_are_one_line(tmp_path: Path) -> None:
    result = command("train", [*SMALL, "data.source.n_patients=6", "hydra.run.dir=new"], tmp_path)
    assert_refused(result, "simulated.h5: the val part has 1 of 7 samples", "at least 2", "larger cohort")


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_truncated_store_is_one_line(elsewhere: Path, name: str) -> None:
    path = elsewhere / "stores" / "simulated.h5"
    path.write_bytes(path.read_bytes()[:20_000])
    overrides = [*SMALL] if name == "train" else ["checkpoint=run/best.ckpt"]
    before = files(elsewhere)
    result = command(name, [*overrides, "hydra.run.dir=new"], elsewhere)
    assert_refused(result, "stores/simulated.h5: truncated or not an HDF5 file; make it again")
    assert {Path(made).suffix for made in files(elsewhere) - before} <= {".log", ".yaml"}
    # and prepare puts it right
    assert command("prepare", DATA, elsewhere).status == 0
    assert len(Store(path).cpgs) == 120


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["checkpoint=none.ckpt"], ["none.ckpt: no such checkpoint"]),
        ([], ["checkpoint"]),
        (["checkpoint=run/best.ckpt", "nonsense=1"], ["'nonsense'"]),
        (["checkpoint=run/best.ckpt", "seed=x"], ["seed=x: must be a whole number"]),
        (["checkpoint=run/best.ckpt", "+experiment=dilution", "dilution.retention=-3"], ["retention=-3"]),
        (["checkpoint=run/best.ckpt", "store=none.h5"], ["none.h5: no such store"]),
        (["checkpoint=run/best.ckpt", "split_file=none.json"], ["none.json: no such split"]),
        (["checkpoint=run/best.ckpt", "split_file=run/metrics.json"], ["run/metrics.json: not a saved split"]),
        (["checkpoint=run/split.json"], ["run/split.json: truncated or not a checkpoint"]),
        (["checkpoint=run/cut.ckpt"], ["run/cut.ckpt: truncated or not a checkpoint"]),
        (["checkpoint=run/empty.ckpt"], ["run/empty.ckpt: truncated or not a checkpoint"]),
        (["checkpoint=run/references/constant/best.ckpt"], ["run/references/constant/config.yaml: no such file"]),
        (["checkpoint=run/best.ckpt", "store=other.h5"], ["is not in other.h5; name the training's store"]),
    ],
)
def test_wrong_evaluation_settings_are_one_line(elsewhere: Path, overrides: list[str], words: list[str]) -> None:
    (elsewhere / "run" / "cut.ckpt").write_bytes((elsewhere / "run" / "best.ckpt").read_bytes()[:5_000])
    (elsewhere / "run" / "empty.ckpt").write_bytes(b"")
    if "store=other.h5" in overrides:
        smaller = [*DATA, "data.source.n_cpgs=30", "data.store=other.h5"]
        assert command("prepare", smaller, elsewhere).status == 0
    assert_refused(command("evaluate", [*overrides, "hydra.run.dir=new"], elsewhere), *words)
    assert {Path(name).suffix for name in files(elsewhere / "new")} <= {".log", ".yaml"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=tcga_xena"], ["data.source.genes"]),
        (["data=tcga_xena", "data.source.genes=x"], ["data.source.methylation: not given", "name the file"]),
        (["data=tcga_lgg_hm27", "raw=/nowhere"], ["/nowhere/", "cannot be read"]),
        (["data=upstream", "raw=/nowhere"], ["/nowhere/upstream_mini/ch3_sample_mini.csv.gz", "cannot be read"]),
        (["data=nonsense"], ["'data/nonsense'", "simulated"]),
        ([*DATA, "data.source.nonsense=1"], ["'data.source.nonsense'"]),
        ([*DATA, "data.source.window=41"], ["window=41: must be even"]),
        ([*DATA, "data.source.n_cpgs=100000"], ["n_cpgs=100000: must be at most"]),
        ([*DATA, "data.source.n_patients=few"], ["data.source.n_patients=few: input should be a valid integer"]),
        ([*DATA, "data.store=file/x.h5"], ["file"]),
    ],
)
def test_wrong_preparation_settings_are_one_line(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused(command("prepare", overrides, tmp_path), *words)
    assert files(tmp_path) == {"file"}


def test_a_failed_preparation_leaves_the_former_store(elsewhere: Path) -> None:
    before = {name: (elsewhere / "stores" / name).read_bytes() for name in files(elsewhere / "stores")}
    assert_refused(command("prepare", [*DATA, "data.source.window=41"], elsewhere), "window=41")
    assert {name: (elsewhere / "stores" / name).read_bytes() for name in files(elsewhere / "stores")} == before


def test_full_error_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.ckpt: no such checkpoint"):
        command("evaluate", ["checkpoint=none.ckpt"], tmp_path, HYDRA_FULL_ERROR="1")


def test_a_process_ends_with_one_line_and_a_status(tmp_path: Path) -> None:
    result = process(["-m", "methyl_lightning.prepare", *DATA, "data.source.window=41"], tmp_path)
    assert_refused(result, "window=41: must be even")
    assert result.status == 2
    assert files(tmp_path) == set()
