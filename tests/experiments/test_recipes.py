"""Recipes of training are compared on validation CpGs alone: chosen on one half, scored on the other."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.reproduce import recipes
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.prepare.simulated import simulate


def told(spearman: dict[int, list[float]], **run: object) -> pd.DataFrame:
    """Lay the Spearman of each half out as a run of four validations."""
    rows = [
        {"step": 10 * (i + 1), "half": half, "spearman": value, "mae": 1 - value, "mas_pcc": 0.0, recipes.SEEN: i / 10}
        for half, values in spearman.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(
        **{"cohort": "c", "split": 0, "seed": 0, "scaling": "minmax", "schedule": "constant", "weights": "step", **run}
    )


def test_step_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    chosen = recipes.choose(told({0: [0.1, 0.5, 0.0, 0.0], 1: [0.4, 0.2, 0.3, 0.3]})).set_index("window")
    # half 0 chooses step 20, where half 1 has .2; half 1 chooses step 10, where half 0 has .1
    assert chosen.loc[1, "spearman"] == pytest.approx(0.15) and chosen.loc[1, "mae"] == pytest.approx(0.85)
    assert chosen.loc[1, recipes.SEEN] == pytest.approx(0.05)  # of steps 20 and 10
    # means of three: half 0 has .1 .3 .2 .167, so step 20 again; half 1 has .4 .3 .3 .267
    assert chosen.loc[recipes.WINDOW, "spearman"] == pytest.approx(0.15)


def test_gain_is_over_the_papers_recipe_in_the_same_run() -> None:
    runs = [
        told({0: [value] * 4, 1: [value] * 4}, seed=seed, scaling=scaling)
        for (scaling, seed), value in {
            ("minmax", 0): 0.2,
            ("minmax", 1): 0.4,
            ("zscore", 0): 0.3,
            ("zscore", 1): 0.6,
        }.items()
    ]
    table = recipes.summary(recipes.choose(pd.concat(runs)))
    zscore = table[(table["scaling"] == "zscore") & (table["window"] == 1)].iloc[0]
    assert zscore["spearman"] == pytest.approx(0.45) and zscore["spearman_gain"] == pytest.approx(0.15)
    assert zscore["spearman_sd"] == pytest.approx(0.3 / 2**0.5)


@pytest.mark.filterwarnings("ignore")
def test_runs_look_at_validation_views_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, table = tmp_path / "cohort.h5", tmp_path / "recipes.csv"
    simulate(store, n_cpgs=150, n_patients=40, n_genes=40, window=60)
    given = ["--splits", "0", "--seeds", "1", "--steps", "4", "--every", "2"]
    monkeypatch.setattr(sys, "argv", ["recipes.py", str(store), str(table), *given])
    read = []
    watched = recipes.predict_grid
    monkeypatch.setattr(recipes, "predict_grid", lambda *args: read.append(args[2:4]) or watched(*args))
    recipes.main()
    rows = pd.read_csv(table)
    assert len(rows) == 4 * 2 * 2 * 2  # recipes, times, kinds of weights, halves
    assert rows.groupby("weights")["mae"].mean().nunique() == 2
    split = GridDataModule(str(store), fractions=recipes.FRACTIONS, seed=1, split_seed=0).split
    for cpg_C, sample_S in read:
        assert set(split.cpg["val"]) <= set(cpg_C) <= {*split.cpg["val"], *split.cpg["train"]}
        assert set(sample_S) == set(split.sample["val"])
