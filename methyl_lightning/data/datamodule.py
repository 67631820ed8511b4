"""From views to blocks of the grid: which comes when follows from the seed alone, however many ranks take them.

Legend: C CpGs, S samples, G genes, L bases, N pairs.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from methyl_lightning.data.batches import GridBatch, PairBatch, read_cpgs, read_expression, read_genes
from methyl_lightning.data.distances import within
from methyl_lightning.data.expression import check_dilution, dilute
from methyl_lightning.data.splits import BLOCK_BP, GAP_BP, load_split, make_split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.networks.contract import ClosedFormNetwork, TrainingView

SAMPLINGS = ("grid", "pairs")
BLOCK = (64, 256)  # CpGs and samples


class Block(NamedTuple):
    """Store rows of a block: C CpGs × S samples, or, when ``pairs``, the N cells (cpg_C[n], sample_S[n]).

    ``number`` is its place among all training blocks, those of all ranks and epochs.
    """

    cpg_C: np.ndarray
    sample_S: np.ndarray
    pairs: bool = False
    number: int = 0


class Progress(NamedTuple):
    """How far a training had come, in steps and in blocks of all ranks, when the number of ranks last changed."""

    steps: int = 0
    blocks: int = 0

    def next_blocks(self, step: int, ranks: int) -> int:
        """Count the blocks that all ranks have taken before a step."""
        return self.blocks + (step - self.steps) * ranks


START = Progress()


class TrainDilution(NamedTuple):
    """Dilution of training blocks: a level is drawn for each, all draws follow from the seed and the block's number."""

    method: str
    retention: Sequence[float]
    seed: int

    def __call__(self, expression_SG: np.ndarray, number: int, names_S: Sequence[str]) -> np.ndarray:
        """Dilute the expression [S, G] of a block; names are for errors."""
        rng = np.random.default_rng([self.seed, 4, number, 0])
        level = self.retention[int(rng.integers(len(self.retention)))]
        return dilute(expression_SG, self.method, level, rng, names_S)


