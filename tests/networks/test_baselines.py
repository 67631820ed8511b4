"""Closed-form baselines equal naive computations, see training data only, and stand alone in a checkpoint."""

import sys
from itertools import pairwise
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import reorder, rewrite
from naive import naive_ridge
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from methyl_lightning.data.batches import read_cpgs
from methyl_lightning.data.datamodule import Block, GridDataModule, GridDataset
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.scores import mae, mas_pcc, mse
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks import (
    BilinearRidge,
    CisLinear,
    CpgMean,
    ExpressionOnly,
    KmerGbm,
    OwnLabelRidge,
    TrainingView,
)
from methyl_lightning.networks.baselines.boosting import Trees
from methyl_lightning.networks.baselines.features import (
    FAR_BP,
    SCALES_BP,
    distance_features,
    kmer_frequencies,
    near_gene_loadings,
    nearest_genes,
)
from methyl_lightning.networks.baselines.ridge import (
    ROW_FOLDS,
    fit_ridge_left_out,
    folds,
)
from methyl_lightning.prepare.simulated import simulate

CLOSED_FORM = ["Constant", "CpgMean", "ExpressionOnly", "CisLinear", "BilinearRidge", "KmerGbm"]
CLOSED_FORM += ["OwnLabelRidge", "MethylationFactors"]
QUICK = {"KmerGbm": {"n_cells": 5_000, "n_trees": 25}}


def fitted(network: str, datamodule: GridDataModule) -> MethylationModule:
    sizes = {"n_genes": len(datamodule.store.genes), "window": datamodule.store.window}
    module = MethylationModule(network, **sizes, **QUICK.get(network, {}))
    module.fit_statistics(datamodule)
    return module.eval()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> GridDataModule:
    """Simulate a cohort large enough to learn from."""
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5"
    simulate(path, n_cpgs=800, n_patients=120, n_genes=150, window=200, seed=2, effects=20)
    return GridDataModule(str(path))


@pytest.fixture(scope="module")
def view(cohort: GridDataModule) -> TrainingView:
    return cohort.training_view(4_000)


def test_kmers_of_both_strands_are_counted_without_unknown_bases() -> None:
    text = "ACGTTNGCACGA"
    sequence_CL = torch.tensor([["ACGTN".index(base) for base in text]], dtype=torch.uint8)
    complement = str.maketrans("ACGT", "TGCA")
    expected = []
    for k in (1, 2, 3):
        words = [text[i : i + k] for i in range(len(text) - k + 1) if "N" not in text[i : i + k]]
        names = sorted({min(word, word.translate(complement)[::-1]) for word in map("".join, product_of_bases(k))})
        found = [min(word, word.translate(complement)[::-1]) for word in words]
        expected += [found.count(name) / len(words) for name in names]
    np.testing.assert_allclose(kmer_frequencies(sequence_CL, 3)[0], expected, atol=1e-6)
    assert not kmer_frequencies(torch.full((2, 9), 4, dtype=torch.uint8), 2).any()


def product_of_bases(k: int) -> list[str]:
    return [""] if k == 0 else [base + rest for base in "ACGT" for rest in product_of_bases(k - 1)]


def test_near_genes_are_weighted_by_distance(view: TrainingView) -> None:
    cpgs, rng = view.cpgs, np.random.default_rng(0)
    loading_GQ = rng.normal(size=(view.expression_SG.shape[1], 3))
    bounds = [*cpgs.offset_C.tolist(), len(cpgs.gene_N)]
    summed = near_gene_loadings(cpgs, torch.from_numpy(loading_GQ)).numpy()
    distances = distance_features(cpgs).numpy()
    for c in range(len(cpgs.offset_C)):
        gene, bp = (part[bounds[c] : bounds[c + 1]].numpy() for part in (cpgs.gene_N, cpgs.bp_N))
        lower, higher = ([np.exp(-np.abs(bp) / scale) * side for scale in SCALES_BP] for side in (bp < 0, bp >= 0))
        expected = [(a + b) @ loading_GQ[gene] for a, b in zip(lower, higher, strict=True)]
        np.testing.assert_allclose(summed[c], np.concatenate(expected), rtol=1e-4, atol=1e-6)
        nearest = [np.abs(bp[side]).min(initial=2 * SCALES_BP[-1]) for side in (bp < 0, bp >= 0)]
        expected = [*(weight.sum() for weight in lower + higher), *np.log1p(nearest)]
        np.testing.assert_allclose(distances[c], expected, rtol=1e-4, atol=1e-6)


