"""Folds of cells are scored apart, exchanged within their groups, and set beside what was measured of the cell."""

from pathlib import Path

import numpy as np
import pytest

from experiments.single_cell.__main__ import View, ceiling, derived, permuted
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.calls import mean_auroc_per_cpg


def views() -> dict[str, View]:
    """Make two folds of three cells each; predictions of the second fold are all lower."""
    measured_CS = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.float32)
    folds = [(measured_CS, measured_CS * 0.5 + 0.4), (1 - measured_CS, (1 - measured_CS) * 0.3)]
    cells = [np.array([0, 2, 4]), np.array([1, 3, 5])]
    return {"seen": View(folds, cells), "unseen": View([(m[:1], p[:1]) for m, p in folds], cells)}


def test_cells_of_one_fold_are_compared_at_a_cpg() -> None:
    view = views()["seen"]
    measured, predicted = view.stacked()
    assert measured.shape == (4, 6) and np.isnan(measured).sum() == 12
    assert mean_auroc_per_cpg(measured, predicted) == 1  # each fold is right, whatever the level of its predictions
    scores = view.scores(np.ones((1, 6)))
    assert scores["auroc_per_cpg"][0] == 1 and scores["auroc"][0] < 1
    means = np.concatenate(view.means())
    np.testing.assert_allclose(means[0], [0.5, 0.5, 0.5, 0.5, 1, 0])
    assert scores["sample_mean_r"][0] == pytest.approx(np.corrcoef(means)[0, 1])


def test_a_prediction_that_is_blind_to_cells_has_no_correlation() -> None:
    view = views()["seen"]
    blind = view._replace(
        folds=[(m, np.full_like(m, level)) for (m, _), level in zip(view.folds, (0.2, 0.6), strict=True)]
    )
    assert np.isnan(blind.scores(np.ones((1, 6)))["sample_mean_r"]).all()


def test_the_ceiling_is_what_other_cpgs_of_the_cell_have() -> None:
    found = ceiling(views())
    np.testing.assert_allclose(found["unseen"].folds[0][1], [[0.5, 0.5, 1]])
    np.testing.assert_allclose(found["seen"].folds[1][1], [[0, 1, 0], [0, 1, 0]])


def test_cells_change_places_within_their_groups_only(store: Store, tmp_path: Path) -> None:
    groups = np.array(list("ab" * 10))
    other_S = permuted(store, groups)
    assert (groups[other_S] == groups).all() and sorted(other_S) == list(range(20))
    assert (other_S != np.arange(20)).sum() > 10
    cell_S = np.arange(20) + 3
    exchanged = derived(store, tmp_path / "s.h5", cell_S, cell_S[other_S])
    np.testing.assert_array_equal(exchanged.expression_SG, np.asarray(store.expression_SG)[cell_S[other_S]])
    every_C = np.arange(len(store.cpgs))
    np.testing.assert_array_equal(exchanged.beta(every_C, np.arange(20)), store.beta(every_C, cell_S))