class GridDataset(Dataset[GridBatch | PairBatch]):
    """Reads the block that it is asked for; the store is opened in the process that reads."""

    def __init__(self, store: Store, dilution: TrainDilution | None = None):
        self.store, self.dilution = store, dilution

    def __getitem__(self, block: Block) -> GridBatch | PairBatch:
        cpgs, expression = read_cpgs(self.store, block.cpg_C), read_expression(self.store, block.sample_S)
        if self.dilution is not None:
            names_S = self.store.samples["id"].to_numpy(str)[block.sample_S].tolist()
            expression = torch.from_numpy(self.dilution(expression.numpy(), block.number, names_S))
        if block.pairs:
            beta_N = self.store.beta_pairs(block.cpg_C, block.sample_S)
            return PairBatch(cpgs, expression, torch.from_numpy(beta_N), self._reads(block.cpg_C, block.sample_S))
        beta_CS = torch.from_numpy(self.store.beta(block.cpg_C, block.sample_S))
        return GridBatch(cpgs, expression, beta_CS, self._reads(block.cpg_C[:, None], block.sample_S))

    def _reads(self, cpg: np.ndarray, sample: np.ndarray) -> Tensor | None:
        return torch.from_numpy(self.store.reads(cpg, sample)) if self.store.has_reads else None


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into the fewest nearly equal chunks of at most ``size``."""
    return np.array_split(rows, max(1, -(-len(rows) // size)))


class GridSampler(Sampler[Block]):
    """Training blocks: each epoch cuts both axes anew and visits every block of the grid once.

    Parameters
    ----------
    cpg_C, sample_S
        Store rows of the training view.
    block
        Largest number of CpGs and of samples in a block.
    seed
        Seed of the order.
    rank, ranks
        This process and the number of processes; of the blocks, one epoch after the other, a rank takes every
        ``ranks``-th, so that the last few of an epoch, when they don't divide evenly, share a step with the next.
    done
        Returns the number of steps already taken; iteration goes on from there.
    before
        Where the number of ranks last changed.
    """

    def __init__(
        self,
        cpg_C: np.ndarray,
        sample_S: np.ndarray,
        block: tuple[int, int],
        seed: int,
        rank: int,
        ranks: int,
        done: Callable[[], int],
        before: Progress = START,
    ):
        self.cpg_C, self.sample_S, self.block, self.seed = cpg_C, sample_S, block, seed
        self.rank, self.ranks, self.done, self.before = rank, ranks, done, before
        self.n_blocks = len(chunks(cpg_C, block[0])) * len(chunks(sample_S, block[1]))
        if self.n_blocks < ranks:
            raise InputError(f"data.block={block}: gives {self.n_blocks} training blocks for {ranks} devices; lower it")

    def __len__(self) -> int:
        return self.n_blocks // self.ranks

    def epoch_blocks(self, epoch: int) -> list[Block]:
        """List all blocks of an epoch, for all ranks, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        # rows within a block are sorted: reads go forward through the file
        cpg_chunks = [np.sort(rows) for rows in chunks(rng.permutation(self.cpg_C), self.block[0])]
        sample_chunks = [np.sort(rows) for rows in chunks(rng.permutation(self.sample_S), self.block[1])]
        order = rng.permutation(self.n_blocks)
        return [Block(cpg_chunks[i // len(sample_chunks)], sample_chunks[i % len(sample_chunks)]) for i in order]

    def __iter__(self) -> Iterator[Block]:
        start, blocks, cut = self.done(), list[Block](), -1
        for step in range(start, start - start % len(self) + len(self)):
            number = self.before.next_blocks(step, self.ranks) + self.rank
            epoch, i = divmod(number, self.n_blocks)
            if epoch != cut:
                blocks, cut = self.epoch_blocks(epoch), epoch
            yield blocks[i]._replace(number=number)


class PairSampler(Sampler[Block]):
    """Upstream's batches: each is ``batch_pairs`` cells of the training view, drawn at random."""

    def __init__(
        self,
        cpg_C: np.ndarray,
        sample_S: np.ndarray,
        batch_pairs: int,
        seed: int,
        rank: int,
        ranks: int,
        done: Callable[[], int],
        before: Progress = START,
    ):
        self.cpg_C, self.sample_S, self.batch_pairs, self.seed = cpg_C, sample_S, batch_pairs, seed
        self.rank, self.ranks, self.done, self.before = rank, ranks, done, before

    def __len__(self) -> int:
        return max(1, len(self.cpg_C) * len(self.sample_S) // (self.batch_pairs * self.ranks))

    def __iter__(self) -> Iterator[Block]:
        start = self.done()
        for step in range(start, start - start % len(self) + len(self)):
            number = self.before.next_blocks(step, self.ranks) + self.rank
            rng = np.random.default_rng([self.seed, number, 0])
            yield Block(
                rng.choice(self.cpg_C, self.batch_pairs), rng.choice(self.sample_S, self.batch_pairs), True, number
            )


class GridDataModule(L.LightningDataModule):
    """The views of one store as blocks.

    Parameters
    ----------
    store
        Path of the store.
    split_file
        A saved split to use again (default: a new one).
    fractions
        Shares of train, val and test among CpGs and among patients.
    cpg_split, cpg_block_bp, cpg_gap_bp, most_variable
        How CpGs are divided, and how many of them, the most variable in training samples, take part: see
        :func:`methyl_lightning.data.splits.make_split`.
    split_seed
        Fixes split and validation subset (None: the seed does); runs of several seeds can so be tested on the same
        cells.
    sampling
        ``grid`` (blocks) or ``pairs`` (random cells, as upstream).
    block
        Largest number of CpGs and of samples in a block, or one number for both. The order of blocks, and so the
        course of training, follows from it.
    batch_pairs
        Cells a batch when ``sampling='pairs'``.
    val_cpgs, val_samples
        Size of the fixed part of the validation view that is looked at during training.
    gene_within_bp
        Use only CpGs with a gene at most so far away (None: all).
    train_retention
        Train on diluted expression: retention level, or several of which one is drawn for each block (None: full
        expression). Validation and the scaler see full expression all the same.
    train_dilution
        Method of :func:`methyl_lightning.data.expression.dilute`.
    num_workers
        Processes that read ahead; 0 reads in the training process.
    seed
        Fixes the order of blocks, and what ``split_seed`` doesn't.
    """

    def __init__(
        self,
        store: str,
        *,
        split_file: str | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int | None = None,
        cpg_split: str = "random",
        cpg_block_bp: int = BLOCK_BP,
        cpg_gap_bp: int = GAP_BP,
        most_variable: int | None = None,
        sampling: str = "grid",
        block: int | Sequence[int] = BLOCK,
        batch_pairs: int = 512,
        val_cpgs: int = 512,
        val_samples: int = 128,
        gene_within_bp: int | None = None,
        train_retention: float | Sequence[float] | None = None,
        train_dilution: str = "mask",
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        block = (block, block) if isinstance(block, int) else block
        if isinstance(block, str) or len(block) != 2:
            given = block if isinstance(block, str) else list(block)
            raise ValueError(f"block={given}: must be one number, or two: CpGs and samples")
        block = (block[0], block[1])
        if min(*block, batch_pairs) < 2:
            raise ValueError(
                f"block={list(block)}, batch_pairs={batch_pairs}: batch normalisation needs at least 2 rows"
            )
        for name, size in (("val_cpgs", val_cpgs), ("val_samples", val_samples)):
            if size < 2:
                raise ValueError(f"{name}={size}: must be at least 2, a correlation needs two rows")
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling={sampling!r}: must be one of {SAMPLINGS}")
        levels = [] if train_retention is None else np.atleast_1d(train_retention).tolist()
        for level in levels:
            check_dilution(train_dilution, level)
        self.train_retention, self.train_dilution = levels, train_dilution
        self.store, self._before = Store(store), START
        self.sampling, self.block, self.batch_pairs, self.num_workers = sampling, block, batch_pairs, num_workers
        self.seed, self.split_seed = seed, seed if split_seed is None else split_seed
        if self.split_seed < 0:
            raise ValueError(f"split_seed={split_seed}: must be at least 0, or null for that of the run")
        if split_file is None:
            eligible = None if gene_within_bp is None else within(self.store.distances, gene_within_bp)
            choices = (cpg_split, most_variable, cpg_block_bp, cpg_gap_bp)
            self.split = make_split(self.store, fractions, self.split_seed, eligible, *choices)
        else:
            self.split = load_split(Path(split_file), self.store)
        rng = np.random.default_rng([self.split_seed, 2])
        self.val_cpg_C, self.val_sample_S = (
            np.sort(rng.permutation(rows)[:size])
            for rows, size in ((self.split.cpg["val"], val_cpgs), (self.split.sample["val"], val_samples))
        )

    def train_expression(self) -> Tensor:
        """Expression [S, G] of the training samples: all that scalers may see."""
        return read_expression(self.store, self.split.sample["train"])

    def train_distances(self) -> tuple[Tensor, Tensor]:
        """Return gene index and signed base pairs of every (CpG, gene) entry of the training CpGs."""
        distances = self.store.distances.rows(self.split.cpg["train"])
        return torch.from_numpy(distances.gene_N).long(), torch.from_numpy(distances.bp_N)

    def training_view(self, max_cells: int = ClosedFormNetwork.most_cells) -> TrainingView:
        """Read the training view, expression in the units of the store: all that closed-form networks may see.

        Parameters
        ----------
        max_cells
            Where the view has more cells, whole CpG rows are drawn at random by the seed (4 bytes a cell are held).
        """
        cpg_C, sample_S = self.split.view("train_cpg-train_sample")
        n_cpgs = max(1, max_cells // len(sample_S))
        cpg_C = np.sort(np.random.default_rng([self.seed, 3]).permutation(cpg_C)[:n_cpgs])
        beta_CS = torch.from_numpy(self.store.beta(cpg_C, sample_S))
        expression_SG = read_expression(self.store, sample_S)
        return TrainingView(read_cpgs(self.store, cpg_C), expression_SG, beta_CS, read_genes(self.store))

    def provenance(self) -> dict[str, Any]:
        """Tell what a checkpoint must say of its data: plain JSON values."""
        attributes = self.store.attributes
        return {
            "assembly": attributes["assembly"],
            "units": attributes["units"],
            "window": self.store.window,
            "cohort": sorted(set(self.store.samples["cohort"])),
            "source": attributes["provenance"],
            "sizes": {
                axis: {part: len(rows) for part, rows in parts.items()}
                for axis, parts in (("cpg", self.split.cpg), ("sample", self.split.sample))
            },
            "split": dict(self.split.how),
        }

    def state_dict(self) -> dict[str, int]:
        """Keep how far the order of blocks has come, and with how many ranks."""
        trainer = self.trainer
        assert trainer is not None
        steps = trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        blocks = self._before.next_blocks(steps, trainer.world_size)
        return {"steps": steps, "blocks": blocks, "ranks": trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on after the last block, whatever the number of ranks, and say so where it has changed."""
        self._before = Progress(state_dict["steps"], state_dict["blocks"])
        had, trainer = state_dict["ranks"], self.trainer
        if trainer is not None and trainer.world_size != had and trainer.is_global_zero:
            has = trainer.world_size
            print(
                f"goes on with {has} process{'es' * (has > 1)} instead of {had}: blocks come in the same order, "
                f"{has} instead of {had} a step",
                file=sys.stderr,
            )

    def train_dataloader(self) -> DataLoader:
        """Blocks (or pairs) of the training view, going on where the trainer stands (accumulated gradients or not)."""
        trainer = self.trainer
        assert trainer is not None
        sampler_class = GridSampler if self.sampling == "grid" else PairSampler
        sampler = sampler_class(
            *self.split.view("train_cpg-train_sample"),
            self.block if self.sampling == "grid" else self.batch_pairs,  # type: ignore[arg-type]
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            lambda: trainer.fit_loop.epoch_loop.batch_progress.total.completed,
            self._before,
        )
        dilution = None
        if self.train_retention:
            dilution = TrainDilution(self.train_dilution, self.train_retention, self.seed)
        return DataLoader(
            GridDataset(self.store, dilution),
            sampler=sampler,
            batch_size=None,
            num_workers=self.num_workers,
            # forked children would share torch's thread pool with us; a fresh interpreter opens its own store
            multiprocessing_context="spawn" if self.num_workers else None,
            persistent_workers=self.num_workers > 0,
        )

    def val_dataloader(self) -> DataLoader:
        """Blocks of the fixed validation subset, the same on every rank."""
        blocks = [
            Block(cpg_C, sample_S)
            for cpg_C in chunks(self.val_cpg_C, self.block[0])
            for sample_S in chunks(self.val_sample_S, self.block[1])
        ]
        return DataLoader(GridDataset(self.store), sampler=blocks, batch_size=None)
