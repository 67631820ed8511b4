"""Splits: patients stay whole, parts cover everything once, ids find their rows in any store."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZES, contents, reorder, rewrite, tiny_store

from methyl_lightning.data import store as store_module
from methyl_lightning.data.distances import within
from methyl_lightning.data.splits import (
    PARTS,
    TEST_VIEWS,
    Split,
    beta_variance,
    describe_split,
    load_split,
    make_split,
    save_split,
)
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError

FRACTIONS = (0.7, 0.1, 0.2)


@pytest.fixture(scope="module")
def split(store: Store) -> Split:
    return make_split(store, FRACTIONS, seed=3)


def ids(split: Split, store: Store) -> dict[str, dict[str, set[str]]]:
    return {
        axis: {part: set(table["id"].to_numpy(str)[rows]) for part, rows in parts.items()}
        for axis, parts, table in (("cpg", split.cpg, store.cpgs), ("sample", split.sample, store.samples))
    }


def test_parts_are_disjoint_and_complete(store: Store, split: Split) -> None:
    for parts, total in ((split.cpg, len(store.cpgs)), (split.sample, len(store.samples))):
        assert set(parts) == set(PARTS)
        assert np.sort(np.concatenate(list(parts.values()))).tolist() == list(range(total))
        assert all((np.diff(rows) > 0).all() for rows in parts.values())


def test_shares_hold_for_cpgs_and_patients(store: Store, split: Split) -> None:
    patients = store.samples["patient"].to_numpy(str)
    assert len(patients) > SIZES["n_patients"]  # some give two samples
    for part, share in zip(PARTS, FRACTIONS, strict=True):
        assert len(split.cpg[part]) == round(share * SIZES["n_cpgs"])
        assert len(set(patients[split.sample[part]])) == round(share * SIZES["n_patients"])


def test_patients_are_not_divided(store: Store) -> None:
    patients = store.samples["patient"].to_numpy(str)
    for seed in range(10):
        sample = make_split(store, FRACTIONS, seed).sample
        sides = [set(patients[rows]) for rows in sample.values()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == SIZES["n_patients"]


def test_seed_decides(store: Store, split: Split) -> None:
    assert ids(make_split(store, FRACTIONS, 3), store) == ids(split, store)
    other = ids(make_split(store, FRACTIONS, 4), store)
    assert all(other[axis]["test"] != ids(split, store)[axis]["test"] for axis in ("cpg", "sample"))


def test_views_are_products_of_parts(split: Split) -> None:
    assert TEST_VIEWS == ("test_cpg-train_sample", "train_cpg-test_sample", "test_cpg-test_sample")
    cpgs, samples = split.view("test_cpg-train_sample")
    assert cpgs is split.cpg["test"] and samples is split.sample["train"]
    cpgs, samples = split.view("train_cpg-val_sample")
    assert cpgs is split.cpg["train"] and samples is split.sample["val"]


def test_saved_split_is_found_by_id_in_a_permuted_store(store: Store, split: Split, tmp_path: Path) -> None:
    save_split(split, store, tmp_path / "run" / "split.json")
    rng = np.random.default_rng(0)
    permuted = reorder(
        store, tmp_path / "permuted.h5", rng.permutation(len(store.cpgs)), rng.permutation(len(store.samples))
    )
    assert permuted.cpgs["id"].tolist() != store.cpgs["id"].tolist()
    again, elsewhere = (load_split(tmp_path / "run" / "split.json", each) for each in (store, permuted))
    assert ids(again, store) == ids(elsewhere, permuted) == ids(split, store)
    for part in PARTS:
        np.testing.assert_array_equal(again.cpg[part], split.cpg[part])
        np.testing.assert_array_equal(again.sample[part], split.sample[part])
    assert elsewhere.cpg["test"].tolist() != split.cpg["test"].tolist()


@pytest.mark.parametrize(
    ("axis", "kept"), [("cpg", (slice(0, 119), slice(None))), ("sample", (slice(None), slice(0, 39)))]
)
def test_id_that_the_store_lacks_is_named(
    store: Store, split: Split, tmp_path: Path, axis: str, kept: tuple[slice, slice]
) -> None:
    save_split(split, store, tmp_path / "split.json")
    rows, columns = np.arange(len(store.cpgs))[kept[0]], np.arange(len(store.samples))[kept[1]]
    smaller = reorder(store, tmp_path / "smaller.h5", rows, columns)
    table = store.cpgs if axis == "cpg" else store.samples
    gone = table["id"].iloc[(len(rows) if axis == "cpg" else len(columns)) :].tolist()
    with pytest.raises(
        InputError, match=r"split\.json: .* is not in .*smaller\.h5; name the training's store"
    ) as error:
        load_split(tmp_path / "split.json", smaller)
    assert any(f"{axis} {name!r} is not in" in str(error.value) for name in gone)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"cpg": {}}', json.dumps({"cpg": 1, "sample": 2})])
def test_what_is_not_a_split_is_named(store: Store, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match=r"bad\.json: not a saved split"):
        load_split(tmp_path / "bad.json", store)
    with pytest.raises(InputError, match=r"none\.json: no such split"):
        load_split(tmp_path / "none.json", store)


def test_only_eligible_cpgs_take_part(store: Store) -> None:
    near_C = within(store.distances, 2_000)
    assert 10 < near_C.sum() < len(near_C)
    split = make_split(store, FRACTIONS, 0, near_C)
    assert np.sort(np.concatenate(list(split.cpg.values()))).tolist() == np.flatnonzero(near_C).tolist()
    assert sum(map(len, split.sample.values())) == len(store.samples)


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (0.9, 0.1, 0), (1.1, -0.2, 0.1), (0.25,) * 4])
def test_wrong_fractions_are_named(store: Store, fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"fractions=\[.*\]: must be three positive shares that sum to 1"):
        make_split(store, fractions, 0)


def test_empty_part_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cohort\.h5: the val part has 1 of 120 CpGs, .*\(data\.fractions\)"):
        make_split(store, (0.89, 0.01, 0.1), 0)
    with pytest.raises(InputError, match=r"tiny\.h5: the train part has 1 of 3 CpGs"):
        make_split(tiny_store(tmp_path / "tiny.h5"), (1 / 3, 1 / 3, 1 / 3), 0)
    with pytest.raises(InputError, match=r"the test part has [01] of 43 samples"):
        make_split(store, (0.5, 0.48, 0.02), 0)


def test_whole_chromosomes_are_held_out(store: Store) -> None:
    chrom_C = store.cpgs["chrom"].to_numpy(str)
    tests = set()
    for seed in range(8):
        split = make_split(store, FRACTIONS, seed, cpg_split="chromosome")
        of_part = {part: set(chrom_C[split.cpg[part]]) for part in PARTS}
        assert sum(map(len, of_part.values())) == len(set.union(*of_part.values())) == 10
        assert np.sort(np.concatenate(list(split.cpg.values()))).tolist() == list(range(120))
        for part, share in zip(PARTS, FRACTIONS, strict=True):
            assert abs(len(split.cpg[part]) - share * 120) <= np.unique(chrom_C, return_counts=True)[1].max() / 2
            assert split.how["chromosomes"][part] == sorted(of_part[part])
        tests.add(tuple(split.how["chromosomes"]["test"]))
        samples = make_split(store, FRACTIONS, seed).sample  # the patients do not depend on how CpGs are divided
        assert all(np.array_equal(split.sample[part], samples[part]) for part in PARTS)
    assert len(tests) > 3


def test_each_part_gets_a_chromosome_even_if_all_are_too_large(store: Store, tmp_path: Path) -> None:
    thirds = np.array(["chr1"] * 50 + ["chr2"] * 30 + ["chr3"] * 30 + [""] * 10)
    changed = rewrite(store, tmp_path / "thirds.h5", cpgs=contents(store)["cpgs"].assign(chrom=thirds))
    split = make_split(changed, (0.8, 0.1, 0.1), 0, cpg_split="chromosome")
    assert {part: len(rows) for part, rows in split.cpg.items()} == {"test": 30, "val": 30, "train": 50}
    assert split.how["chromosomes"]["train"] == ["chr1"]
    assert split.how["cpgs"] == {"store": 120, "eligible": 110}  # ten could be anybody's neighbours
    assert len(np.concatenate(list(make_split(changed, (0.8, 0.1, 0.1), 0).cpg.values()))) == 120
    halves = np.where(thirds == "chr3", "chr2", thirds)
    two = rewrite(store, tmp_path / "two.h5", cpgs=contents(store)["cpgs"].assign(chrom=halves))
    with pytest.raises(
        InputError, match=r"two\.h5: the 110 CpGs .* on 2 known chromosomes, .* at least 3; take data\.c"
    ):
        make_split(two, (0.8, 0.1, 0.1), 0, cpg_split="chromosome")


def test_most_variable_cpgs_are_those_of_the_training_samples(store: Store, tmp_path: Path) -> None:
    full = make_split(store, FRACTIONS, 0)
    beta_CS = contents(store)["beta_CS"]
    expected_C = [np.nanvar(row_S.astype(float).round(4), ddof=1) for row_S in beta_CS[:, full.sample["train"]]]
    variance_C = beta_variance(store, np.arange(120), full.sample["train"])
    np.testing.assert_allclose(variance_C, expected_C, rtol=1e-9)
    assert np.isnan(beta_variance(store, np.arange(120), np.array([0]))).all()
    split = make_split(store, FRACTIONS, 0, most_variable=40)
    chosen_C = np.sort(np.concatenate(list(split.cpg.values())))
    assert chosen_C.tolist() == np.sort(np.argsort(-variance_C)[:40]).tolist()
    assert all(np.array_equal(split.sample[part], full.sample[part]) for part in PARTS)
    assert split.how["cpgs"] == {"store": 120, "eligible": 120, "most_variable": 40}
    # what validation and test samples look like changes nothing
    rng = np.random.default_rng(0)
    others = np.concatenate([full.sample["val"], full.sample["test"]])
    beta_CS[:, others] = rng.random((120, len(others)))
    again = make_split(rewrite(store, tmp_path / "other.h5", beta_CS=beta_CS), FRACTIONS, 0, most_variable=40)
    assert all(np.array_equal(split.cpg[part], again.cpg[part]) for part in PARTS)
    by_chromosome = make_split(store, FRACTIONS, 0, cpg_split="chromosome", most_variable=40)
    assert np.sort(np.concatenate(list(by_chromosome.cpg.values()))).tolist() == chosen_C.tolist()


def test_chunks_do_not_change_the_variance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = np.arange(0, 120, 3), np.arange(30)
    expected_C = beta_variance(store, rows, columns)
    monkeypatch.setattr(store_module, "ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(beta_variance(store, rows, columns), expected_C)


def test_wrong_choices_of_cpgs_are_named(store: Store) -> None:
    with pytest.raises(ValueError, match=r"cpg_split='genes': must be one of"):
        make_split(store, FRACTIONS, 0, cpg_split="genes")
    with pytest.raises(ValueError, match=r"most_variable=0: must be at least 1"):
        make_split(store, FRACTIONS, 0, most_variable=0)
    with pytest.raises(InputError, match=r"cohort\.h5: 120 CpGs have a variance .* 121 are asked for; lower data\."):
        make_split(store, FRACTIONS, 0, most_variable=121)


def test_how_cpgs_were_divided_is_saved_and_told(store: Store, split: Split, tmp_path: Path) -> None:
    by_chromosome = make_split(store, FRACTIONS, 0, cpg_split="chromosome", most_variable=60)
    save_split(by_chromosome, store, tmp_path / "split.json")
    loaded = load_split(tmp_path / "split.json", store)
    assert loaded.how == by_chromosome.how
    said = describe_split(loaded)
    assert said == describe_split(by_chromosome) and said.startswith(f"split: {len(loaded.cpg['train'])} train + ")
    assert "CpGs: 120 store, 120 eligible, 60 most variable, divided by chromosome, val: chr" in said
    assert describe_split(split).endswith("120 eligible, divided by random")
    assert describe_split(Split(split.cpg, split.sample)) + "; CpGs: 120 store, 120 eligible, divided by random" == (
        describe_split(split)
    )


class TestBlocks:
    def test_whole_blocks_are_held_out_and_training_keeps_its_distance(self, store: Store) -> None:
        chrom_C, position_C = store.cpgs["chrom"].to_numpy(str), store.cpgs["position"].to_numpy()
        block_bp, gap_bp = 20_000, 15_000
        tests, left_out = set(), 0
        for seed in range(5):
            split = make_split(store, FRACTIONS, seed, cpg_split="blocks", block_bp=block_bp, gap_bp=gap_bp)
            of_part = {
                part: {(chrom_C[c], position_C[c] // block_bp) for c in rows} for part, rows in split.cpg.items()
            }
            assert sum(map(len, of_part.values())) == len(set.union(*of_part.values()))
            held_out = of_part["val"] | of_part["test"]
            gone = set(range(120)) - set(np.concatenate(list(split.cpg.values())).tolist())
            for c in [*split.cpg["train"].tolist(), *gone]:  # base by base, as the definition says
                bounds = [(k * block_bp, (k + 1) * block_bp - 1) for chrom, k in held_out if chrom == chrom_C[c]]
                distances = [max(low - position_C[c], position_C[c] - high, 0) for low, high in bounds]
                assert (min(distances, default=gap_bp) < gap_bp) == (c in gone)
            blocks = split.how["blocks"]
            assert (blocks["bp"], blocks["gap_bp"], blocks["left_out"]) == (block_bp, gap_bp, len(gone))
            assert [blocks[part] for part in ("val", "test")] == [len(of_part[part]) for part in ("val", "test")]
            all_blocks = set(zip(chrom_C.tolist(), (position_C // block_bp).tolist(), strict=True))
            assert sum(blocks[part] for part in PARTS) == len(all_blocks)
            left_out += len(gone)
            tests.add(tuple(split.cpg["test"]))
            samples = make_split(store, FRACTIONS, seed).sample
            assert all(np.array_equal(split.sample[part], samples[part]) for part in PARTS)
            again = make_split(store, FRACTIONS, seed, cpg_split="blocks", block_bp=block_bp, gap_bp=gap_bp)
            assert all(np.array_equal(split.cpg[part], again.cpg[part]) for part in PARTS)
        assert len(tests) == 5 and left_out > 0

    def test_the_gap_ends_where_it_says(self, store: Store, tmp_path: Path) -> None:
        # blocks of 62, 12, 26 and 20 CpGs: those of 12 and of 20 come near a tenth of 120
        place_C = np.array([100] * 60 + [990, 991] + [1500] * 12 + [2008, 2009] + [2500] * 24 + [3500] * 20)
        cpgs = contents(store)["cpgs"].assign(chrom="chr1", position=place_C)
        changed = rewrite(store, tmp_path / "line.h5", cpgs=cpgs)
        for gap_bp, expected in ((0, set()), (9, set()), (10, {991, 2008}), (11, {990, 991, 2008, 2009})):
            split = make_split(changed, (0.8, 0.1, 0.1), 0, cpg_split="blocks", block_bp=1000, gap_bp=gap_bp)
            assert set(place_C[np.concatenate([split.cpg["test"], split.cpg["val"]])]) == {1500, 3500}
            assert set(place_C) - set(place_C[np.concatenate(list(split.cpg.values()))]) == expected
            assert split.how["blocks"]["left_out"] == len(expected)

    def test_what_cannot_be_divided_is_named(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"cpg_block_bp=0 must be at least 1, cpg_gap_bp=-1 at least 0"):
            make_split(store, FRACTIONS, 0, cpg_split="blocks", block_bp=0, gap_bp=-1)
        cpgs = contents(store)["cpgs"].assign(chrom="chr1", position=np.arange(120) - 5)
        changed = rewrite(store, tmp_path / "near.h5", cpgs=cpgs)
        with pytest.raises(
            InputError, match=r"near\.h5: the 115 CpGs .* lie on 2 blocks of 100 bp, .* at least 3; lower data\.cpg_bl"
        ):
            make_split(changed, FRACTIONS, 0, cpg_split="blocks", block_bp=100)
        with pytest.raises(
            InputError, match=r"near\.h5: \d+ of \d+ training CpGs are less than 500 bp .* lower data\.c"
        ):
            make_split(changed, FRACTIONS, 0, cpg_split="blocks", block_bp=10, gap_bp=500)

    def test_it_is_saved_and_told(self, store: Store, tmp_path: Path) -> None:
        split = make_split(store, FRACTIONS, 0, cpg_split="blocks", block_bp=100_000, gap_bp=30_000)
        save_split(split, store, tmp_path / "split.json")
        said = describe_split(load_split(tmp_path / "split.json", store))
        blocks = split.how["blocks"]
        assert said == describe_split(split)
        assert said.endswith(
            f"divided by blocks of 100,000 bp ({blocks['train']} train, {blocks['val']} val, {blocks['test']} test), "
            f"{blocks['left_out']} training CpGs within 30,000 bp of a val or test block left out"
        )