def test_nearest_genes_are_those_of_each_cpg(view: TrainingView) -> None:
    cpgs = view.cpgs
    gene_CK, bp_CK = nearest_genes(cpgs, 7)
    bounds = [*cpgs.offset_C.tolist(), len(cpgs.gene_N)]
    assert {min(b - a, 7) for a, b in pairwise(bounds)} > {7}  # some have all seven, some do not
    for c, (first, last) in enumerate(pairwise(bounds)):
        entries = sorted(range(first, last), key=lambda n: abs(int(cpgs.bp_N[n])))[:7]
        missing = 7 - len(entries)
        assert gene_CK[c].tolist() == cpgs.gene_N[entries].tolist() + [-1] * missing
        assert bp_CK[c].tolist() == cpgs.bp_N[entries].tolist() + [FAR_BP] * missing


def test_trees_predict_what_scikit_learn_predicts() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 6)).astype(np.float32)
    x[:, 0] = rng.integers(0, 5, len(x)) / 10  # few values, thresholds midway between them
    x[:, 1] = np.float32(1) + rng.integers(0, 40, len(x)) * np.finfo(np.float32).eps  # no float32 lies between these
    y = np.sin(3 * x[:, 2]) + 5 * x[:, 0] * x[:, 3] + (x[:, 1] - 1) * 1e6 + 0.1 * rng.normal(size=len(x))
    regressor = HistGradientBoostingRegressor(max_iter=40, max_depth=5, random_state=0).fit(x, y)
    trees = Trees()
    trees.take(regressor)
    assert {0, 1, 2, 3} <= set(trees.feature_TM.unique().tolist())
    np.testing.assert_allclose(trees(torch.from_numpy(x)), regressor.predict(x), rtol=1e-5, atol=1e-5)


def test_boosting_depends_on_its_seed_alone(view: TrainingView) -> None:
    def grown(seed: int) -> Tensor:
        torch.manual_seed(torch.initial_seed() + 1)  # another state of the global generator each time
        network = KmerGbm(n_cells=2_000, n_trees=5, seed=seed)
        network.fit_closed_form(view)
        return network.trees.value_TM

    first = grown(0)
    assert torch.equal(first, grown(0))
    assert not torch.equal(first, grown(1))


