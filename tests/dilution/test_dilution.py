"""The dilution test: same numbers alone or in a sweep, CpGs encoded once, and what its commands write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, assert_refused, command, files
from omegaconf import OmegaConf
from scipy import stats

from methyl_lightning.data.batches import read_cpgs
from methyl_lightning.data.datamodule import GridDataModule, GridDataset, GridSampler, TrainDilution
from methyl_lightning.data.expression import MinMaxScaler, dilute
from methyl_lightning.data.splits import Split
from methyl_lightning.data.store import Store
from methyl_lightning.dilution import run as dilution
from methyl_lightning.dilution.run import DILUTED, MATCHES, MEAN_EXPRESSION, SCORES, UNDILUTED, dilution_test, summarise
from methyl_lightning.dilution.table import read_sweep
from methyl_lightning.evaluate.evaluation import load_run
from methyl_lightning.files import InputError
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.model import grid
from methyl_lightning.model.depth import MASK, ExpressionEstimator
from methyl_lightning.model.module import MethylationModule

LEVELS = [3, 30, 300]
FIGURES = {
    f"figures/dilution_{name}.{kind}"
    for name in ("heatmap", "distributions", "histograms", "retention")
    for kind in ("png", "pdf")
}
TABLES = {"dilution.csv", "dilution_expression.csv", "dilution_histograms.csv", "dilution.json", "dilution.md"}


@pytest.fixture(scope="module")
def trained(workplace: Path) -> tuple[MethylationModule, Store, Split]:
    module, store, split, _ = load_run(workplace / "run" / "best.ckpt", str(workplace / "stores" / "simulated.h5"))
    return module, store, split


@pytest.fixture(scope="module")
def repeats(trained: tuple[MethylationModule, Store, Split]) -> pd.DataFrame:
    return dilution_test(*trained, LEVELS, repeats=3).repeats


@pytest.fixture
def encoded_rows(trained: tuple[MethylationModule, Store, Split]) -> Iterator[list[int]]:
    """Count the CpGs that the network encodes."""
    network, rows = trained[0].network, []
    handle = network.motif.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    yield rows
    handle.remove()


def diluted_of(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["test"] == DILUTED].reset_index(drop=True)


@pytest.mark.parametrize("match", MATCHES)
def test_numbers_are_those_of_the_whole_network_on_diluted_samples(
    trained: tuple[MethylationModule, Store, Split], match: str
) -> None:
    module, store, split = trained
    frame = diluted_of(dilution_test(*trained, 30, repeats=2, match=match, seed=7).repeats)
    assert set(frame["match"]) == {match}
    cpg_C, sample_S = split.view("test_cpg-test_sample")
    scaler: Any = module.scaler
    for repeat, row in frame.iterrows():
        rng = np.random.default_rng([7, 30, 1, int(str(repeat))])
        diluted_SG = dilute(np.array(store.expression_SG[sample_S]), "mask", 30, rng)
        genes = np.count_nonzero(diluted_SG) / len(sample_S)
        if match == "depth":
            record = module.training_record()
            assert record is not None
            estimator = ExpressionEstimator(record, "log2(norm+1)", draws=MASK)
            diluted_SG = estimator.estimate(diluted_SG, np.full(len(sample_S), 30))
        if match == "refit":
            scaler = MinMaxScaler(diluted_SG.shape[1])
            scaler.fit(torch.from_numpy(diluted_SG))
        with torch.inference_mode():
            predicted_CS = module.eval().network(read_cpgs(store, cpg_C), scaler(torch.from_numpy(diluted_SG))).numpy()
        measured_CS = store.beta(cpg_C, sample_S)
        assert row["mae"] == pytest.approx(metrics.mae(measured_CS, predicted_CS), abs=1e-6)
        assert row["mas_pcc"] == pytest.approx(metrics.mas_pcc(measured_CS, predicted_CS), abs=1e-4)
        assert row["genes"] == genes


def test_a_level_alone_gives_the_same_numbers(
    trained: tuple[MethylationModule, Store, Split], repeats: pd.DataFrame
) -> None:
    alone = pd.concat([diluted_of(dilution_test(*trained, level, repeats=3).repeats) for level in LEVELS])
    pd.testing.assert_frame_equal(diluted_of(repeats), alone.reset_index(drop=True), check_exact=True)
    other = diluted_of(dilution_test(*trained, LEVELS, repeats=3, seed=1).repeats)
    assert not np.isclose(other["mae"], diluted_of(repeats)["mae"]).any()
    assert diluted_of(repeats)["mae"].nunique() == 9


def test_cpgs_are_encoded_once_whatever_is_asked(
    trained: tuple[MethylationModule, Store, Split], encoded_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    n_cpgs = len(trained[2].cpg["test"])
    whole = dilution_test(*trained, LEVELS, repeats=4).repeats
    assert sum(encoded_rows) == n_cpgs
    encoded_rows.clear()
    monkeypatch.setattr(dilution, "BLOCK", (5, 256))
    monkeypatch.setattr(grid, "ENCODED_BYTES", 1)
    monkeypatch.setattr(dilution, "COLUMNS_AT_ONCE", 1)
    pieces = dilution_test(*trained, LEVELS, repeats=4).repeats
    assert sum(encoded_rows) == n_cpgs
    pd.testing.assert_frame_equal(diluted_of(whole)[["genes", "mae"]], diluted_of(pieces)[["genes", "mae"]], atol=1e-6)


def test_nothing_changes_where_nothing_is_lost(trained: tuple[MethylationModule, Store, Split]) -> None:
    frame = dilution_test(*trained, 10**7, repeats=2).repeats.set_index("test")
    for score in ("genes", "mae", "spearman", "mas_pcc", "mac_pcc"):
        np.testing.assert_allclose(frame.loc[DILUTED, score], frame.loc[UNDILUTED, score], atol=1e-4)


def test_mean_expression_leaves_no_difference_between_samples(repeats: pd.DataFrame) -> None:
    row = repeats.set_index("test").loc[MEAN_EXPRESSION]
    assert np.isnan(row["mas_pcc"]) and np.isfinite(row["mac_pcc"]) and np.isfinite(row["mae"])


def test_summary_is_student_s(repeats: pd.DataFrame) -> None:
    summary = summarise(repeats)
    assert summary["retention"].tolist()[:3] == LEVELS and summary["test"].tolist()[3:] == [UNDILUTED, MEAN_EXPRESSION]
    for _, row in summary[summary["test"] == DILUTED].iterrows():
        values = repeats.loc[repeats["retention"] == row["retention"], "mae"]
        low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert (row["mae"], row["mae_low"], row["mae_high"]) == pytest.approx((values.mean(), low, high))
    assert np.isnan(summary["mae_sd"].iloc[3]) and summary["repeats"].tolist() == [3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"retention": [0]}, "retention=0"),
        ({"retention": []}, "at least one of each"),
        ({"retention": 5, "match": "scale"}, "dilution.match=scale: must be one or several of scaler, refit, depth"),
        ({"retention": 5, "repeats": 0}, "dilution.repeats=0"),
        ({"retention": 5, "genes": ["NO_SUCH"]}, "no gene 'NO_SUCH'"),
        ({"retention": 5, "samples": 0}, "dilution.samples=0"),
        ({"retention": 5, "method": "binomial"}, "retention=5: with binomial"),
    ],
)
def test_wrong_settings_are_named(
    trained: tuple[MethylationModule, Store, Split], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        dilution_test(*trained, **settings)


@pytest.fixture(scope="module")
def tested(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the single run, the sweep over the same levels, and the sweep's report."""
    folder = tmp_path_factory.mktemp("dilution")
    (folder / "stores").symlink_to(workplace / "stores")
    common = ["+experiment=dilution", f"checkpoint={workplace / 'run' / 'best.ckpt'}"]
    common += ["dilution.repeats=2", "dilution.samples=3", "dilution.genes=5"]
    for name, overrides in (
        ("evaluate", [*common, "dilution.retention=[3,300]", "hydra.run.dir=single"]),
        ("evaluate", ["--multirun", *common, "dilution.retention=3,300", "hydra.sweep.dir=sweep"]),
        ("report", ["sweep=sweep"]),
    ):
        result = command(name, overrides, folder)
        assert result.status == 0, result.err
        (folder / f"{name}.out").write_text(result.out)
    return folder


