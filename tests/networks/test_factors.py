"""Methylation factors: each closed form equals a naive solution, and the whole knows training data only."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from conftest import rewrite
from torch import Tensor

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.store import ANNOTATION
from methyl_lightning.metrics.scores import mas_pcc
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks import MethylationFactors
from methyl_lightning.networks.contract import GenePlaces
from methyl_lightning.networks.factors.cis import Cis, circumstances, near_classes
from methyl_lightning.networks.factors.cpgs import ANNOTATION_WEIGHTS, Motifs, gene_geometry
from methyl_lightning.networks.factors.loadings import (
    KRIGING,
    N_FOLDS,
    PENALTIES,
    REACH_BP,
    Loadings,
    chromosome_folds,
)
from methyl_lightning.prepare.simulated import simulate


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> GridDataModule:
    """Simulate a cohort large enough to learn from."""
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5"
    simulate(path, n_cpgs=700, n_patients=100, n_genes=150, window=200, seed=2, effects=10)
    return GridDataModule(str(path))


@pytest.fixture(scope="module")
def module(cohort: GridDataModule) -> MethylationModule:
    made = MethylationModule("MethylationFactors", 150, 200, expression_scaling="none", n_inducing=300)
    made.fit_statistics(cohort)
    return made.eval()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places(n: int, per_chromosome: int, spread: int = 10**8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.arange(n) // per_chromosome, torch.randint(0, spread, (n,), generator=generator)


def naive_process(features: Tensor, target: Tensor, new: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
    """Solve the dense system in float64 at the penalty that predicts left-out folds best: out of fold, and new."""
    features, new, target = features.double(), new.double(), target.double()
    deviation, mean = torch.std_mean(target, correction=0)
    scaled, gram = (target - mean) / deviation, torch.exp(-torch.cdist(features, features))

    def out_of_fold(penalty: float) -> Tensor:
        result = torch.zeros_like(scaled)
        for f in fold.unique():
            k = fold != f
            weight = torch.linalg.solve(gram[k][:, k] + penalty * torch.eye(int(k.sum())), scaled[k])
            result[~k] = gram[~k][:, k] @ weight
        return result

    best = min(PENALTIES, key=lambda penalty: float((out_of_fold(penalty) - scaled).square().sum()))
    weight = torch.linalg.solve(gram + best * torch.eye(len(gram)), scaled)
    return out_of_fold(best) * deviation + mean, torch.exp(-torch.cdist(new, features)) @ weight * deviation + mean


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_nystroem_with_all_cpgs_is_the_exact_process(noise: float) -> None:
    features = normal(60, 3).float()
    target = (features[:, :1].sin() + noise * normal(60, 1, seed=1)).float()
    chrom, position = places(60, 6)
    model = Loadings(n_inducing=60)
    out = model.fit(features, chrom, position, target)
    new = normal(7, 3, seed=2).float()
    expected_out, expected = naive_process(features, target[:, 0], new, chromosome_folds(chrom, position))
    # a subset of all rows, left out by folds, sees the others' weights through the same basis
    nowhere = torch.full((7,), -1)
    torch.testing.assert_close(model(new, nowhere, nowhere)[:, 0].double(), expected, rtol=1e-3, atol=1e-3)
    assert float((out[:, 0] - expected_out).abs().mean()) < 0.02 * float(target.std())


def test_nystroem_nears_the_exact_process_with_more_inducing_cpgs() -> None:
    features = normal(200, 3).float()
    target = (features[:, :1].sin() + 0.3 * normal(200, 1, seed=1)).float()
    chrom, position = places(200, 20)
    new, nowhere = normal(50, 3, seed=2).float(), torch.full((50,), -1)
    _, exact = naive_process(features, target[:, 0], new, chromosome_folds(chrom, position))
    errors = []
    for n_inducing in (5, 50, 200):
        model = Loadings(n_inducing)
        model.fit(features, chrom, position, target)
        errors.append(float((model(new, nowhere, nowhere)[:, 0] - exact).abs().mean()))
    assert errors[0] > 2 * errors[1] and errors[1] > 2 * errors[2]


def test_kriging_is_a_dense_process_of_distance() -> None:
    chrom, position = places(30, 10, spread=20_000)  # 10 on each of 3 chromosomes, all within reach
    model = Loadings(30)
    model.fit(normal(30, 2).float(), chrom, position, normal(30, 2, seed=1).float())
    new_chrom, new_position = torch.tensor([0, 1, 2, 7, -1]), torch.tensor([500, 9_000, 15_000, 500, -1])
    row, known = model._neighbours(new_chrom, new_position)
    actual = model._krige(new_chrom, new_position, row, known, 0.3)

    def kappa(bp: Tensor) -> Tensor:
        total = sum(weight for _, weight in KRIGING)
        return sum(weight / total * torch.exp(-bp.double() / scale) for scale, weight in KRIGING)

    for c in range(3):
        on = model.chrom_C == new_chrom[c]
        at = model.position_C[on]
        gram = kappa((at[:, None] - at).abs()) + 0.3 * torch.eye(10)
        weight = torch.linalg.solve(gram, kappa((at - new_position[c]).abs()))
        torch.testing.assert_close(actual[c].double(), weight @ model.residual_CT[on].double(), rtol=1e-4, atol=1e-5)
    assert (actual[3:] == 0).all()  # another chromosome, and no place at all


def test_neighbours_are_the_nearest_within_reach() -> None:
    chrom, position = places(300, 100, spread=10_000_000)
    model = Loadings(10)
    model.fit(normal(300, 2).float(), chrom, position, normal(300, 1, seed=1).float())
    at = torch.tensor([0, 1, 2, 2]), torch.tensor([5_000_000, 10, 9_999_999, 7_000_000])
    row, known = model._neighbours(*at)
    for c in range(4):
        bp = torch.where(model.chrom_C == at[0][c], (model.position_C - at[1][c]).abs(), 10**9)
        nearest = bp.argsort()[: row.shape[1]]
        assert set(row[c][known[c]].tolist()) == {int(i) for i in nearest if bp[i] <= REACH_BP}


def test_folds_hold_whole_chromosomes_and_stretches_of_one() -> None:
    chrom, position = places(100, 10)
    fold = chromosome_folds(chrom, position)
    assert all(len(fold[chrom == c].unique()) == 1 for c in range(10))
    assert set(fold.bincount(minlength=N_FOLDS).tolist()) == {20}
    alone = chromosome_folds(torch.zeros(100, dtype=torch.int64), position)
    assert len(alone.unique()) == N_FOLDS
    nowhere = chromosome_folds(torch.full((100,), -1), torch.full((100,), -1))
    assert nowhere.bincount().tolist() == [20] * N_FOLDS


def test_slopes_on_near_genes_are_those_of_the_expanded_cells(cohort: GridDataModule) -> None:
    view = cohort.training_view(3_000)
    cpgs, genes, expression = view.cpgs, view.genes, (view.expression_SG - view.expression_SG.mean(0)) / 3
    mean = view.beta_CS.nanmean(1)
    gene_CK, class_CKB = near_classes(cpgs, genes)
    near = torch.einsum("ckb,skc->scb", class_CKB, expression[:, gene_CK].permute(0, 2, 1))
    cells = torch.einsum("scb,ci->scbi", near, circumstances(cpgs, mean)).flatten(2)
    truth = torch.zeros(cells.shape[2])
    truth[0], truth[5] = 0.5, -0.3
    residual = (cells @ truth).T
    cis = Cis()
    fold = chromosome_folds(cpgs.chrom_C, cpgs.position_C)
    cis.fit([(cpgs, mean, residual, fold)], genes, expression)
    slope = cis(class_CKB, circumstances(cpgs, mean))
    actual = torch.einsum("ck,sck->cs", slope, expression[:, gene_CK])
    assert float((actual - residual).square().mean()) < 1e-3 * float(residual.square().mean())


def test_a_distance_that_training_hardly_has_is_not_made_much_of(cohort: GridDataModule) -> None:
    """One training CpG has genes beyond whose end it lies, 12 kb off; another one, 1 bp off, gets a slope like its."""
    view = cohort.training_view(3_000)
    genes, expression = view.genes, (view.expression_SG - view.expression_SG.mean(0)) / 3
    far = view.cpgs._replace(bp_N=view.cpgs.bp_N.abs() + 30_000, position_C=view.cpgs.position_C.new_full((1,), -1))
    far = far._replace(position_C=far.position_C.expand(len(far.key_C)))
    mean, fold = view.beta_CS.nanmean(1), chromosome_folds(view.cpgs.chrom_C, view.cpgs.position_C)
    far.bp_N[: int(far.offset_C[1])] = -12_000
    gene_CK, class_CKB = near_classes(far, genes)
    residual = torch.einsum("ck,sck->cs", class_CKB.sum(2), expression[:, gene_CK])
    cis = Cis()
    cis.fit([(far, mean, residual, fold)], genes, expression)
    state = circumstances(far, mean)
    at_start = far._replace(bp_N=-torch.ones_like(far.bp_N))
    slopes = [float(cis(near_classes(cpgs, genes)[1], state).abs().max()) for cpgs in (far, at_start)]
    assert 0 < slopes[1] < 100 * slopes[0]


def test_geometry_says_where_a_cpg_stands_in_its_gene(cohort: GridDataModule) -> None:
    view = cohort.training_view(3_000)
    genes, cpgs = view.genes, view.cpgs
    geometry = gene_geometry(cpgs, genes)
    tss = torch.where(genes.strand_G > 0, genes.start_G, genes.end_G - 1)
    bounds = torch.cat([cpgs.offset_C, torch.tensor([len(cpgs.gene_N)])])
    for c in range(0, len(geometry), 7):
        listed = cpgs.gene_N[bounds[c] : bounds[c + 1]]
        far = (tss[listed] - cpgs.position_C[c]).abs()
        torch.testing.assert_close(geometry[c, 0], far.min().float().log1p())
        inside = (genes.start_G[listed] <= cpgs.position_C[c]) & (cpgs.position_C[c] < genes.end_G[listed])
        assert bool(geometry[c, 4]) == bool(inside.any())
        assert geometry[c, -1] == pytest.approx(np.log1p(int((far <= 100_000).sum())))


def test_planted_motifs_are_found_and_noise_has_none(module: MethylationModule, cohort: GridDataModule) -> None:
    found = module.network.description.motifs.weight_KQ
    assert found.shape[1] >= 1
    view = cohort.training_view(40_000)
    noise = normal(len(view.beta_CS), 4, seed=9).float()
    motifs = Motifs()
    motifs.fit(view.cpgs, normal(len(noise), 2).float(), noise)
    assert motifs.weight_KQ.shape[1] == 0


def test_blocks_of_the_annotation_are_its_columns() -> None:
    spans = [range(*columns.indices(len(ANNOTATION))) for columns, _ in ANNOTATION_WEIGHTS.values()]
    assert [i for span in spans for i in span] == list(range(len(ANNOTATION)))
    assert ANNOTATION[:2] == ("island", "shore")
    assert ANNOTATION[spans[1][0]].startswith("log_cpgs")


@pytest.mark.parametrize("view", TEST_VIEWS)
def test_beats_the_bilinear_ridge(view: str, module: MethylationModule, cohort: GridDataModule) -> None:
    ridge = MethylationModule("BilinearRidge", 150, 200)
    ridge.fit_statistics(cohort)
    rows = cohort.split.view(view)
    measured = cohort.store.beta(*rows)
    ours, theirs = (mas_pcc(measured, predict_grid(model, cohort.store, *rows)) for model in (module, ridge))
    assert ours > theirs + 0.03


def test_labels_of_test_cpgs_and_samples_change_nothing(
    module: MethylationModule, cohort: GridDataModule, tmp_path: Path
) -> None:
    beta = cohort.store.beta(np.arange(700), np.arange(len(cohort.store.samples)))
    hidden = np.zeros(beta.shape, dtype=bool)
    hidden[cohort.split.cpg["test"]] = hidden[cohort.split.cpg["val"]] = True
    hidden[:, cohort.split.sample["test"]] = hidden[:, cohort.split.sample["val"]] = True
    changed = rewrite(cohort.store, tmp_path / "changed.h5", beta_CS=np.where(hidden, 1 - beta, beta))
    again = MethylationModule("MethylationFactors", 150, 200, expression_scaling="none", n_inducing=300)
    again.fit_statistics(GridDataModule(str(changed.path)))
    rows = cohort.split.view("test_cpg-test_sample")
    expected = predict_grid(module, cohort.store, *rows)
    np.testing.assert_array_equal(predict_grid(again.eval(), changed, *rows), expected)


def test_pairs_are_cells_of_the_grid(module: MethylationModule, cohort: GridDataModule) -> None:
    view = cohort.training_view(2_000)
    with torch.inference_mode():
        cpgs = module.network.encode_cpgs(view.cpgs)
        samples = module.network.encode_samples(view.expression_SG[: len(view.beta_CS)])
        grid, pairs = module.network.combine(cpgs, samples), module.network.combine_pairs(cpgs, samples)
    torch.testing.assert_close(grid.diagonal(), pairs, rtol=1e-4, atol=1e-5)


def test_a_cpg_is_predicted_alone_as_among_others() -> None:
    loadings, (chrom, position) = Loadings(100), places(100, 25)
    features = 10 * normal(100, 60).float()
    loadings.fit(features, chrom, position, normal(100, 3, seed=1).float())
    unknown = torch.full((100,), -1)
    together = loadings(features, unknown, unknown)
    alone = torch.cat([loadings(features[i : i + 1], unknown[:1], unknown[:1]) for i in range(100)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_checkpoint_gives_the_same_predictions_without_the_store(
    module: MethylationModule, cohort: GridDataModule, tmp_path: Path
) -> None:
    trainer = L.Trainer(max_steps=0, accelerator="cpu", logger=False, default_root_dir=tmp_path, barebones=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    loaded = MethylationModule.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    rows = cohort.split.view("test_cpg-test_sample")
    expected = predict_grid(module, cohort.store, *rows)
    np.testing.assert_array_equal(predict_grid(loaded, cohort.store, *rows), expected)
    record = loaded.training_record()
    assert record is not None
    np.testing.assert_array_equal(record.annotation_CP, cohort.store.annotation_CP)


def test_cpg_without_any_value_is_as_unseen(cohort: GridDataModule) -> None:
    view = cohort.training_view(20_000)
    view.beta_CS[3] = torch.nan
    network = MethylationFactors(150, n_inducing=50)
    network.fit_closed_form(view)
    assert len(network.key_C) == len(view.beta_CS) - 1
    assert not torch.isin(view.cpgs.key_C[3], network.key_C)


def test_data_without_places_or_sequences_are_fitted(cohort: GridDataModule) -> None:
    view = cohort.training_view(10_000)
    unknown = torch.full_like(view.cpgs.position_C, -1)
    blind = view.cpgs._replace(
        sequence_CL=torch.full_like(view.cpgs.sequence_CL, 4), chrom_C=unknown, position_C=unknown
    )
    nowhere = torch.full_like(view.genes.start_G, -1)
    network = MethylationFactors(150, n_inducing=50)
    network.fit_closed_form(view._replace(cpgs=blind, genes=GenePlaces(nowhere, nowhere, nowhere * 0)))
    network.eval()
    assert bool(network(blind, view.expression_SG).isfinite().all())


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="n_factors=0, n_inducing=1000: must be at least"):
        MethylationFactors(10, n_factors=0)
