"""Blocks: each cell once an epoch, in an order set by (seed, step, rank, ranks) alone, with the store's values."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from methyl_lightning.data.batches import GridBatch, PairBatch
from methyl_lightning.data.datamodule import (
    START,
    Block,
    GridDataModule,
    GridDataset,
    GridSampler,
    PairSampler,
    Progress,
)
from methyl_lightning.data.splits import save_split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.module import MethylationModule

CPGS, SAMPLES = np.arange(3, 103, 2), np.arange(1, 27)  # 50 × 26 cells
Key = tuple[tuple[int, ...], tuple[int, ...]]


def grid_sampler(
    done: int = 0, rank: int = 0, ranks: int = 1, seed: int = 0, block: Any = (9, 10), before: Progress = START
) -> GridSampler:
    return GridSampler(CPGS, SAMPLES, block, seed, rank, ranks, lambda: done, before)  # 6 × 3 blocks


def pair_sampler(done: int = 0, rank: int = 0, ranks: int = 1, seed: int = 0, before: Progress = START) -> PairSampler:
    return PairSampler(CPGS, SAMPLES, 64, seed, rank, ranks, lambda: done, before)


def keys(blocks: Any) -> list[Key]:
    return [(tuple(block.cpg_C.tolist()), tuple(block.sample_S.tolist())) for block in blocks]


def steps(make: Callable[..., Any], n: int, start: int = 0, **settings: Any) -> list[Key]:
    """List the blocks of ``n`` steps as the trainer would take them, epoch after epoch."""
    taken: list[Key] = []
    while len(taken) < n:
        taken += keys(make(done=start + len(taken), **settings))
    return taken[:n]


def visits(blocks: list[Key]) -> np.ndarray:
    counts = np.zeros((120, 43), dtype=int)
    for cpg_C, sample_S in blocks:
        np.add.at(counts, np.ix_(cpg_C, sample_S), 1)
    return counts


def on(datamodule: GridDataModule, step: int = 0, rank: int = 0, ranks: int = 1) -> GridDataModule:
    """Attach what the data module asks of a trainer."""
    progress = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(completed=step)))
    trainer: Any = SimpleNamespace(
        global_rank=rank, world_size=ranks, global_step=step, fit_loop=SimpleNamespace(epoch_loop=progress)
    )
    datamodule.trainer = trainer
    return datamodule


@pytest.mark.parametrize("block", [(9, 10), (50, 26), (7, 100), (49, 25)])
def test_every_cell_comes_once_an_epoch(block: tuple[int, int]) -> None:
    expected = np.zeros((120, 43), dtype=int)
    expected[np.ix_(CPGS, SAMPLES)] = 1
    n = len(grid_sampler(block=block))
    for epoch in range(3):
        blocks = keys(grid_sampler(done=epoch * n, block=block))
        assert len(blocks) == n
        assert (visits(blocks) == expected).all()
        assert max(len(cpg_C) for cpg_C, _ in blocks) <= block[0]
        assert max(len(sample_S) for _, sample_S in blocks) <= block[1]
        assert min(min(map(len, key)) for key in blocks) > 1


def test_epochs_cut_the_axes_anew() -> None:
    first, second = keys(grid_sampler()), keys(grid_sampler(done=18))
    assert {cpg_C for cpg_C, _ in first}.isdisjoint(cpg_C for cpg_C, _ in second)
    assert {sample_S for _, sample_S in first}.isdisjoint(sample_S for _, sample_S in second)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_blocks_and_drop_none(ranks: int) -> None:
    n = len(grid_sampler(ranks=ranks))
    assert n == 18 // ranks
    # step by step, all ranks together go through the order of one process, through the ends of epochs, too
    by_step = [steps(grid_sampler, 27, rank=rank, ranks=ranks) for rank in range(ranks)]
    shared = [key for step in zip(*by_step, strict=True) for key in step]
    assert shared == steps(grid_sampler, 27 * ranks)
    for epoch in range(27 * ranks // 18):
        assert visits(shared[18 * epoch : 18 * (epoch + 1)]).max() == 1


@pytest.mark.parametrize("make", [grid_sampler, pair_sampler])
@pytest.mark.parametrize(("had", "has"), [(2, 1), (1, 2), (3, 2)])
def test_another_number_of_ranks_goes_on_in_the_same_order(make: Callable[..., Any], had: int, has: int) -> None:
    before = Progress(5, 5 * had)
    for done in (5, 7):
        left = [list(make(done, rank, has, before=before)) for rank in range(has)]
        shared = [key for step in zip(*map(keys, left), strict=True) for key in step]
        first = 5 * had + (done - 5) * has
        assert shared and shared == steps(make, first + len(shared))[first:]
        assert [block.number for block in left[0]] == list(range(first, first + len(shared), has))


@pytest.mark.parametrize("make", [grid_sampler, pair_sampler])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (1, 2)])
def test_sampler_goes_on_at_any_step(make: Callable[..., Any], rank: int, ranks: int) -> None:
    n = 3 * len(make(ranks=ranks))
    whole = steps(make, n, rank=rank, ranks=ranks)
    for start in (1, 4, n // 3 - 1, n // 3, n // 3 + 1, n - 1):
        assert steps(make, n - start, start, rank=rank, ranks=ranks) == whole[start:]


@pytest.mark.parametrize("make", [grid_sampler, pair_sampler])
def test_order_depends_on_the_seed_alone(make: Callable[..., Any]) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first = steps(make, 30)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert steps(make, 30) == first
    assert not set(steps(make, 30, seed=1)) & set(first)


def test_pairs_are_drawn_from_the_view_and_differ_between_ranks() -> None:
    assert len(pair_sampler()) == 50 * 26 // 64
    blocks = [block for rank in (0, 1) for block in pair_sampler(rank=rank, ranks=2)]
    assert len(blocks) == 2 * (50 * 26 // 128)
    assert len(set(keys(blocks))) == len(blocks)
    for block in blocks:
        assert block.pairs and len(block.cpg_C) == len(block.sample_S) == 64
    assert set(np.concatenate([block.cpg_C for block in blocks])) == set(CPGS)
    assert set(np.concatenate([block.sample_S for block in blocks])) == set(SAMPLES)


def test_fewer_blocks_than_ranks_are_refused() -> None:
    assert len(grid_sampler(ranks=18)) == 1
    with pytest.raises(InputError, match=r"data\.block=\(50, 26\): gives 1 training blocks for 2 devices; lower it"):
        grid_sampler(ranks=2, block=(50, 26))


def read_directly(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        steps_CS = file["beta"][:]
        beta_CS = np.where(steps_CS == 65535, np.nan, steps_CS / 10_000)
        names = ("cpgs/sequence", "expression", "distances/indptr", "distances/gene", "distances/bp")
        return {"beta": beta_CS} | {name: file[name][:] for name in names}


def assert_features(batch: Any, raw: dict[str, np.ndarray], cpg_C: np.ndarray, sample_S: np.ndarray) -> None:
    np.testing.assert_array_equal(batch.cpgs.sequence_CL, raw["cpgs/sequence"][cpg_C])
    np.testing.assert_array_equal(batch[1], raw["expression"][sample_S])
    ends = [*batch.cpgs.offset_C[1:].tolist(), len(batch.cpgs.gene_N)]
    for c, low, high in zip(cpg_C, batch.cpgs.offset_C.tolist(), ends, strict=True):
        rows = slice(*raw["distances/indptr"][c : c + 2])
        assert batch.cpgs.gene_N[low:high].tolist() == raw["distances/gene"][rows].tolist()
        assert batch.cpgs.bp_N[low:high].tolist() == raw["distances/bp"][rows].tolist()


def test_blocks_hold_the_values_of_the_store(store: Store) -> None:
    raw = read_directly(store.path)
    cpg_C, sample_S = np.array([90, 4, 5, 17]), np.array([40, 0, 8])
    batch = GridDataset(store)[Block(cpg_C, sample_S)]
    assert isinstance(batch, GridBatch)
    assert_features(batch, raw, cpg_C, sample_S)
    assert batch.beta_CS.dtype == batch.expression_SG.dtype == torch.float32
    np.testing.assert_allclose(batch.beta_CS, raw["beta"][np.ix_(cpg_C, sample_S)], atol=1e-7)
    everything = GridDataset(store)[Block(np.arange(120), np.arange(43))]
    assert isinstance(everything, GridBatch)
    np.testing.assert_array_equal(everything.beta_CS.isnan(), np.isnan(raw["beta"]))
    assert 20 < everything.beta_CS.isnan().sum() < 400


def test_pairs_hold_the_values_of_the_store(store: Store) -> None:
    raw = read_directly(store.path)
    missing = np.argwhere(np.isnan(raw["beta"]))[0]
    cpg_N, sample_N = np.array([90, 4, 4, missing[0]]), np.array([40, 0, 8, missing[1]])
    batch = GridDataset(store)[Block(cpg_N, sample_N, True)]
    assert isinstance(batch, PairBatch)
    assert_features(batch, raw, cpg_N, sample_N)
    np.testing.assert_allclose(batch.beta_N, raw["beta"][cpg_N, sample_N], atol=1e-7)
    assert batch.beta_N.isnan().tolist()[3] is True


def flat(batches: Any) -> list[torch.Tensor]:
    return [tensor for batch in batches for tensor in (*batch.cpgs, *batch[1:3])]


def test_a_worker_reads_the_same_blocks(store_path: Path) -> None:
    one_process, worker = (
        flat(on(GridDataModule(str(store_path), block=30, num_workers=n), step=3).train_dataloader()) for n in (0, 1)
    )
    assert len(one_process) == (4 * 2 - 3) * 10
    for one, other in zip(one_process, worker, strict=True):
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def rows_of(expression_SG: torch.Tensor, store: Store) -> set[int]:
    """Find samples by their expression."""
    known = {row.tobytes(): s for s, row in enumerate(np.array(store.expression_SG))}
    return {known[row.tobytes()] for row in expression_SG.numpy()}


@pytest.mark.parametrize("sampling", ["grid", "pairs"])
def test_training_sees_train_cpgs_and_train_patients_only(store: Store, sampling: str) -> None:
    datamodule = GridDataModule(str(store.path), sampling=sampling, block=16, batch_pairs=200)
    train = datamodule.split
    known = {row.tobytes(): c for c, row in enumerate(np.array(store.sequence_CL))}
    assert len(known) == len(store.cpgs)
    samples: set[int] = set()
    cpgs: set[int] = set()
    for rank in (0, 1):
        for batch in on(datamodule, 0, rank, 2).train_dataloader():
            samples |= rows_of(batch[1], store)
            cpgs |= {known[row.tobytes()] for row in batch.cpgs.sequence_CL.numpy()}
    assert samples == set(train.sample["train"].tolist())
    assert cpgs == set(train.cpg["train"].tolist())
    patients = store.samples["patient"]
    held_out = np.concatenate([train.sample["val"], train.sample["test"]])
    assert not set(patients.iloc[sorted(samples)]) & set(patients.iloc[held_out])


def test_validation_subset_is_fixed_and_lies_in_the_validation_view(store: Store, datamodule: GridDataModule) -> None:
    assert len(datamodule.val_cpg_C) == 10 and set(datamodule.val_cpg_C) <= set(datamodule.split.cpg["val"])
    assert len(datamodule.val_sample_S) == 4 and set(datamodule.val_sample_S) <= set(datamodule.split.sample["val"])
    seen = np.concatenate([batch.beta_CS.numpy().ravel() for batch in datamodule.val_dataloader()])
    assert seen.tobytes() == store.beta(datamodule.val_cpg_C, datamodule.val_sample_S).tobytes()
    small = GridDataModule(str(store.path), block=4, val_cpgs=1000, val_samples=1000)
    blocks = [batch.beta_CS for batch in small.val_dataloader()]
    n_samples = len(small.split.sample["val"])
    assert len(blocks) == 3 * -(-n_samples // 4) and sum(block.numel() for block in blocks) == 12 * n_samples
    assert small.val_cpg_C.tolist() == small.split.cpg["val"].tolist()


def changed_expression(store_path: Path, path: Path, rows: np.ndarray) -> str:
    shutil.copy(store_path, path)
    with h5py.File(path, "r+") as file:
        expression_SG = file["expression"][:]
        expression_SG[rows] = 1_000.0
        file["expression"][:] = expression_SG
    return str(path)


def test_scaler_is_fitted_on_training_samples_only(
    store_path: Path, datamodule: GridDataModule, tmp_path: Path
) -> None:
    sample = datamodule.split.sample
    held_out = np.concatenate([sample["val"], sample["test"]])
    modules = []
    for name, rows in (("same", []), ("held_out", held_out), ("train", sample["train"][:1])):
        path = changed_expression(store_path, tmp_path / f"{name}.h5", np.array(rows, dtype=int))
        module = MethylationModule("LevyJurgenson", n_genes=40, window=100)
        module.fit_statistics(GridDataModule(path))
        modules.append(module.scaler)
    same, changed, other = modules
    assert torch.equal(same.minimum_G, changed.minimum_G) and torch.equal(same.range_G, changed.range_G)
    assert not torch.equal(same.range_G, other.range_G)
    train_SG = np.array(Store(store_path).expression_SG)[sample["train"]]
    np.testing.assert_array_equal(same.minimum_G, train_SG.min(axis=0))
    scaled_SG = same(torch.from_numpy(train_SG))
    varies = train_SG.max(axis=0) > train_SG.min(axis=0)
    np.testing.assert_allclose(scaled_SG.amin(0), np.full(40, 10), atol=1e-4)
    np.testing.assert_allclose(scaled_SG.amax(0), np.where(varies, 100, 10), atol=1e-4)


def test_training_view_is_the_training_part_of_the_grid(store_path: Path, datamodule: GridDataModule) -> None:
    beta_CS = read_directly(store_path)["beta"]
    cpg_C, sample_S = datamodule.split.cpg["train"], datamodule.split.sample["train"]
    view = datamodule.training_view()
    np.testing.assert_allclose(view.beta_CS, beta_CS[np.ix_(cpg_C, sample_S)], atol=1e-6)
    np.testing.assert_array_equal(view.expression_SG, datamodule.train_expression())
    np.testing.assert_array_equal(view.cpgs.sequence_CL, datamodule.store.sequence_CL[cpg_C])
    # of a large view whole CpG rows are taken, by the seed alone
    part, again = datamodule.training_view(1_000), datamodule.training_view(1_000)
    assert part.beta_CS.shape == (1_000 // len(sample_S), len(sample_S))
    assert len(part.cpgs.offset_C) == len(part.beta_CS)
    assert torch.equal(part.cpgs.key_C, again.cpgs.key_C)
    rows = [view.cpgs.key_C.tolist().index(key) for key in part.cpgs.key_C.tolist()]
    assert rows == sorted(rows) and rows != list(range(len(rows)))
    assert torch.equal(part.beta_CS.nan_to_num(-1), view.beta_CS[rows].nan_to_num(-1))


def test_saved_split_is_used_again(store: Store, datamodule: GridDataModule, tmp_path: Path) -> None:
    save_split(datamodule.split, store, tmp_path / "split.json")
    again = GridDataModule(str(store.path), split_file=str(tmp_path / "split.json"), seed=99)
    assert again.split.cpg["test"].tolist() == datamodule.split.cpg["test"].tolist()
    assert again.split.sample["train"].tolist() == datamodule.split.sample["train"].tolist()


def test_only_cpgs_with_a_gene_nearby(store: Store) -> None:
    split = GridDataModule(str(store.path), gene_within_bp=2_000).split
    kept = set(np.concatenate(list(split.cpg.values())).tolist())
    for c in range(len(store.cpgs)):
        bp = store.distances.bp_N[slice(*store.distances.indptr_C[c : c + 2])]
        assert (c in kept) == bool((np.abs(bp) <= 2_000).any())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"block": 1}, r"block=\[1, 1\]"),
        ({"block": [1, 8]}, r"block=\[1, 8\]"),
        ({"block": [8, 8, 8]}, r"block=\[8, 8, 8\]: must be one number, or two"),
        ({"batch_pairs": 0}, "batch_pairs=0"),
        ({"val_cpgs": 0}, "val_cpgs=0: must be at least 2"),
        ({"val_samples": -1}, "val_samples=-1: must be at least 2"),
        ({"sampling": "cells"}, r"sampling='cells': must be one of \('grid', 'pairs'\)"),
        ({"fractions": [1]}, r"fractions=\[1\]: must be three positive shares"),
        ({"split_file": "none.json"}, r"none\.json: no such split"),
    ],
)
def test_wrong_arguments_are_named(store_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GridDataModule(str(store_path), **settings)