def test_single_run_and_gathered_sweep_agree(tested: Path) -> None:
    assert files(tested / "single") >= TABLES | FIGURES
    assert files(tested / "sweep") >= TABLES | FIGURES | {f"{job}/dilution.csv" for job in range(2)}
    for name, key in (
        ("dilution.csv", ["test", "match", "retention", "repeat"]),
        ("dilution_expression.csv", ["retention", "sample", "gene"]),
        ("dilution_histograms.csv", ["quantity", "retention", "low"]),
    ):
        single, sweep = (
            pd.read_csv(tested / kind / name).sort_values(key, ignore_index=True) for kind in ("single", "sweep")
        )
        pd.testing.assert_frame_equal(single, sweep, check_exact=True)
    rows = [(tested / kind / "dilution.md").read_text().split("\n\n")[0] for kind in ("single", "sweep")]
    assert rows[0] == rows[1]


def test_table_says_what_was_done(tested: Path) -> None:
    text = (tested / "single" / "dilution.md").read_text()
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[0:1] == "|"]
    assert [line[1] for line in lines[2:]] == [*["3", "300"] * 3, "undiluted", "training-mean expression"]
    assert [line[0] for line in lines[2::2]] == [*MATCHES, "–"]
    assert {len(line) for line in lines} == {len(SCORES) + 4}
    assert "by the range of the undiluted training samples" in text and "; 4 dilutions; method mask" in text
    assert "; 4 dilutions in 2 jobs; method mask" in (tested / "report.out").read_text()
    for name in FIGURES:
        if name.endswith("png"):
            pixels = matplotlib.image.imread(tested / "single" / name)
            assert pixels.shape[1] > 600 and pixels[..., :3].std() > 0.02


