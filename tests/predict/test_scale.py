"""Units are recognised, and samples come to the scale of training."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.model.record import QUANTILES
from methyl_lightning.predict.scale import TrainingScale, to_training_scale
from methyl_lightning.readers.units import recognise_units, to_linear


def test_units_are_recognised_from_shallow_cells() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.gamma(0.4, 2, size=(40, 500)))
    share = counts / counts.sum(axis=1, keepdims=True) * 1e4

    def recognised(values: np.ndarray, fallback: str = "log1p", **uns: Any) -> str:
        rows = [row[row > 0].astype(np.float32) for row in values]
        return recognise_units(rows, uns, fallback).units

    assert recognised(counts) == "counts"
    assert recognised(share) == "cpm"
    assert recognised(np.log1p(share)) == "log1p"
    assert recognised(np.log2(share + 1)) == "log2"
    bulk = rng.normal(8, 2, size=(40, 500)).clip(0)
    assert recognised(bulk) == "log1p" and recognised(bulk, "log2") == "log2"
    assert "assumed" in recognise_units(list(bulk), {}, "log2").reason
    assert recognised(bulk * 2) == "log2"
    for units, values in (("log1p", np.log1p(share)), ("log2", np.log2(share + 1)), ("cpm", share)):
        np.testing.assert_allclose(to_linear(values, units), share, atol=1e-6)
        np.testing.assert_allclose(to_linear(sparse.csr_matrix(values), units).toarray(), share, atol=1e-6)


def test_samples_are_brought_to_the_training_scale() -> None:
    rng = np.random.default_rng(2)
    training = np.log2(rng.gamma(1, 100, size=(300, 50)) + 1)
    quantiles = np.quantile(training, QUANTILES, axis=0)
    scale = TrainingScale.of_genes("log2(norm+1)", (np.exp2(training) - 1).mean(axis=0), quantiles)
    shallow = (np.exp2(training[:4]) - 1) * np.array([[0.01], [0.5], [3], [0]])
    library = np.exp2(to_training_scale(shallow, scale, "library").astype(np.float64)) - 1
    np.testing.assert_allclose(library.sum(axis=1), [scale.linear_total] * 3 + [0], rtol=1e-5)
    np.testing.assert_allclose(library[0] / library[0].sum(), shallow[0] / shallow[0].sum(), rtol=1e-5)
    for match in ("library", "quantile", "none"):
        of_sparse = to_training_scale(sparse.csr_matrix(shallow), scale, match)
        np.testing.assert_allclose(of_sparse, to_training_scale(shallow, scale, match), rtol=1e-6)
    matched = to_training_scale(shallow[:3] ** 2, scale, "quantile")
    assert (np.argsort(matched[0]) == np.argsort(shallow[0])).all()
    np.testing.assert_allclose(np.quantile(matched, [0.1, 0.5, 0.9]), np.quantile(training, [0.1, 0.5, 0.9]), atol=0.3)
    tied = to_training_scale(np.array([[0.0, 0, 5, 0, 7]]), scale._replace(sorted_N=np.arange(5.0)), "quantile")
    np.testing.assert_allclose(tied, [[1, 1, 3, 1, 4]])
    np.testing.assert_allclose(to_training_scale(shallow[1:2] * 2, scale, "none"), training[1:2], rtol=1e-5)
    with pytest.raises(InputError, match=r"are not log2\(x\+1\)"):
        to_training_scale(shallow, scale._replace(units="vst"), "library")
