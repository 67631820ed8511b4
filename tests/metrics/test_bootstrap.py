"""Bootstraps against copied-together resamples. Axis letters: C CpGs, S samples, R resamples, D drawn rows."""

import math

import numpy as np
import pytest
from conftest import grids

from methyl_lightning.metrics import bootstrap as intervals
from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics.bootstrap import (
    METRICS,
    Bootstrap,
    Interval,
    bootstrap_grid,
    difference,
    draw,
    interval,
    over_seeds,
)

KEYS = list(METRICS)
PATIENTS = np.arange(24).astype(str)


def over_patients(measured_CS: np.ndarray, predicted_CS: np.ndarray, patient_S: np.ndarray) -> dict[str, Interval]:
    found = bootstrap_grid(measured_CS, predicted_CS, patient_S, over=("patients",))
    return {name: interval(one.value, one.patients_R) for name, one in found.items()}


@pytest.mark.parametrize("digits", [4, 1])
def test_resamples_equal_copied_ones(digits: int) -> None:
    measured_CS, predicted_CS = grids(digits=digits)
    patient_S = np.array([f"p{s // 2}" for s in range(24)])
    found = bootstrap_grid(measured_CS, predicted_CS, patient_S, seed=3, n_resamples=30)
    weight_RS = draw(np.unique(patient_S, return_inverse=True)[1], 30, np.random.default_rng(3))
    weight_RC = draw(np.arange(60), 30, np.random.default_rng([3, 1]))
    assert (weight_RS[:, ::2] == weight_RS[:, 1::2]).all() and (weight_RS[:, ::2].sum(axis=1) == 12).all()
    assert (weight_RC.sum(axis=1) == 60).all()
    given = measured_CS, predicted_CS
    copies = {
        "patients": [(slice(None), np.repeat(np.arange(24), weight_S)) for weight_S in weight_RS],
        "cpgs": [(np.repeat(np.arange(60), weight_C), slice(None)) for weight_C in weight_RC],
    }
    for name in KEYS:
        if name == "spearman_batch50":
            continue
        metric = getattr(metrics, name)
        resampled = metrics.mas_pcc if name == "mas_pcc_centred" else metric  # of what the whole grid's shift leaves
        for unit, drawn in copies.items():
            pair = metrics.without_shift(measured_CS, predicted_CS) if name == "mas_pcc_centred" else given
            naive_R = [resampled(*(grid_CS[at] for grid_CS in pair)) for at in drawn]
            resampled_R = getattr(found[name], f"{unit}_R")
            np.testing.assert_allclose(
                resampled_R, naive_R, atol=5e-4 if name == "spearman" else 1e-9, err_msg=f"{name} {unit}"
            )
            low, high = np.percentile(resampled_R, [2.5, 97.5])
            assert interval(found[name].value, resampled_R) == (metric(measured_CS, predicted_CS), low, high)


def test_binned_ranks_hardly_change_spearman() -> None:
    """Ties of half the cells included; with few distinct values bins are exact."""
    for kind, tolerance in (("ties", 3e-4), ("skewed", 3e-4), ("few", 1e-12)):
        measured_CS, predicted_CS = grids(300, 12, digits=1 if kind == "few" else 4)
        if kind == "ties":
            measured_CS[:150], predicted_CS[measured_CS < 0.4] = 0.5, 0.25
        elif kind == "skewed":
            measured_CS, predicted_CS = measured_CS**6, predicted_CS**9
        found = bootstrap_grid(measured_CS, predicted_CS, np.arange(12).astype(str), n_resamples=10, batches=False)
        weight_RC = draw(np.arange(300), 10, np.random.default_rng([0, 1]))
        for weight_C, rho in zip(weight_RC, found["spearman"].cpgs_R, strict=True):
            drawn_D = np.repeat(np.arange(300), weight_C)
            assert rho == pytest.approx(metrics.spearman(measured_CS[drawn_D], predicted_CS[drawn_D]), abs=tolerance)


def test_values_are_those_of_the_functions_and_lie_in_their_intervals() -> None:
    measured_CS, predicted_CS = grids(120, 40)
    found = bootstrap_grid(measured_CS, predicted_CS, np.arange(40).astype(str))
    assert list(found) == KEYS
    for name, one in found.items():
        assert one.value == getattr(metrics, name)(measured_CS, predicted_CS)
        assert len(one.patients_R) == len(one.cpgs_R) == (200 if name == "spearman_batch50" else 500)
        for resampled_R in (one.patients_R, one.cpgs_R):
            value, low, high = interval(one.value, resampled_R)
            assert low < value < high and high - low < 0.25
    alone = over_patients(measured_CS, predicted_CS, np.arange(40).astype(str))
    assert alone == {name: interval(one.value, one.patients_R) for name, one in found.items()}


