"""What matching by depth costs, in seconds of the processor and memory, on random numbers.

usage: python -m experiments.benchmarks.depth fit [GENES SAMPLES]
       python -m experiments.benchmarks.depth predict RUN/best.ckpt [CELLS CPGS]

Legend: S samples, G genes, Q components, N cells.
"""

import resource
import sys
import time
from collections.abc import Callable

import anndata
import numpy as np
import torch
from scipy import sparse

from methyl_lightning.data.store import Distances
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.model.depth import LEVELS_A_DECADE, ExpressionEstimator
from methyl_lightning.model.record import COMPONENT_SAMPLES, N_COMPONENTS, TrainingRecord
from methyl_lightning.predict import predict

MOLECULES, SPREAD = 3_000, 0.5  # of a cell: median, and deviation of its logarithm
DRAWN = 5_000  # cells that are drawn
LADDER = (100, 100_000)  # molecules between which a depth for every cell of a study lies


def processor(task: Callable[[], object]) -> float:
    """Measure seconds of the processor."""
    start = time.process_time()
    task()
    return time.process_time() - start


def memory() -> float:
    """Return the largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def random_record(n_genes: int, n_samples: int) -> TrainingRecord:
    """Make what a checkpoint keeps of expression, at random: genes of very different levels, a few components."""
    rng = np.random.default_rng(0)
    n_components = min(N_COMPONENTS, n_samples // 3)
    mean_G = rng.gamma(2, 3, n_genes).clip(0, 16).astype(np.float32)
    empty = np.zeros((0, 0), dtype=np.float32)
    return TrainingRecord(
        *(None,) * 2,  # type: ignore[arg-type]  # neither CpGs nor the names of genes are looked at
        empty,
        empty,
        Distances(*(np.zeros(1, dtype=np.int64),) * 3),
        mean_G,
        np.exp2(mean_G) - 1,
        np.tile(mean_G, (10, 1)),
        (0.1 * rng.normal(size=(n_components, n_genes))).astype(np.float16),
        rng.normal(size=(n_samples, n_components)).astype(np.float32),
        np.full(n_genes, 0.5, dtype=np.float32),
    )


def fit(n_genes: int = 20_000, n_samples: int = COMPONENT_SAMPLES) -> None:
    """Print what one depth costs, and all depths of a study."""
    estimator = ExpressionEstimator(random_record(n_genes, n_samples), "log2(norm+1)")
    before = memory()
    levels = [round(LEVELS_A_DECADE * np.log10(depth)) for depth in LADDER]
    sizes = f"{n_genes:,} genes × {n_samples:,} samples"
    first = processor(lambda: estimator.fit(levels[0]))
    print(f"{sizes}, {before:.1f} GB before: the first depth {first:.1f} s, peak {memory():.1f} GB", flush=True)
    others = processor(lambda: [estimator.fit(level) for level in range(levels[0] - 1, levels[1] + 2)])
    n_levels = levels[1] - levels[0] + 3
    print(
        f"all {n_levels} from {LADDER[0]:,} to {LADDER[1]:,} molecules {first + others:.1f} s, peak {memory():.1f} GB"
    )


def predict_cells(checkpoint: str, n_cells: int = 100_000, n_cpgs: int = 1_000) -> None:
    """Print what predicting costs by way of matching; cells beyond 5,000 repeat those, in the order of a study's."""
    record = load_checkpoint(checkpoint).training_record()
    assert record is not None
    rng = np.random.default_rng(0)
    depth_N = np.exp(rng.normal(np.log(MOLECULES), SPREAD, min(n_cells, DRAWN))).astype(int)
    share_G = record.linear_mean_G.clip(0).astype(np.float64)
    share_G /= share_G.sum()
    rows = [sparse.csr_matrix(rng.multinomial(depth, share_G).astype(np.float32)) for depth in depth_N]
    cells = anndata.AnnData(sparse.vstack(rows).tocsr()[np.arange(n_cells) % len(rows)])
    cells.var_names = record.genes["id"].tolist()
    cpgs = record.cpgs["id"].tolist()[:n_cpgs]
    taken = {}
    for match in ("none", "library", "quantile", "depth"):
        settings = {"match": match, "units": "counts", "intervals": False}
        taken[match] = processor(lambda: predict(checkpoint, cells, cpgs, **settings))  # noqa: B023
        print(f"match={match}: {n_cells:,} cells × {len(cpgs):,} CpGs {taken[match]:.1f} s", flush=True)
    ratios = ", ".join(
        f"{taken['depth'] / taken[match]:.2f} times that by {match}" for match in taken if match != "depth"
    )
    print(f"depth takes {ratios}; peak {memory():.1f} GB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    command, *sizes = sys.argv[1:]
    if command == "fit":
        fit(*map(int, sizes))
    else:
        predict_cells(sizes[0], *map(int, sizes[1:]))
