"""Strata: every CpG and sample in its group, and the metrics of the group alone. Letters: C CpGs, S samples."""

import numpy as np
import pandas as pd
import pytest
from conftest import grids

from methyl_lightning.evaluate.strata import COLUMNS, Stratum, strata, strata_table
from methyl_lightning.metrics import scores as metrics

BP_C = np.array([0, -2000, 2001, -10_000, 15_000, 20_000, -20_001, np.nan])
ISLAND_C = np.array(["Island", "Shore", "", "Island", "Shelf", "", "OpenSea", "OpenSea"])
VARIANCE_C = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, np.nan, 0.0])
COHORT_S = np.array(["BRCA"] * 5 + ["LUAD"] * 7)


def groups(by: str, **changes: np.ndarray) -> dict[str, tuple[list[int], int]]:
    given = {"tss_bp_C": BP_C, "island_C": ISLAND_C, "variance_C": VARIANCE_C, "cohort_S": COHORT_S} | changes
    return {one.group: (one.cpg_C.tolist(), len(one.sample_S)) for one in strata(**given) if one.by == by}


def test_every_cpg_stands_in_the_group_of_its_distance() -> None:
    assert groups("tss_distance") == {
        "0-2 kb": ([0, 1], 12),
        "2-10 kb": ([2, 3], 12),
        "10-20 kb": ([4, 5], 12),
        "> 20 kb": ([6, 7], 12),
    }
    assert list(groups("tss_distance", tss_bp_C=np.full(8, np.nan))) == ["> 20 kb"]


def test_islands_only_where_annotated() -> None:
    found = groups("island")
    assert found["Island"] == ([0, 3], 12) and found["unknown"] == ([2, 5], 12)
    assert set(found) == {"Island", "Shore", "Shelf", "OpenSea", "unknown"}
    sides_C = np.array(["Island", "N_Shore", "S_Shore", "N_Shelf", "OpenSea", "OpenSea", "S_Shelf", "Shore"])
    assert groups("island", island_C=sides_C)["Shore"] == ([1, 2, 7], 12)
    assert groups("island", island_C=np.array([""] * 8)) == {}


def test_variance_makes_terciles_of_those_that_have_one() -> None:
    found = groups("variance")
    assert found == {"low": ([0, 1, 7], 12), "middle": ([2, 3], 12), "high": ([4, 5], 12)}
    assert groups("variance", variance_C=np.full(8, np.nan)) == {}
    assert list(groups("variance", variance_C=np.zeros(8))) == ["low"]


def test_each_cohort_by_itself() -> None:
    assert groups("cohort") == {"BRCA": (list(range(8)), 5), "LUAD": (list(range(8)), 7)}


def test_metrics_of_a_group_are_those_of_its_cells() -> None:
    measured_CS, predicted_CS = grids(90, 12)
    measured_CS[:30, :5] = np.nan
    tss_bp_C = np.repeat([10.0, 5000.0, 1e6], 30)
    parts = strata(tss_bp_C, np.repeat(["Island", ""], 45), np.arange(90.0), COHORT_S)
    table = strata_table(measured_CS, predicted_CS, np.arange(12).astype(str), parts, seed=0)
    assert tuple(table.columns) == COLUMNS
    assert set(table["by"]) == {"tss_distance", "island", "variance", "cohort"}
    assert len(table) == 7 * len(table.groupby(["by", "group"]))
    for part in parts:
        at = np.ix_(part.cpg_C, part.sample_S)
        rows = table[(table["by"] == part.by) & (table["group"] == part.group)].set_index("metric")
        known_CS = ~np.isnan(measured_CS[at])
        assert (rows["n_cells"] == known_CS.sum()).all()
        assert (rows["n_cpgs"] == known_CS.any(axis=1).sum()).all()
        assert (rows["n_samples"] == known_CS.any(axis=0).sum()).all()
        for name, row in rows.iterrows():
            value = getattr(metrics, str(name))(measured_CS[at], predicted_CS[at])
            assert row["value"] == value
            assert row["low"] < row["high"] and row["low"] - 0.01 < value < row["high"] + 0.01


def test_telling_cohorts_apart_is_no_skill_within_them() -> None:
    rng = np.random.default_rng(0)
    shift_S = np.where(COHORT_S == "BRCA", 0.2, 0.7)
    measured_CS = (shift_S + 0.05 * rng.normal(size=(200, 12))).astype(np.float32)
    predicted_CS = (shift_S + 0.05 * rng.normal(size=(200, 12))).astype(np.float32)
    assert metrics.mas_pcc(measured_CS, predicted_CS) > 0.9
    parts = strata(np.zeros(200), np.array([""] * 200), np.ones(200), COHORT_S)
    table = strata_table(measured_CS, predicted_CS, np.arange(12).astype(str), parts, seed=0)
    within = table[(table["by"] == "cohort") & (table["metric"] == "mas_pcc")]
    assert len(within) == 2 and (within["value"].abs() < 0.2).all()


def test_a_group_without_a_measured_cell_is_left_out() -> None:
    measured_CS, predicted_CS = grids(20, 12)
    measured_CS[:, :5] = np.nan
    parts = strata(np.zeros(20), np.array([""] * 20), np.full(20, np.nan), COHORT_S)
    table = strata_table(measured_CS, predicted_CS, np.arange(12).astype(str), parts, seed=0)
    assert table[table["by"] == "cohort"]["group"].unique().tolist() == ["LUAD"]
    assert isinstance(table, pd.DataFrame) and not table["value"].isna().any()
    with pytest.raises(ValueError, match=r"patient_S"):
        strata_table(measured_CS, predicted_CS, np.arange(12).astype(str)[:, None], parts, seed=0)


def test_intervals_of_a_large_part_are_those_of_some_of_its_cpgs(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_CS, predicted_CS = grids(600, 12)
    part, patient_S = [Stratum("cohort", "x", np.arange(600), np.arange(12))], np.arange(12).astype(str)
    whole = strata_table(measured_CS, predicted_CS, patient_S, part, seed=0)
    monkeypatch.setattr("methyl_lightning.evaluate.strata.LARGE", 3000)
    monkeypatch.setattr("methyl_lightning.metrics.bootstrap.LARGE", 3000)
    some = strata_table(measured_CS, predicted_CS, patient_S, part, seed=0)
    np.testing.assert_allclose(some["value"], whole["value"], atol=1e-6)
    width, expected = (table["high"] - table["low"] for table in (some, whole))
    assert (some["low"] != whole["low"]).all()
    assert ((some["low"] <= some["value"]) & (some["value"] <= some["high"])).all()
    assert (np.abs(np.log(width / expected)) < 0.7).all()
