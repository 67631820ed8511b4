"""The simulated cohort keeps what its truth file says."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from methyl_lightning.data.distances import gene_position
from methyl_lightning.data.store import ALPHABET, Store
from methyl_lightning.metrics.scores import correlation_per_row
from methyl_lightning.prepare.ceiling import REGION_BP, read_ceiling, to_beta, told_by_neighbours
from methyl_lightning.prepare.simulated import simulate

SMALL: dict[str, Any] = {"n_cpgs": 300, "n_patients": 60, "n_genes": 120, "window": 200, "n_chromosomes": 3}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "cohort.h5"
    simulate(path, **SMALL)
    return path


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return Store(path)


@pytest.fixture(scope="module")
def truth(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path.with_name("cohort.truth.h5")) as file:
        file.visititems(lambda name, item: arrays.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def whole_beta(store: Store) -> np.ndarray:
    return store.beta(np.arange(len(store.cpgs)), np.arange(len(store.samples)))


def letters(store: Store) -> list[str]:
    return ["".join(ALPHABET[code] for code in row) for row in store.sequence_CL]


def cpg_counts(store: Store) -> np.ndarray:
    return np.array([text.count("CG") for text in letters(store)])


def test_every_window_has_its_cpg_in_the_middle(store: Store) -> None:
    assert store.sequence_CL.shape == (300, 200)
    assert {text[99:101] for text in letters(store)} == {"CG"}
    assert not store.cpgs.duplicated(["chrom", "position"]).any()


def test_narrowest_window_keeps_cpg_and_motif(tmp_path: Path) -> None:
    simulate(tmp_path / "narrow.h5", **SMALL | {"window": 40})
    texts = letters(Store(tmp_path / "narrow.h5"))
    with h5py.File(tmp_path / "narrow.truth.h5") as file:
        motifs, motif_C = file["drivers/motif"].asstr()[:], file["cpgs/motif"][:]
    assert {text[19:21] for text in texts} == {"CG"}
    assert all(motifs[motif] in text for motif, text in zip(motif_C, texts, strict=True) if motif >= 0)


def test_overlapping_windows_show_the_same_genome(tmp_path: Path) -> None:
    simulate(tmp_path / "wide.h5", **SMALL | {"window": 600})
    store = Store(tmp_path / "wide.h5")
    position, chrom = store.cpgs["position"].to_numpy(), store.cpgs["chrom"].to_numpy()
    shift = np.diff(position)
    pairs = np.flatnonzero((chrom[1:] == chrom[:-1]) & (shift < store.window))
    assert len(pairs)
    for c in pairs:
        overlap = store.window - shift[c]
        assert (store.sequence_CL[c, -overlap:] == store.sequence_CL[c + 1, :overlap]).all()


def test_islands_are_dense_and_unmethylated(store: Store, truth: dict[str, np.ndarray]) -> None:
    island, counts, beta = truth["cpgs/island"], cpg_counts(store), whole_beta(store)
    assert 0.15 < island.mean() < 0.5
    assert np.median(counts[island]) > 2 * np.median(counts[~island])
    assert np.nanmedian(beta[island]) < 0.1 < 0.2 < np.nanmedian(beta[~island])


def test_motif_stands_only_in_the_windows_flagged(store: Store, truth: dict[str, np.ndarray]) -> None:
    texts = letters(store)
    assert 0.3 < (truth["cpgs/motif"] >= 0).mean() < 0.6
    for number, motif in enumerate(truth["drivers/motif"].astype(str)):
        found = np.array([text.count(motif) for text in texts])
        flagged = truth["cpgs/motif"] == number
        assert found[flagged].min() >= 2
        assert found[flagged].max() <= 4 + 1  # one by chance
        assert (found[~flagged] > 0).mean() < 0.02


def test_cpgs_of_a_cluster_share_their_motifs(tmp_path: Path) -> None:
    simulate(tmp_path / "wide.h5", **SMALL | {"window": 800, "n_cpgs": 200})
    store = Store(tmp_path / "wide.h5")
    with h5py.File(tmp_path / "wide.truth.h5") as file:
        motifs, motif_C = file["drivers/motif"].asstr()[:], file["cpgs/motif"][:]
    near = np.abs(np.diff(store.position_C)) < 280
    assert near.sum() > 50
    assert (motif_C[1:] == motif_C[:-1])[near].all()
    texts = letters(store)
    assert {text[399:401] for text in texts} == {"CG"}
    assert all(text.count(motifs[motif]) >= 2 for motif, text in zip(motif_C, texts, strict=True) if motif >= 0)


def test_driver_acts_with_the_planted_sign_and_only_where_its_motif_is(
    store: Store, truth: dict[str, np.ndarray]
) -> None:
    assert set(np.sign(truth["drivers/effect"])) == {-1.0, 1.0}
    level = truth["level"].astype(np.float64)
    driver_SD = store.expression_SG[:, truth["drivers/gene"]].astype(np.float64)
    driver_SD = (driver_SD - driver_SD.mean(axis=0)) / driver_SD.std(axis=0)
    with_cis = np.isin(np.arange(len(store.cpgs)), truth["cis/cpg"])
    effect_C = np.append(truth["drivers/effect"], 0)[truth["cpgs/motif"]]
    centred_CS = level - level.mean(axis=1, keepdims=True)
    alone = np.flatnonzero(~with_cis)  # nothing but the trans term moves these
    assert len(alone)
    np.testing.assert_allclose(
        centred_CS[alone], effect_C[alone, None] * driver_SD[:, truth["cpgs/motif"][alone]].T, atol=1e-3
    )
    for number, effect in enumerate(truth["drivers/effect"]):
        slope_C = centred_CS[truth["cpgs/motif"] == number] @ driver_SD[:, number] / len(driver_SD)
        assert np.median(np.sign(slope_C)) == np.sign(effect)


def test_near_expression_lowers_beta(store: Store, truth: dict[str, np.ndarray]) -> None:
    gene_N, cpg_N, weight_N = truth["cis/gene"], truth["cis/cpg"], truth["cis/weight"]
    minus_N = (store.genes["strand"] == "-").to_numpy()[gene_N]
    bp_N = gene_position(store.genes, "tss")[gene_N] - store.cpgs["position"].to_numpy()[cpg_N]
    upstream_N = np.where(minus_N, bp_N < 0, bp_N > 0)
    assert (weight_N < 0).all()
    np.testing.assert_allclose(weight_N, -0.3 * 0.5 ** (np.abs(bp_N) / np.where(upstream_N, 1000, 3000)))
    assert 0.2 < len(np.unique(gene_N)) / len(store.genes) < 0.5  # few genes act
    close_N = np.abs(bp_N) < 1000
    beta, expression = to_beta(truth["level"]), store.expression_SG
    r = [
        np.corrcoef(beta[c], expression[:, g])[0, 1]
        for c, g in zip(cpg_N[close_N], gene_N[close_N], strict=True)
        if truth["cpgs/motif"][c] < 0
    ]
    assert np.median(r) < -0.5


def test_effects_are_stronger_where_asked_and_nothing_else_changes(
    truth: dict[str, np.ndarray], tmp_path: Path
) -> None:
    simulate(tmp_path / "strong.h5", **SMALL, effects=3)
    with h5py.File(tmp_path / "strong.truth.h5") as file:
        for name in ("drivers/effect", "cis/weight"):
            np.testing.assert_allclose(file[name][:], 3 * truth[name])
        for name in ("drivers/gene", "cis/gene", "cpgs/motif", "cpgs/offset"):
            np.testing.assert_array_equal(file[name][:], truth[name])


def test_distances_equal_a_loop_over_genes(store: Store) -> None:
    tss = [row.start if row.strand == "+" else row.end - 1 for row in store.genes.itertuples()]
    for c in range(0, len(store.cpgs), 10):
        cpg = store.cpgs.iloc[c]
        expected = {
            (g, tss[g] - cpg["position"])
            for g, chrom in enumerate(store.genes["chrom"])
            if chrom == cpg["chrom"] and abs(tss[g] - cpg["position"]) <= 100_000
        }
        row = store.distances.rows(np.array([c]))
        assert set(zip(row.gene_N.tolist(), row.bp_N.tolist(), strict=True)) == expected


def test_genes_lie_on_their_chromosomes(store: Store) -> None:
    assert store.genes["chrom"].value_counts().to_dict() == {"chr1": 40, "chr2": 40, "chr3": 40}
    assert (store.genes["start"] >= 0).all()
    assert (store.genes["end"] <= 40 * 20_000).all()
    assert (store.genes["end"] > store.genes["start"]).all()


def test_samples_and_expression_look_like_a_cohort(store: Store, truth: dict[str, np.ndarray]) -> None:
    samples, expression = store.samples, np.asarray(store.expression_SG)
    assert (samples["id"].str[:12] == samples["patient"]).all()
    assert samples["patient"].nunique() == 60
    pairs = samples.groupby("patient")["tissue_type"].apply(tuple)
    assert (pairs == ("Primary Tumor", "Solid Tissue Normal")).sum() == round(0.07 * 60)
    assert set(samples["cohort"]) == {"TISSUE_A", "TISSUE_B"}
    assert (samples.groupby("patient")["cohort"].nunique() == 1).all()
    assert expression.min() >= 0
    assert (np.median(expression, axis=0) < 0.5).mean() > 0.1
    assert (expression[:, truth["drivers/gene"]].std(axis=0) > 1).all()


def test_beta_is_bimodal_with_random_gaps(store: Store) -> None:
    beta = whole_beta(store)
    assert abs(np.isnan(beta).mean() - 0.02) < 0.005
    seen = beta[~np.isnan(beta)]
    assert seen.min() >= 0
    assert seen.max() <= 1
    low, middle, high = np.histogram(seen, bins=[0, 0.2, 0.8, 1], density=True)[0]
    assert low > 4 * middle
    assert high > 1.3 * middle


def test_statistics_are_those_of_cpgs_that_were_not_chosen_for_varying(tmp_path: Path) -> None:
    """Each range is that between all HM27 CpGs of a chromosome and random CpGs of HM450, as measured."""
    simulate(tmp_path / "cohort.h5", n_cpgs=1000, n_patients=100, n_genes=250)
    store = Store(tmp_path / "cohort.h5")
    beta = whole_beta(store)
    mean, sd = np.nanmean(beta, axis=1), np.nanstd(beta, axis=1)
    assert 0.86 < np.var(mean) / np.nanvar(beta) < 0.91
    assert 0.32 < (mean < 0.2).mean() < 0.61
    assert 0.09 < (mean > 0.8).mean() < 0.27
    assert 0.005 < np.median(sd[mean < 0.05]) < 0.013
    assert 0.15 < np.median(sd[(mean > 0.4) & (mean < 0.6)]) < 0.2
    gap, same = np.diff(store.position_C), store.cpgs["chrom"][1:].to_numpy() == store.cpgs["chrom"][:-1].to_numpy()
    pairs = np.flatnonzero(same & (gap < 400))
    assert len(pairs) > 200
    assert 0.6 < np.corrcoef(mean[pairs], mean[pairs + 1])[0, 1] < 0.9
    left, right = beta[pairs], np.where(np.isnan(beta[pairs]), np.nan, beta[pairs + 1])
    r = correlation_per_row(np.where(np.isnan(right), np.nan, left), np.nan_to_num(right))
    assert 0.35 < r.mean() < 0.6


def test_ceiling_is_nearer_the_more_of_a_cpg_is_known(store: Store, path: Path) -> None:
    beta, cpgs, samples = whole_beta(store), np.arange(len(store.cpgs)), np.arange(len(store.samples))
    unseen = cpgs[1::2]
    errors = [
        np.nanmean(np.abs(beta - predicted)[unseen])
        for predicted in (
            read_ceiling(path, cpgs, samples, cpgs),
            np.nanmedian(beta, axis=1, keepdims=True),
            read_ceiling(path, cpgs, samples, cpgs[::2]),
            read_ceiling(path, cpgs, samples, cpgs[:0]),
            np.nanmedian(beta),
        )
    ]
    assert errors == sorted(errors) and errors[3] < 0.8 * errors[4]


def test_ceiling_picks_rows_and_columns(path: Path, store: Store) -> None:
    cpgs, samples, training = np.array([7, 2, 250]), np.array([5, 40]), np.array([2, 3, 4, 251])
    every = [np.arange(len(table)) for table in (store.cpgs, store.samples)]
    whole = read_ceiling(path, *every, training)
    np.testing.assert_array_equal(read_ceiling(path, cpgs, samples, training), whole[cpgs][:, samples])


def test_ceiling_leaves_out_what_no_training_cpg_tells(path: Path, truth: dict[str, np.ndarray]) -> None:
    cpgs, samples = np.arange(len(truth["level"])), np.arange(truth["level"].shape[1])
    np.testing.assert_allclose(read_ceiling(path, cpgs, samples, cpgs[:0]), to_beta(truth["level"]), atol=1e-6)


def test_neighbours_tell_what_kriging_with_all_of_them_does() -> None:
    rng = np.random.default_rng(0)
    chrom, position = np.repeat(["chr1", "chr2"], 20), np.sort(rng.integers(0, 20_000, (2, 20)), axis=1).ravel()
    training, value = np.sort(rng.choice(40, 15, replace=False)), rng.normal(size=(40, 3))
    distance = np.where(chrom[:, None] == chrom, np.abs(position[:, None] - position), np.inf)
    correlation = np.exp(-distance / REGION_BP)
    expected = correlation[:, training] @ np.linalg.solve(correlation[np.ix_(training, training)], value[training])
    np.testing.assert_allclose(told_by_neighbours(value, chrom, position, training), expected, atol=1e-9)


def test_no_ceiling_without_the_truth_of_this_store(tmp_path: Path) -> None:
    one = np.array([0])
    for name, seed in (("a", 0), ("b", 1)):
        simulate(tmp_path / f"{name}.h5", **SMALL, seed=seed)
    (tmp_path / "a.truth.h5").unlink()
    assert read_ceiling(tmp_path / "a.h5", one, one, one) is None
    (tmp_path / "b.truth.h5").rename(tmp_path / "a.truth.h5")
    assert read_ceiling(tmp_path / "a.h5", one, one, one) is None


def test_provenance_names_settings_and_truth(store: Store) -> None:
    rest = {"n_drivers": 2, "effects": 1.0, "missing": 0.02, "limit_bp": 100_000, "seed": 0}
    assert store.attributes["provenance"] == {
        "source": "simulated",
        "settings": SMALL | rest,
        "truth": "cohort.truth.h5",
    }
    assert store.attributes["assembly"] == "simulated"
    assert store.attributes["units"] == "log2(norm+1)"


def test_same_seed_same_arrays(store: Store, tmp_path: Path) -> None:
    simulate(tmp_path / "again.h5", **SMALL)
    simulate(tmp_path / "other.h5", **SMALL, seed=1)
    again, other = Store(tmp_path / "again.h5"), Store(tmp_path / "other.h5")
    for name in ("sequence_CL", "expression_SG", "beta_steps_CS"):
        assert getattr(again, name).tobytes() == getattr(store, name).tobytes()
        assert getattr(other, name).tobytes() != getattr(store, name).tobytes()
    assert again.cpgs.equals(store.cpgs)
    assert again.genes.equals(store.genes)
    assert again.samples.equals(store.samples)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 201),
        ("window", 38),
        ("n_cpgs", 0),
        ("n_cpgs", 100_000),
        ("n_patients", 1),
        ("n_genes", 2),
        ("n_chromosomes", 0),
        ("n_drivers", 0),
        ("effects", -1),
        ("missing", 1.0),
        ("missing", float("nan")),
        ("limit_bp", 0),
        ("seed", -1),
    ],
)
def test_wrong_argument_is_named_and_nothing_written(tmp_path: Path, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}={value}: must"):
        simulate(tmp_path / "wrong.h5", **SMALL | {name: value})
    assert not list(tmp_path.iterdir())
