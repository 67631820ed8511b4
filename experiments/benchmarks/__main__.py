"""Speed of training, prediction and reading against the pairwise form and the machine: ``make benchmark``.

All figures of a row come from runs in alternation, and the median is taken: what else the machine does then falls on
all of them alike. Ends with one JSON line; tables go to results.md beside this file.

Legend: C CpGs, S samples, G genes, H hidden units, K units of the first connected layer.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from experiments.benchmarks.dense_pairs import DensePairs
from experiments.benchmarks.full_store import write_random_store
from experiments.benchmarks.timing import alternate
from methyl_lightning.data.batches import GridBatch, PairBatch
from methyl_lightning.data.datamodule import Block, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.networks import LevyJurgenson
from methyl_lightning.networks.levy_jurgenson import distance_weights

FOLDER = Path(__file__).parent
BLOCK, PAIRS, PREDICTED_CPGS, GEMM = 256, 512, 512, 2048
SCALING_GENES, SCALING = 4_499, (1, 2, 4)
K = LevyJurgenson.CONNECTED[0]


def training_step(
    module: MethylationModule, optimiser: torch.optim.Optimizer, batch: GridBatch | PairBatch, bf16: bool
) -> None:
    """Run forward, backward and Adam."""
    beta = batch.beta_N if isinstance(batch, PairBatch) else batch.beta_CS
    module.train()
    optimiser.zero_grad()
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        loss = (module(batch) - beta).abs().mean()
    loss.backward()
    optimiser.step()


def build(n_genes: int, window: int) -> tuple[MethylationModule, torch.optim.Optimizer]:
    """Build the published network and its optimiser."""
    torch.manual_seed(0)
    module = MethylationModule("LevyJurgenson", n_genes, window, expression_scaling="none")
    return module, module.configure_optimizers()


class DenseForm:
    """The published form on a batch of pairs, with the dense distances that it reads."""

    def __init__(self, batch: PairBatch, n_genes: int, window: int):
        self.network, self.beta_N = DensePairs(n_genes, window), batch.beta_N.nan_to_num()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        n_pairs, features = len(batch.beta_N), batch.cpgs
        counts_N = torch.diff(features.offset_C, append=torch.tensor([len(features.gene_N)]))
        row = torch.repeat_interleave(torch.arange(n_pairs), counts_N)
        distance_NG = torch.zeros(n_pairs, n_genes)
        distance_NG[row, features.gene_N] = distance_weights(features.bp_N, "buckets", torch.float32)
        self.inputs = features.sequence_CL, distance_NG, batch.expression_NG

    def train(self) -> None:
        """Run forward, backward and Adam."""
        self.network.train()
        self.optimiser.zero_grad()
        (self.network(*self.inputs) - self.beta_N).abs().mean().backward()
        self.optimiser.step()

    def predict(self) -> None:
        """Predict the batch."""
        self.network.eval()
        with torch.inference_mode():
            self.network(*self.inputs)


def flops(n_genes: int, n_cpgs: int, n_samples: int, training: bool) -> float:
    """Count multiplications and additions of the products over genes (convolutions and heads are left out)."""
    wide = 2 * n_genes * (n_genes // 6)
    grid = 2 * n_genes * K * n_cpgs * n_samples
    # training: two layers forward, two weight gradients and one input gradient for samples; CpGs have one wide layer
    return (
        5 * wide * n_samples + 3 * wide * n_cpgs + 2 * grid if training else 2 * wide * n_samples + wide * n_cpgs + grid
    )


def predict_pairs(module: MethylationModule, batch: PairBatch) -> np.ndarray:
    """Predict pair by pair."""
    module.eval()
    with torch.inference_mode():
        return module(batch).numpy()


def bf16_pays(size: int = 512) -> bool:
    """Tell whether the processor multiplies bfloat16 as fast as float32; one that cannot takes minutes for a step."""
    squares = {str(kind): torch.rand(size, size).to(kind) for kind in (torch.float32, torch.bfloat16)}
    took = alternate({name: lambda square=square: square @ square for name, square in squares.items()}, 3)
    return took["torch.bfloat16"] < 2 * took["torch.float32"]


def speed(store: Store, rounds: int) -> dict[str, float]:
    """Measure training, prediction and reading at the size of a store."""
    n_genes = len(store.genes)
    module, optimiser = build(n_genes, store.window)
    dataset, rng = GridDataset(store), np.random.default_rng(0)

    def block(n_cpgs: int, n_samples: int, pairs: bool = False) -> Block:
        rows = rng.integers(len(store.cpgs), size=n_cpgs), rng.integers(len(store.samples), size=n_samples)
        return Block(*rows if pairs else map(np.sort, rows), pairs)

    grid, pairs = dataset[block(BLOCK, BLOCK)], dataset[block(PAIRS, PAIRS, True)]
    whole = Block(np.sort(rng.integers(len(store.cpgs), size=PREDICTED_CPGS)), np.arange(len(store.samples)))
    whole_shape = len(whole.cpg_C), len(whole.sample_S)
    square = torch.rand(GEMM, GEMM)
    published = DenseForm(pairs, n_genes, store.window)
    tasks = {
        "train_dense": published.train,
        "predict_dense": published.predict,
        "train_pairs": lambda: training_step(module, optimiser, pairs, False),
        "train_grid": lambda: training_step(module, optimiser, grid, False),
        "predict_pairs": lambda: predict_pairs(module, pairs),
        "predict_grid": lambda: predict_grid(module, store, whole.cpg_C, whole.sample_S),
        "gemm": lambda: [square @ square for _ in range(4)],
        "read": lambda: dataset[block(BLOCK, BLOCK)],
    }
    if bf16_pays():
        tasks["train_bf16"] = lambda: training_step(module, optimiser, grid, True)
    took = alternate(tasks, rounds)
    gemm = 4 * 2 * GEMM**3 / took["gemm"]
    cells, predicted = BLOCK * BLOCK, whole_shape[0] * whole_shape[1]

    few = block(32, 16)
    cpg_N, sample_N = np.repeat(few.cpg_C, 16), np.tile(few.sample_S, 32)
    one_by_one = predict_pairs(module, dataset[Block(cpg_N, sample_N, True)]).reshape(32, 16)
    difference = np.abs(predict_grid(module, store, few.cpg_C, few.sample_S) - one_by_one).max()
    return {
        "pairs_per_s": cells / took["train_grid"],
        "pairs_per_s_pairwise": PAIRS / took["train_pairs"],
        "train_speedup": cells / took["train_grid"] * took["train_pairs"] / PAIRS,
        "predict_pairs_per_s": predicted / took["predict_grid"],
        "predict_pairs_per_s_pairwise": PAIRS / took["predict_pairs"],
        "predict_speedup": predicted / took["predict_grid"] * took["predict_pairs"] / PAIRS,
        "pairs_per_s_dense": PAIRS / took["train_dense"],
        "train_speedup_dense": cells / took["train_grid"] * took["train_dense"] / PAIRS,
        "predict_pairs_per_s_dense": PAIRS / took["predict_dense"],
        "predict_speedup_dense": predicted / took["predict_grid"] * took["predict_dense"] / PAIRS,
        "gemm_gflops": gemm / 1e9,
        "train_gemm_share": flops(n_genes, BLOCK, BLOCK, True) / took["train_grid"] / gemm,
        "predict_gemm_share": flops(n_genes, *whole_shape, False) / took["predict_grid"] / gemm,
        **({"bf16_speedup": took["train_grid"] / took["train_bf16"]} if "train_bf16" in took else {}),
        "loader_ratio": took["train_grid"] / took["read"],
        "max_relative_difference": float(difference / np.abs(one_by_one).max()),
        "train_flops_limit": cells * flops(n_genes, 1, 1, True) / flops(n_genes, BLOCK, BLOCK, True),
        "predict_flops_limit": predicted * flops(n_genes, 1, 1, False) / flops(n_genes, *whole_shape, False),
    }


def scaling(rounds: int) -> list[tuple[str, str, list[float], float]]:
    """Time one axis at a time: name, sizes, seconds, slope of log seconds over log size."""
    rows = []
    with TemporaryDirectory() as folder:

        def series(name: str, sizes: list[int], task_of: Callable[[int], Callable[[], object]]) -> None:
            took = alternate({str(size): task_of(size) for size in sizes}, rounds)
            values = list(took.values())
            slope = float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
            rows.append((name, ", ".join(f"{size:,}" for size in sizes), values, slope))

        def opened(n_genes: int) -> tuple[Store, MethylationModule, torch.optim.Optimizer]:
            path = Path(folder) / f"{n_genes}.h5"
            write_random_store(path, 1024, 512, n_genes)
            store = Store(path)
            return store, *build(n_genes, store.window)

        def predicting(store: Store, module: MethylationModule, n_cpgs: int, n_samples: int) -> Callable[[], object]:
            return lambda: predict_grid(module, store, np.arange(n_cpgs), np.arange(n_samples))

        store, module, optimiser = opened(SCALING_GENES)
        series(
            "prediction, CpGs (× 128 samples)", [128 * f for f in SCALING], lambda n: predicting(store, module, n, 128)
        )
        series(
            "prediction, samples (× 128 CpGs)", [128 * f for f in SCALING], lambda n: predicting(store, module, 128, n)
        )

        def stepping(size: int) -> Callable[[], object]:
            batch = GridDataset(store)[Block(np.arange(size), np.arange(size))]
            return lambda: training_step(module, optimiser, batch, False)

        series("training step, block n × n", [64 * f for f in SCALING], stepping)

        def with_genes(n_genes: int) -> Callable[[], object]:
            store, module, _ = opened(n_genes)
            return predicting(store, module, 128, 128)

        series("prediction, genes (128 × 128)", [SCALING_GENES // 2 * f for f in SCALING], with_genes)
    return rows


def markdown(result: dict[str, float], rows: list[tuple[str, str, list[float], float]]) -> str:
    """Lay both tables out."""
    goals = {
        "train_speedup": ("training, grid 256 × 256 against pairs 512", "{:.0f} ×", "≥ 300 ×"),
        "predict_speedup": ("prediction, grid against pairs", "{:.0f} ×", "≥ 500 ×"),
        "train_speedup_dense": ("training, grid against the published form (dense pairs, 512)", "{:.0f} ×", ""),
        "predict_speedup_dense": ("prediction, grid against the published form", "{:.0f} ×", ""),
        "train_gemm_share": ("training, share of the GEMM rate", "{:.0%}", "≥ 50 %"),
        "predict_gemm_share": ("prediction, share of the GEMM rate", "{:.0%}", "≥ 50 %"),
        "bf16_speedup": ("training, bf16 against float32", "{:.2f} ×", "≥ 1.5 ×"),
        "loader_ratio": ("reading a block against a training step", "{:.0f} × faster", "≥ 10 ×"),
        "peak_rss_gb": ("peak memory", "{:.1f} GB", "≤ 6 GB"),
        "start_seconds": ("start to first step", "{:.0f} s", "≤ 20 s"),
        "max_relative_difference": ("grid against pairs, float32", "{:.1e}", "≤ 1e-5"),
        "pairs_per_s": ("training, grid", "{:,.0f} pairs/s", ""),
        "pairs_per_s_pairwise": ("training, pairs", "{:,.0f} pairs/s", ""),
        "predict_pairs_per_s": ("prediction, grid", "{:,.0f} pairs/s", ""),
        "predict_pairs_per_s_pairwise": ("prediction, pairs", "{:,.0f} pairs/s", ""),
        "pairs_per_s_dense": ("training, published form", "{:,.0f} pairs/s", ""),
        "predict_pairs_per_s_dense": ("prediction, published form", "{:,.0f} pairs/s", ""),
        "gemm_gflops": ("GEMM rate, 2,048³ float32", "{:.0f} GFLOP/s", ""),
        "train_flops_limit": ("training, what arithmetic allows at equal efficiency", "{:.0f} ×", ""),
        "predict_flops_limit": ("prediction, what arithmetic allows at equal efficiency", "{:.0f} ×", ""),
    }
    lines = ["| what | measured | goal |", "|---|---|---|"]
    lines += [
        f"| {what} | {form.format(result[name])} | {goal} |"
        for name, (what, form, goal) in goals.items()
        if name in result
    ]
    lines += ["", "| cost of | sizes | seconds | log-log slope |", "|---|---|---|---|"]
    for name, sizes, values, slope in rows:
        lines.append(f"| {name} | {sizes} | {', '.join(f'{value:.2f}' for value in values)} | {slope:.2f} |")
    return "\n".join(lines) + "\n"


def start(path: Path) -> dict[str, float]:
    """Start a training in a process of its own; see start.py."""
    command = [sys.executable, "-m", "experiments.benchmarks.start", str(path), str(BLOCK), str(time.time())]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        sys.exit(child.stderr)
    return json.loads(child.stdout.splitlines()[-1])


def main() -> None:
    """Write a store, start a training on it, measure, print both tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpgs", type=int, default=485_512)
    parser.add_argument("--samples", type=int, default=1_350)
    parser.add_argument("--genes", type=int, default=17_996)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "full.h5"
        write_random_store(path, arguments.cpgs, arguments.samples, arguments.genes)
        result = start(path) | speed(Store(path), arguments.rounds)
    result["threads"] = torch.get_num_threads()
    result |= {name: getattr(arguments, name) for name in ("cpgs", "samples", "genes", "rounds")}
    tables = markdown(result, scaling(arguments.rounds))
    (FOLDER / "results.md").write_text(tables)
    print(tables)
    print(json.dumps({name: round(value, 9) for name, value in result.items()}))


if __name__ == "__main__":
    main()
