"""The curve over training CpGs: the same test cells for all, and training CpGs within the training blocks."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.networks import curve
from methyl_lightning.prepare.simulated import simulate

MODELS = ["ceiling", "constant", "factor_network:steps=2,n_filters=3,block_cpgs=20,block_samples=30"]


@pytest.mark.filterwarnings("ignore")
def test_curve_has_a_row_a_model_size_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, table, figure = tmp_path / "cohort.h5", tmp_path / "curve.csv", tmp_path / "curve.png"
    simulate(store, n_cpgs=400, n_patients=40, n_genes=60, window=60, n_chromosomes=3)
    given = [str(store), str(table), *MODELS, "--cpgs", "50", "150", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["curve.py", *given])
    curve.main()
    rows = pd.read_csv(table)
    assert rows[["model", "cpgs"]].to_numpy().tolist() == [[model, n] for n in (50, 150) for model in MODELS]
    assert rows["steps"].fillna(-1).tolist() == [-1, 0, 2] * 2
    ceiling = rows.set_index("model").loc["ceiling"]
    assert (ceiling["mae"] < rows["mae"].max()).all() and (ceiling["spearman"] > 0.3).all()
    monkeypatch.setattr(sys, "argv", ["curve.py", "--draw", str(figure), str(table)])
    curve.main()
    assert figure.stat().st_size > 10_000


def test_settings_of_a_model_are_those_of_its_file_and_what_is_given() -> None:
    arguments, training = curve.read_model("levy_jurgenson:steps=7,learning_rate=1e-4,without=[sequence]", 3)
    assert arguments["network"] == "LevyJurgenson" and arguments["learning_rate"] == 1e-4
    assert arguments["without"] == ["sequence"] and training == curve.TRAINING | {"steps": 7}
    assert curve.read_model("kmer_gbm", 3)[0]["seed"] == 3