def test_a_large_grid_gives_the_same_but_for_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_CS, predicted_CS = grids(200, 24)
    measured_CS[::2] = np.nan  # a CpG without a cell may be drawn for the batches, too
    small = bootstrap_grid(measured_CS, predicted_CS, PATIENTS, n_resamples=40)
    monkeypatch.setattr(intervals, "LARGE", 1000)
    monkeypatch.setattr(intervals, "N_RESAMPLES_COSTLY", 40)
    monkeypatch.setattr(metrics.pieces, "__defaults__", (500,))
    large = bootstrap_grid(measured_CS, predicted_CS, PATIENTS)
    for name in KEYS:
        tolerance = 0.05 if name == "spearman_batch50" else 2e-3 if name == "spearman" else 1e-9
        for a, b in zip(small[name], large[name], strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance, err_msg=name)


def test_missing_cells_never_count() -> None:
    measured_CS, predicted_CS = grids()
    changed_CS = np.where(np.isnan(measured_CS), np.float32(99), predicted_CS)
    expected = bootstrap_grid(measured_CS, predicted_CS, PATIENTS, n_resamples=20)
    changed = bootstrap_grid(measured_CS, changed_CS, PATIENTS, n_resamples=20)
    # A sample or CpG without a measured cell is none: the resamples are those of the grid without it.
    wider = [
        np.pad(grid_CS, ((0, 1), (0, 1)), constant_values=value)
        for grid_CS, value in ((measured_CS, np.nan), (predicted_CS, 0))
    ]
    padded = bootstrap_grid(*wider, np.append(PATIENTS, "other"), n_resamples=20)
    for name in KEYS:
        for other in (changed, padded):
            for a, b in zip(other[name], expected[name], strict=True):
                np.testing.assert_allclose(a, b, atol=1e-9, err_msg=name)


def test_patients_not_samples_are_resampled() -> None:
    measured_CS, predicted_CS = (np.repeat(grid_CS, 4, axis=1) for grid_CS in grids(40, 12))
    together = over_patients(measured_CS, predicted_CS, np.repeat(np.arange(12), 4).astype(str))
    apart = over_patients(measured_CS, predicted_CS, np.arange(48).astype(str))
    for key in ("mae", "mse", "pearson", "spearman", "mas_pcc", "mas_pcc_centred", "mac_pcc"):
        assert together[key].value == apart[key].value
        assert together[key].high - together[key].low > 1.3 * (apart[key].high - apart[key].low), key


def test_what_is_not_defined_has_no_interval() -> None:
    measured_CS, predicted_CS = grids()
    one_patient = bootstrap_grid(measured_CS, predicted_CS, np.array(["p"] * 24), n_resamples=10)
    one_cpg = bootstrap_grid(measured_CS[:1], predicted_CS[:1], PATIENTS, n_resamples=10)
    for name in KEYS:
        assert np.isnan(one_patient[name].patients_R).all() and np.isfinite(one_patient[name].cpgs_R).all()
        assert np.isnan(one_cpg[name].cpgs_R).all()
        assert np.isnan(interval(0.5, one_cpg[name].cpgs_R)[1:]).all()
    constant = bootstrap_grid(measured_CS, np.full_like(predicted_CS, 0.3), PATIENTS, n_resamples=10)
    for name in ("pearson", "spearman", "spearman_batch50", "mas_pcc", "mas_pcc_centred", "mac_pcc"):
        assert math.isnan(constant[name].value) and np.isnan(constant[name].patients_R).all(), name
        assert np.isnan(constant[name].cpgs_R).all(), name
    noise = np.random.default_rng(1).choice([-1, 0, 1], measured_CS.shape) * np.finfo(np.float32).eps
    flat_CS = (predicted_CS[:, :1] * (1 + noise)).astype(np.float32)
    assert np.isnan(over_patients(measured_CS, flat_CS, PATIENTS)["mas_pcc"]).all()


def test_seed_decides() -> None:
    measured_CS, predicted_CS = grids()
    first, again, other = (
        bootstrap_grid(measured_CS, predicted_CS, PATIENTS, seed=seed, n_resamples=20) for seed in (5, 5, 6)
    )
    for name in KEYS:
        np.testing.assert_array_equal(first[name].patients_R, again[name].patients_R)
        np.testing.assert_array_equal(first[name].cpgs_R, again[name].cpgs_R)
        assert (first[name].patients_R != other[name].patients_R).any()


def test_paired_difference_is_narrower_than_the_models_own_intervals() -> None:
    measured_CS, predicted_CS = grids(100, 30)
    rng = np.random.default_rng(2)
    worse_CS = (predicted_CS + 0.03 * rng.normal(size=predicted_CS.shape)).astype(np.float32)
    ours, theirs = (
        bootstrap_grid(measured_CS, grid_CS, np.arange(30).astype(str)) for grid_CS in (predicted_CS, worse_CS)
    )
    for name, sign in (("mae", -1), ("pearson", 1), ("spearman", 1), ("mas_pcc", 1)):
        for unit in ("patients_R", "cpgs_R"):
            a, b = getattr(ours[name], unit), getattr(theirs[name], unit)
            found = difference(ours[name].value, theirs[name].value, a, b)
            assert found.value == ours[name].value - theirs[name].value
            assert found.value * sign > 0 and found.low * sign > 0 and found.high * sign > 0
            assert 2 / 501 <= found.p < 0.02
            if name in ("mae", "spearman"):
                assert found.high - found.low < np.ptp(np.percentile(a, [2.5, 97.5]))


