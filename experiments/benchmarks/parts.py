"""What each arrangement of the work gains, beside its plain form: ``python -m experiments.benchmarks.parts``.

Legend: C CpGs, S samples, L bases, G genes, K units of the first connected layer.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.benchmarks.__main__ import BLOCK, K, build, training_step
from experiments.benchmarks.full_store import WINDOW, write_random_store
from experiments.benchmarks.timing import alternate
from methyl_lightning.data.datamodule import Block, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.model.memory import keep_freed_memory
from methyl_lightning.networks.products import WideLinear, grid_product
from methyl_lightning.networks.sequence import ALPHABET_SIZE, POOL, SequenceConvolution

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


def only_there(network: nn.Module, sequence_CL: Tensor) -> None:
    """Forward, as in prediction."""
    with torch.inference_mode():
        network(sequence_CL)


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
        f"filters of {BLOCK} sequences, prediction": (
            partial(only_there, PlainConvolution().eval(), sequence_CL),
            partial(only_there, SequenceConvolution(WINDOW).eval(), sequence_CL),
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


def training_steps(store: Store) -> dict[str, Task]:
    """Training steps of the published size on a block."""
    batch = GridDataset(store)[Block(np.arange(BLOCK), np.arange(BLOCK))]
    module, optimiser = build(GENES, store.window)
    return {
        f"training step, {name}": partial(training_step, module, optimiser, batch, bf16)
        for name, bf16 in (("float32", False), ("bf16", True))
    }


def main() -> None:
    """Time all tasks with memory that goes back to the system, then, as that cannot be undone, with memory kept."""
    torch.manual_seed(0)
    tasks: dict[str, Task] = {}
    for name, (plain, now) in parts().items():
        tasks |= {f"{name}, plain": plain, f"{name}, now": now}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_random_store(path, BLOCK, BLOCK, GENES)
        tasks |= training_steps(Store(path))
        returned = alternate(tasks, ROUNDS)
        keep_freed_memory()
        kept = alternate(tasks, ROUNDS)
    print("| part | memory returned, s | memory kept, s |\n|---|---|---|")
    for name in tasks:
        print(f"| {name} | {returned[name]:.3f} | {kept[name]:.3f} |")


if __name__ == "__main__":
    main()
