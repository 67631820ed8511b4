"""Intervals cover new cells, CpGs and patients."""

import numpy as np
import pytest

from methyl_lightning.model import conformal
from methyl_lightning.model.conformal import Calibration, calibrate, calibrate_grid, coverage, interval


def test_calibration_covers_new_cells_and_says_so_when_there_are_few() -> None:
    rng = np.random.default_rng(4)
    predicted = rng.random(40_000)
    measured = (predicted + rng.normal(0, 0.02 + 0.2 * predicted * (1 - predicted))).clip(0, 1)
    half = 20_000
    calibration = calibrate(measured[:half], predicted[:half])
    assert len(calibration.low) == 10 and calibration.cells == half
    assert coverage(calibration, measured[half:], predicted[half:]) == pytest.approx(0.9, abs=0.012)
    low, high = interval(calibration, np.array([0.03, 0.5]))
    assert high[1] - low[1] > 2 * (high[0] - low[0])
    none = calibrate(np.full(5, np.nan), np.zeros(5))
    assert [bound.tolist() for bound in interval(none, np.array([0.3]))] == [[0.0], [1.0]]
    # ten cells allow no 5 % tail: the bound is the whole range
    assert interval(calibrate(measured[:10], predicted[:10]), np.array([0.4]))[1].tolist() == [1.0]


def test_calibration_on_a_grid_covers_new_cpgs_and_patients() -> None:
    """Few CpGs and patients have errors of their own: quantiles of all their cells are too narrow for others."""
    narrow, wide = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        shift_CS = 0.15 * rng.normal(size=(80, 1)) + 0.15 * rng.normal(size=20)
        predicted_CS = rng.uniform(0.3, 0.7, (80, 20))
        measured_CS = (predicted_CS + shift_CS + 0.03 * rng.normal(size=(80, 20))).clip(0, 1)
        known = measured_CS[:40, :10], predicted_CS[:40, :10]
        held = measured_CS[40:, 10:].ravel(), predicted_CS[40:, 10:].ravel()
        narrow.append(coverage(calibrate(known[0].ravel(), known[1].ravel()), *held))
        wide.append(coverage(calibrate_grid(*known), *held))
    assert np.mean(narrow) < 0.885 < 0.895 < np.mean(wide) < 0.92


def test_the_least_level_that_covers_those_left_out_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, levels = np.random.default_rng(7), []

    def noted(measured_N: np.ndarray, predicted_N: np.ndarray, level: float, most_bins: int) -> Calibration:
        levels.append(level)
        return calibrate(measured_N, predicted_N, level, most_bins)

    monkeypatch.setattr(conformal, "calibrate", noted)
    predicted_CS = rng.uniform(0.3, 0.7, (40, 12))
    measured_CS = predicted_CS + 0.15 * rng.normal(size=(40, 1)) + 0.15 * rng.normal(size=12)
    assert calibrate_grid(measured_CS, predicted_CS).level == 0.9
    taken = levels[-1]
    assert 0.9 < taken < 0.95

    rng, inside = np.random.default_rng(0), {taken: 0, taken - 0.05 / 32: 0}
    fold_C, fold_S = rng.permutation(40) % 4, rng.permutation(12) % 4
    for level in inside:
        for held_C, held_S in ((fold_C == f, fold_S == g) for f in range(4) for g in range(4)):
            known, held = np.ix_(~held_C, ~held_S), np.ix_(held_C, held_S)
            fitted = calibrate(measured_CS[known].ravel(), predicted_CS[known].ravel(), level, 1)
            inside[level] += coverage(fitted, measured_CS[held].ravel(), predicted_CS[held].ravel()) * 30
    covered, not_covered = inside.values()
    assert not_covered < 0.9 * 480 <= covered + 1e-9