def test_p_of_a_difference_counts_resamples_on_the_other_side() -> None:
    zero_R = np.zeros(99)
    difference_R = np.r_[-np.ones(4), np.ones(94), np.nan]
    found = difference(0.7, 0.2, difference_R, zero_R)
    assert found.p == pytest.approx(2 * 5 / 99) and found.value == pytest.approx(0.5)
    assert difference(0.2, 0.7, -difference_R, zero_R).p == found.p
    assert difference(0.5, 0.5, zero_R, zero_R).p == 1
    assert np.isnan(difference(0.5, math.nan, difference_R, zero_R)).all()
    assert np.isnan(difference(0.5, 0.4, zero_R * math.nan, zero_R)[1:]).all()


def test_equal_models_are_rarely_called_different() -> None:
    """Two predictions that are equally good give p below .05 in about one case of twenty."""
    rng, patient_S = np.random.default_rng(0), np.arange(40).astype(str)
    n_low = 0
    for seed in range(60):
        measured_CS = rng.random((1, 40))
        errors = rng.normal(size=(2, 1, 40)) * 0.1
        ours, theirs = (
            bootstrap_grid(measured_CS, measured_CS + error_CS, patient_S, seed, 200, ("patients",), batches=False)[
                "mae"
            ]
            for error_CS in errors
        )
        n_low += difference(ours.value, theirs.value, ours.patients_R, theirs.patients_R).p < 0.05
    assert n_low <= 9


def test_patients_must_match_the_samples() -> None:
    measured_CS, predicted_CS = grids(10, 6)
    with pytest.raises(ValueError, match=r"patient_S has shape \(5,\)"):
        over_patients(measured_CS, predicted_CS, np.array(["p"] * 5))
    with pytest.raises(ValueError, match=r"predicted_CS .* not finite"):
        over_patients(measured_CS, predicted_CS * np.nan, PATIENTS[:6])


def left_by_runs(n_runs: int, seeds_sd: float, patients_sd: float, seed: int) -> list[Bootstrap]:
    """Make runs on the same cells: what their patients shift is common, what their seeds shift is their own."""
    rng = np.random.default_rng(seed)
    patients, shift_R = patients_sd * rng.normal(), patients_sd * rng.normal(size=400)
    values = 0.5 + patients + seeds_sd * rng.normal(size=n_runs)
    return [Bootstrap(value, value + shift_R, value + 0 * shift_R) for value in values.tolist()]


def test_a_mean_over_seeds_holds_seeds_and_patients() -> None:
    (one,) = left_by_runs(1, 1, 1, 0)
    assert over_seeds([one], ["a"]) is one
    n = 5
    for seeds_sd, patients_sd in ((0.02, 0.0), (0.0, 0.02), (0.02, 0.02)):
        spread, widths = [], []
        for seed in range(60):
            runs = left_by_runs(n, seeds_sd, patients_sd, seed)
            mean = over_seeds(runs, ["cells"] * n)
            assert mean.value == pytest.approx(np.mean([run.value for run in runs]))
            spread.append(mean.value)
            widths.append(np.std(mean.patients_R))
            if seeds_sd == 0:  # patients are the same for all runs: more seeds do not make them more
                assert widths[-1] == pytest.approx(np.std(runs[0].patients_R), rel=0.1)
                assert np.ptp(mean.cpgs_R) == pytest.approx(0, abs=1e-12)
        # as wide as means differ between repetitions of the whole experiment
        assert np.mean(widths) == pytest.approx(np.hypot(seeds_sd / n**0.5, patients_sd), rel=0.12)
        assert np.std(spread) == pytest.approx(np.mean(widths), rel=0.25)


def test_runs_on_cells_of_their_own_average_their_patients() -> None:
    rng = np.random.default_rng(0)
    runs = [Bootstrap(0.5, 0.5 + 0.1 * rng.normal(size=500), np.full(500, 0.5)) for _ in range(4)]
    apart, together = (over_seeds(runs, cells).patients_R.std() for cells in ("abcd", "aaaa"))
    assert apart == pytest.approx(0.1 / 2 * np.hypot(1, 0.75**0.5), rel=0.1)  # runs drawn twice share their resample
    same = [run._replace(patients_R=runs[0].patients_R) for run in runs]
    assert over_seeds(same, "aaaa").patients_R.std() == pytest.approx(0.1, rel=0.1) and together < 0.1


def test_two_models_over_seeds_meet_the_same_draws() -> None:
    runs = left_by_runs(3, 0.02, 0.02, 0)
    better = [Bootstrap(run.value + 0.001, run.patients_R + 0.001, run.cpgs_R + 0.001) for run in runs]
    ours, theirs = over_seeds(better, "aab"), over_seeds(runs, "aab")
    found = difference(ours.value, theirs.value, ours.patients_R, theirs.patients_R)
    np.testing.assert_allclose(found[:3], 0.001, atol=1e-9)
    assert found.p < 0.002