def test_boosting_learns_from_near_genes_and_predicts_without_scikit_learn(
    cohort: GridDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fitted("KmerGbm", cohort)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    found = scores(module, cohort, "test_cpg-test_sample")
    assert (
        found["mas_pcc"] > 0.1
        and found["mae"] < scores(fitted("Constant", cohort), cohort, "test_cpg-test_sample")["mae"]
    )


@pytest.mark.parametrize("name", ["n_nearest", "n_cells", "n_trees"])
def test_boosting_names_wrong_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
        KmerGbm(**{name: 0})


def test_cis_slopes_are_a_ridge_over_all_measured_cells(view: TrainingView) -> None:
    torch.manual_seed(0)
    network = CisLinear(view.expression_SG.shape[1])
    network.fit_closed_form(view)
    e_SG, beta_CS = view.expression_SG.numpy().astype(float), view.beta_CS.numpy().astype(float)
    varies = e_SG.std(0) > 0
    standard_SG = np.where(varies, (e_SG - e_SG.mean(0)) / np.where(varies, e_SG.std(0), 1), 0)
    bounds = [*view.cpgs.offset_C.tolist(), len(view.cpgs.gene_N)]
    features, targets, fold = [], [], []
    for c, in_fold in enumerate(folds(len(beta_CS), ROW_FOLDS).tolist()):
        gene, bp = (part[bounds[c] : bounds[c + 1]].numpy() for part in (view.cpgs.gene_N, view.cpgs.bp_N))
        sides = [np.exp(-np.abs(bp) / scale) * side for side in (bp < 0, bp >= 0) for scale in SCALES_BP]
        measured = np.isfinite(beta_CS[c])
        features.append(np.stack([standard_SG[:, gene] @ weight for weight in sides], 1)[measured])
        targets.append((beta_CS[c] - np.nanmean(beta_CS[c]))[measured])
        fold += [in_fold] * measured.sum()
    x, y = np.concatenate(features), np.concatenate(targets)[:, None]
    size = np.sqrt((x**2).mean(0))
    expected = naive_ridge(x / size, y, np.array(fold))[:, 0] / size
    np.testing.assert_allclose(network.slope_P, expected, rtol=1e-3, atol=1e-6)


def test_means_and_own_labels_are_those_of_each_cpg(cohort: GridDataModule) -> None:
    view = cohort.training_view()
    mean_C = view.beta_CS.nanmean(1)
    means, own = (fitted(network, cohort).network for network in ("CpgMean", "OwnLabelRidge"))
    torch.testing.assert_close(means.encode_cpgs(view.cpgs).value_C, mean_C)
    unseen = means.encode_cpgs(read_cpgs(cohort.store, cohort.split.cpg["test"])).value_C
    assert unseen.std() > 0.05
    # a CpG is known by its name, wherever it stands and whatever else is asked
    torch.testing.assert_close(
        means.encode_cpgs(read_cpgs(cohort.store, cohort.split.cpg["train"][5:6])).value_C[0], mean_C[5]
    )

    component_SQ = own.encode_samples(fitted("Constant", cohort).scaler(view.expression_SG)).component_SQ.numpy()
    residual_CS = (view.beta_CS - mean_C[:, None]).nan_to_num(0).numpy()
    expected = fit_ridge_left_out(torch.from_numpy(component_SQ), torch.from_numpy(residual_CS.T)).T
    np.testing.assert_allclose(own.encode_cpgs(view.cpgs).slope_CQ, expected, atol=1e-4)
    lines = own.encode_cpgs(read_cpgs(cohort.store, cohort.split.cpg["test"]))
    assert not lines.slope_CQ.any()
    torch.testing.assert_close(lines.value_C, unseen)


def test_a_cpg_without_values_is_not_a_seen_one(view: TrainingView) -> None:
    beta_CS = view.beta_CS.clone()
    beta_CS[3] = torch.nan
    for network in (CpgMean(), OwnLabelRidge(150), BilinearRidge(150), ExpressionOnly(150)):
        network.fit_closed_form(view._replace(beta_CS=beta_CS))
        predicted_CS = network(view.cpgs, view.expression_SG)
        assert predicted_CS.isfinite().all()
        if isinstance(network, CpgMean | OwnLabelRidge):
            assert predicted_CS[3].std() < 1e-6 and predicted_CS[3].mean() != beta_CS.nanmean()


@pytest.mark.parametrize("network", CLOSED_FORM)
def test_cells_do_not_depend_on_their_neighbours(network: str, cohort: GridDataModule) -> None:
    module = fitted(network, cohort)
    grid_CS = module(GridDataset(cohort.store)[Block(np.arange(50), np.arange(20))])
    assert grid_CS.shape == (50, 20) and grid_CS.isfinite().all()
    cpg_N, sample_N = np.array([3, 49, 3, 17]), np.array([0, 19, 7, 7])
    pairs_N = module(GridDataset(cohort.store)[Block(cpg_N, sample_N, pairs=True)])
    torch.testing.assert_close(pairs_N, grid_CS[cpg_N, sample_N], rtol=1e-4, atol=1e-5)
    blocks_CS = predict_grid(module, cohort.store, np.arange(50), np.arange(20), (7, 6))
    np.testing.assert_allclose(blocks_CS, grid_CS, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", CLOSED_FORM)
def test_nothing_is_fitted_to_held_out_cells(network: str, store: Store, tmp_path: Path) -> None:
    datamodule = GridDataModule(str(store.path))
    train_C, train_S = datamodule.split.view("train_cpg-train_sample")
    beta_CS = store.beta(np.arange(120), np.arange(43))
    expression_SG = np.array(store.expression_SG)
    held_CS = np.full(beta_CS.shape, True)
    held_CS[np.ix_(train_C, train_S)] = False
    other_beta_CS = np.where(held_CS, 1 - beta_CS, beta_CS)
    held_S = np.setdiff1d(np.arange(43), train_S)
    expression_SG[held_S] = expression_SG[held_S][:, ::-1] + 3
    sequence_CL = np.array(store.sequence_CL)
    held_C = np.setdiff1d(np.arange(120), train_C)
    sequence_CL[held_C] = sequence_CL[held_C, ::-1]
    changed = rewrite(
        store, tmp_path / "changed.h5", beta_CS=other_beta_CS, expression_SG=expression_SG, sequence_CL=sequence_CL
    )
    first, second = (fitted(network, GridDataModule(str(path))).state_dict() for path in (store.path, changed.path))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    # and training cells do matter
    beta_CS[np.ix_(train_C, train_S)] **= 2
    trained = rewrite(store, tmp_path / "trained.h5", beta_CS=beta_CS)
    third = fitted(network, GridDataModule(str(trained.path))).state_dict()
    assert not all(torch.equal(value, third[name]) for name, value in first.items())


@pytest.mark.parametrize("network", CLOSED_FORM)
def test_checkpoint_stands_alone(
    network: str, cohort: GridDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fitted(network, cohort)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    batch = GridDataset(cohort.store)[Block(*cohort.split.view("test_cpg-test_sample"))]
    monkeypatch.setattr(Store, "__init__", lambda *args: pytest.fail("the store was opened"))
    loaded = MethylationModule.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True).eval()
    assert loaded.state_dict().keys() == module.state_dict().keys()
    torch.testing.assert_close(loaded(batch), module(batch), rtol=0, atol=0)


def test_a_seen_cpg_is_found_in_a_store_of_another_order(store: Store, tmp_path: Path) -> None:
    module = fitted("OwnLabelRidge", GridDataModule(str(store.path)))
    cpg_C, sample_S = np.random.default_rng(0).permutation(120), np.random.default_rng(1).permutation(43)
    other = reorder(store, tmp_path / "other.h5", cpg_C, sample_S)
    expected_CS = predict_grid(module, store, cpg_C, sample_S)
    np.testing.assert_allclose(predict_grid(module, other, np.arange(120), np.arange(43)), expected_CS, atol=1e-5)


def scores(module: MethylationModule, datamodule: GridDataModule, view: str) -> dict[str, float]:
    rows = datamodule.split.view(view)
    measured_CS, predicted_CS = datamodule.store.beta(*rows), predict_grid(module, datamodule.store, *rows)
    return {score.__name__: score(measured_CS, predicted_CS) for score in (mae, mse, mas_pcc)}


def test_baselines_stand_in_the_order_of_what_they_know(cohort: GridDataModule) -> None:
    modules = {network: fitted(network, cohort) for network in CLOSED_FORM}
    found = {(name, view): scores(module, cohort, view) for name, module in modules.items() for view in TEST_VIEWS}
    headline = "test_cpg-test_sample"
    bilinear, constant = found["BilinearRidge", headline], found["Constant", headline]
    assert bilinear["mas_pcc"] > 0.2 and bilinear["mae"] < constant["mae"]
    assert bilinear["mas_pcc"] > found["ExpressionOnly", headline]["mas_pcc"]
    assert bilinear["mse"] < found["CpgMean", headline]["mse"] < constant["mse"]
    # the expression of near genes is planted
    assert found["CisLinear", headline]["mas_pcc"] > 0.1
    # what depends on the CpG alone does not tell samples apart
    assert all(np.isnan(found["CpgMean", view]["mas_pcc"]) for view in TEST_VIEWS)
    # own labels help where there are any
    seen = "train_cpg-test_sample"
    for score in ("mae", "mse"):
        assert all(found["OwnLabelRidge", seen][score] < found[name, seen][score] for name in CLOSED_FORM[:-2])
    assert found["OwnLabelRidge", seen]["mas_pcc"] > found["BilinearRidge", seen]["mas_pcc"]


def test_gradient_networks_do_not_read_the_training_view(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GridDataModule, "training_view", lambda self: pytest.fail("the view was read"))
    fitted("SequenceOnly", GridDataModule(str(store_path)))
