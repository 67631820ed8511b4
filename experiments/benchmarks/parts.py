"""What each arrangement of the work gains, beside its plain form: ``python -m experiments.benchmarks.parts``.

Legend: C CpGs, S samples, L bases, G genes, K units of the first connected layer.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.benchmarks.__main__ import BLOCK, K, build, training_step
from experiments.benchmarks.full_store import WINDOW, write_random_store
from experiments.benchmarks.timing import alternate
from methyl_lightning.datamodule import Block, GridDataset
from methyl_lightning.memory import keep_freed_memory
from methyl_lightning.networks.products import WideLinear, grid_product
from methyl_lightning.networks.sequence import ALPHABET_SIZE, POOL, SequenceConvolution
from methyl_lightning.store import Store

GENES, ROUNDS = 17_996, 7
Task = Callable[[], object]


class PlainConvolution(nn.Sequential):
    """One-hot → convolution → batch normalisation → ELU → pool, a layer at a time."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(ALPHABET_SIZE, 64, 11, padding=5), nn.BatchNorm1d(64), nn.ELU(), nn.AvgPool1d(POOL), nn.Flatten()
        )

    def forward(self, sequence_CL: Tensor) -> Tensor:
        """Return [C, 64 · (L // 10)]."""
        return super().forward(functional.one_hot(sequence_CL.long(), ALPHABET_SIZE).float().transpose(1, 2))


def there_and_back(forward: Callable[[], Tensor], bf16: bool = False) -> Task:
    """Forward, then backward from a gradient of ones."""

    def task() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = forward()
        output.sum().backward()

    return task


def one_cpg_at_a_time(expression_SG: Tensor, attention_CG: Tensor, weight_KG: Tensor) -> Tensor:
    """Multiply with a tile as wide as all genes, by ``torch.matmul``."""
    return torch.stack([(attention_G * weight_KG) @ expression_SG.T for attention_G in attention_CG])


def parts() -> dict[str, tuple[Task, Task]]:
    """Name each part, with its plain form and its present one."""
    sequence_CL = torch.randint(0, 4, (BLOCK, WINDOW), dtype=torch.uint8)
    plain, tiled = PlainConvolution(), SequenceConvolution(WINDOW)
    rows_SG = torch.rand(BLOCK, GENES)
    linear, wide = nn.Linear(GENES, GENES // 6), WideLinear(GENES, GENES // 6)
    attention_CG, weight_KG = (
        torch.rand(BLOCK // 4, GENES, requires_grad=True),
        torch.rand(K, GENES, requires_grad=True),
    )
    factors = attention_CG, weight_KG
    return {
        f"filters of {BLOCK} sequences": (
            there_and_back(lambda: plain(sequence_CL)),
            there_and_back(lambda: tiled(sequence_CL)),
        ),
        f"wide layer, {BLOCK} rows": (there_and_back(lambda: linear(rows_SG)), there_and_back(lambda: wide(rows_SG))),
        f"product over genes, {BLOCK // 4} × {BLOCK}": (
            there_and_back(lambda: one_cpg_at_a_time(rows_SG, *factors)),
            there_and_back(lambda: grid_product(rows_SG, *factors)),
        ),
        f"the same in bf16, {BLOCK // 4} × {BLOCK}": (
            there_and_back(lambda: one_cpg_at_a_time(rows_SG, *factors), True),
            there_and_back(lambda: grid_product(rows_SG, *factors), True),
        ),
    }


def steps() -> dict[str, tuple[float, float]]:
    """Time training steps before and after memory is kept, which cannot be undone: not in alternation."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_random_store(path, BLOCK, BLOCK, GENES)
        store = Store(path)
        batch = GridDataset(store)[Block(np.arange(BLOCK), np.arange(BLOCK))]
        module, optimiser = build(GENES, store.window)
        tasks: dict[str, Task] = {
            f"training step, {name}, memory kept": lambda bf16=bf16: training_step(module, optimiser, batch, bf16)
            for name, bf16 in (("float32", False), ("bf16", True))
        }
        before = alternate(tasks, ROUNDS)
        keep_freed_memory()
        after = alternate(tasks, ROUNDS)
    return {name: (before[name], after[name]) for name in tasks}


def main() -> None:
    """Print a table."""
    torch.manual_seed(0)
    rows = steps()  # first: from here on memory is kept
    for name, forms in parts().items():
        took = alternate(dict(zip(("plain", "now"), forms, strict=True)), ROUNDS)
        rows[name] = took["plain"], took["now"]
    print("| part | plain, s | now, s | gain |\n|---|---|---|---|")
    for name, (plain, now) in rows.items():
        print(f"| {name} | {plain:.3f} | {now:.3f} | {plain / now:.2f} × |")


if __name__ == "__main__":
    main()
