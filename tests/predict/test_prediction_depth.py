"""Prediction of thin samples: chosen for counts, refused where depth cannot be known, intervals by depth, no store."""

import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from methyl_lightning.data.splits import load_split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.card import DEPTHS, calibration_of, calibrations_by_depth, describe
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.model.conformal import Calibration, interval, interval_by_depth
from methyl_lightning.model.depth import ExpressionEstimator
from methyl_lightning.predict import predict
from methyl_lightning.predict.output import predict_to_file


@pytest.fixture(scope="module")
def store(workplace: Path) -> Store:
    return Store(workplace / "stores" / "simulated.h5")


def thinned(store: Store, depth: int, seed: int = 0) -> anndata.AnnData:
    """Draw so many molecules of each of the store's samples."""
    share_SG = np.exp2(np.array(store.expression_SG, dtype=np.float64)) - 1
    count_SG = np.random.default_rng(seed).multinomial(depth, share_SG / share_SG.sum(axis=1, keepdims=True))
    var = pd.DataFrame(index=store.genes["symbol"].to_numpy(str))
    return anndata.AnnData(count_SG.astype(np.float32), pd.DataFrame(index=store.samples["id"].to_numpy(str)), var)


@pytest.mark.parametrize("model", ["best.ckpt", "references/bilinear_ridge/best.ckpt"])
def test_counts_are_estimated_by_depth_without_the_store(
    workplace: Path, store: Store, tmp_path: Path, model: str
) -> None:
    shutil.copy(workplace / "run" / model, tmp_path / "best.ckpt")
    module = load_checkpoint(tmp_path / "best.ckpt")
    record = module.training_record()
    assert record is not None
    spread = []
    for depth in (3, 300, 10**7):
        data = thinned(store, depth)
        found = predict(tmp_path / "best.ckpt", data)
        assert found.uns["methyl_lightning"]["match"] == "depth"
        estimated_SG = ExpressionEstimator(record, "log2(norm+1)").estimate(np.asarray(data.X))
        own = anndata.AnnData(estimated_SG, data.obs, data.var)
        expected = predict(tmp_path / "best.ckpt", own, units="log2", match="none")
        np.testing.assert_allclose(found.X, expected.X, atol=1e-4)
        spread.append(float(found.X.std(axis=0).mean()))
    assert spread[0] < 0.5 * spread[-1] and spread == sorted(spread)


def test_depth_is_not_looked_at_where_it_cannot_be_known(workplace: Path, store: Store) -> None:
    checkpoint, data = workplace / "run" / "best.ckpt", thinned(store, 500)
    data.X = np.log1p(data.X / 500 * 1e4).astype(np.float32)
    found = predict(checkpoint, data)
    assert found.uns["methyl_lightning"]["match"] == "quantile"
    notes = " ".join(found.uns["methyl_lightning"]["notes"])
    assert "log1p" in notes and "do not tell how many molecules a sample has" in notes
    with pytest.raises(InputError, match=r"match=depth: values in log1p .* give counts .*, or match=quantile"):
        predict(checkpoint, data, match="depth")


def test_a_sample_without_molecules_is_refused_by_name_or_skipped(
    workplace: Path, store: Store, tmp_path: Path
) -> None:
    checkpoint, data = workplace / "run" / "best.ckpt", thinned(store, 50)
    data.X[4] = 0
    with pytest.raises(InputError, match=rf"1 of 43 samples \('{data.obs_names[4]}', …\) have no molecule"):
        predict_to_file(tmp_path / "out.h5ad", checkpoint, data)
    assert not (tmp_path / "out.h5ad").exists()
    found = predict(checkpoint, data, skip_empty=True)
    empty_S = np.isnan(found.X).all(axis=1)
    assert empty_S.sum() == 1 and empty_S[4] and np.isfinite(found.X[~empty_S]).all()


def by_training(predicted: anndata.AnnData) -> dict[bool, np.ndarray]:
    """Tell which CpGs were trained on, and which not."""
    seen_C = predicted.var["training_mean"].notna().to_numpy()
    assert seen_C.any() and not seen_C.all()
    return {True: seen_C, False: ~seen_C}


def test_each_sample_has_the_interval_of_its_depth(workplace: Path, store: Store, tmp_path: Path) -> None:
    checkpoint = workplace / "run" / "best.ckpt"
    module = load_checkpoint(checkpoint)
    calibrations = {seen: calibrations_by_depth(module, seen) for seen in (False, True)}
    assert tuple(calibrations[False]) == tuple(calibrations[True]) == DEPTHS
    shallow, deep = thinned(store, 90), thinned(store, 10_000)
    mixed = anndata.concat([shallow[:3], deep[:3]])
    found = predict(checkpoint, mixed)
    for rows, depth in ((slice(0, 3), 100), (slice(3, 6), 10_000)):
        for seen, of_C in by_training(found).items():
            lower, upper = interval(calibrations[seen][depth], np.asarray(found.X)[rows][:, of_C])
            np.testing.assert_array_equal(found.layers["lower"][rows][:, of_C], lower)
            np.testing.assert_array_equal(found.layers["upper"][rows][:, of_C], upper)
    predict_to_file(tmp_path / "out.h5ad", checkpoint, mixed)
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_allclose(written.layers["lower"], found.layers["lower"], atol=1e-6)
    library = predict(checkpoint, mixed, match="library")
    for seen, of_C in by_training(library).items():
        calibration = calibration_of(module, seen)
        assert calibration is not None
        bound = interval(calibration, np.asarray(library.X)[:, of_C])[1]
        np.testing.assert_array_equal(library.layers["upper"][:, of_C], bound)


def test_the_card_tells_what_intervals_cover_by_depth(workplace: Path, store: Store) -> None:
    module = load_checkpoint(workplace / "run" / "best.ckpt")
    split = load_split(workplace / "run" / "split.json", store)
    cpg_C, sample_S = split.view("test_cpg-test_sample")
    measured_SC = store.beta(cpg_C, sample_S).T
    known_SC = np.isfinite(measured_SC)
    for entry in module.card["depths"][2::4]:
        data = thinned(store, entry["depth"], seed=1)[sample_S].copy()
        found = predict(workplace / "run" / "best.ckpt", data, store.cpgs["id"].to_numpy(str)[cpg_C].tolist())
        inside_SC = (measured_SC >= found.layers["lower"] - 5e-5) & (measured_SC <= found.layers["upper"] + 5e-5)
        assert entry["coverage"] == pytest.approx(inside_SC[known_SC].mean(), abs=0.06)  # other draws
    assert "intervals of thin samples" in describe(module) and "10,000 " in describe(module)


def test_the_nearest_calibration_is_taken_by_the_logarithm() -> None:
    calibrations: dict[float, Any] = {
        depth: Calibration(0.9, [], [-width], [width], 100) for depth, width in ((100, 0.3), (1000, 0.2), (10_000, 0.1))
    }
    depth_S = np.array([1, 300, 330, 3000, 3300, np.inf])
    lower_SC, upper_SC = interval_by_depth(calibrations, depth_S, np.full((6, 2), 0.5))
    np.testing.assert_allclose(upper_SC[:, 0] - 0.5, [0.3, 0.3, 0.2, 0.2, 0.1, 0.1], atol=1e-6)
    np.testing.assert_allclose(lower_SC + upper_SC, 1)