def copy_job(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in TABLES:
        (target / name).write_bytes((source / name).read_bytes())


def test_other_ways_stand_side_by_side_and_other_methods_are_not_mixed_in(tested: Path, workplace: Path) -> None:
    checkpoint = f"checkpoint={workplace / 'run' / 'best.ckpt'}"
    overrides = ["+experiment=dilution", checkpoint, "dilution.retention=100", "dilution.repeats=1"]
    for job, match in enumerate(("refit", "depth")):
        result = command("evaluate", [*overrides, f"dilution.match={match}", f"hydra.run.dir=ways/{job}"], tested)
        assert result.status == 0, result.err
    assert "refitted on the diluted test samples themselves" in (tested / "ways/0/dilution.md").read_text()
    copy_job(tested / "ways/0", tested / "mixed/0")
    row = next(line for line in (tested / "ways/0/dilution.md").read_text().splitlines() if line.startswith("| refit "))
    assert row.endswith("| 0.23 / 0.66 |")
    assert command("report", ["sweep=ways"], tested).status == 0
    lines = (tested / "ways/dilution.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][-4:] == ["refit", "depth", "–", "–"]
    result = command("evaluate", [*overrides, "dilution.method=multinomial", "hydra.run.dir=mixed/1"], tested)
    assert result.status == 0, result.err
    assert_refused(command("report", ["sweep=mixed"], tested), "differ in method", "mask, multinomial")


def test_depth_leaves_no_thin_sample_below_the_line_of_no_expression(tested: Path) -> None:
    frame = pd.read_csv(tested / "single" / "dilution.csv")
    none = frame.loc[frame["test"] == MEAN_EXPRESSION, "mae"].item()
    mae = frame[(frame["test"] == DILUTED) & (frame["retention"] == 3)].groupby("match")["mae"].mean()
    assert set(mae.index) == set(MATCHES) and mae["depth"] < none + 0.005 and mae["depth"] < mae["scaler"]


def test_a_sweep_of_several_models_is_refused(tested: Path) -> None:
    for job in (0, 1):
        copy_job(tested / f"sweep/{job}", tested / f"models/{job}")
    frame = pd.read_csv(tested / "models/1/dilution.csv")
    frame.assign(mae=frame["mae"] + 0.01).to_csv(tested / "models/1/dilution.csv", index=False)
    with pytest.raises(InputError, match="different models"):
        read_sweep(tested / "models")


def test_wrong_words_end_in_one_line(tested: Path) -> None:
    assert_refused(command("report", ["sweep=nowhere"], tested), "nowhere", "no dilution test")
    assert not (tested / "nowhere").exists()
    missing = ["+experiment=dilution", "checkpoint=no.ckpt", "hydra.run.dir=x"]
    assert_refused(command("evaluate", missing, tested), "no.ckpt", "no such checkpoint")
    other = ["+experiment=reproduce", "checkpoint=no.ckpt", "hydra.run.dir=x"]
    assert_refused(command("evaluate", other, tested), "experiment=reproduce", "+experiment=dilution")


def test_training_blocks_are_diluted_by_seed_and_number(store: Store, datamodule: GridDataModule) -> None:
    views = datamodule.split.view("train_cpg-train_sample")

    def read(start: int, rank: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        dataset = GridDataset(store, TrainDilution("mask", [5, 500], 0))
        blocks = list(GridSampler(*views, (24, 20), 0, rank, 2, lambda: start))
        return [(block.sample_S, dataset[block].expression_SG.numpy()) for block in blocks]  # type: ignore[union-attr]

    whole, later = read(4), read(6)
    assert len(whole) == len(later) + 2 and len(later) > 0
    for (_, one), (_, other) in zip(whole[2:], later, strict=True):
        np.testing.assert_array_equal(one, other)
    kept = []
    for sample_S, diluted_SG in [*read(0), *whole, *read(0, 1), *read(4, 1)]:
        full_SG = store.expression_SG[sample_S]
        assert (diluted_SG[diluted_SG != 0] == full_SG[diluted_SG != 0]).all()
        kept.append(np.count_nonzero(diluted_SG, axis=1).max())
    assert len(kept) == 16
    assert {count <= 5 for count in kept} == {True, False}


def test_training_on_diluted_expression_sees_it_and_goes_on_exactly(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    weights = []
    for folder, overrides in (
        ("full", ["data.train_retention=null", "trainer.max_steps=4"]),
        ("whole", ["data.train_retention=[3,30]", "trainer.max_steps=4"]),
        ("half", ["data.train_retention=[3,30]", "trainer.max_steps=2"]),
        ("half", ["data.train_retention=[3,30]", "trainer.max_steps=4", "ckpt_path=half/last.ckpt"]),
    ):
        result = command("train", [*SMALL, *overrides, f"hydra.run.dir={folder}"], tmp_path)
        assert result.status == 0, result.err
        weights.append(torch.load(tmp_path / folder / "last.ckpt", weights_only=True)["state_dict"])
    full, whole, _, resumed = weights
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not torch.equal(whole["network.output.weight"], full["network.output.weight"])
    assert torch.equal(whole["scaler.minimum_G"], full["scaler.minimum_G"])


def test_the_training_experiment_trains_and_tests(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    overrides = ["+experiment=dilution_training", *SMALL, "trainer.max_steps=2", "hydra.run.dir=run"]
    settings = ["dilution.repeats=2", "dilution.retention=0.1", "dilution.method=binomial"]
    result = command("train", [*overrides, *settings], tmp_path)
    assert result.status == 0, result.err
    assert files(tmp_path / "run") >= TABLES | FIGURES | {"table.md", "best.ckpt"}
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.data.train_retention == 0.1 and config.data.train_dilution == "binomial"
    assert "method binomial" in (tmp_path / "run" / "dilution.md").read_text()
    assert "/ 0." not in (tmp_path / "run" / "dilution.md").read_text()  # nothing was published for it


def test_a_wrong_training_level_is_named(tmp_path: Path, workplace: Path) -> None:
    (tmp_path / "stores").symlink_to(workplace / "stores")
    overrides = ["+experiment=dilution_training", *SMALL, "dilution.train_retention=[5,0]"]
    assert_refused(command("train", overrides, tmp_path), "retention=0: with mask")
