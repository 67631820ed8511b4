"""What each arrangement of the work gains, beside its plain form: ``python -m experiments.benchmarks.parts``.

Legend: C CpGs, S samples, G genes, K units of the first connected layer.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.__main__ import BLOCK, K, build, training_step
from experiments.benchmarks.full_store import write_random_store
from experiments.benchmarks.timing import alternate
from methyl_lightning.data.datamodule import Block, GridDataset
from methyl_lightning.data.store import Store
from methyl_lightning.networks.products import WideLinear, grid_product

GENES, ROUNDS = 17_996, 7
Task = Callable[[], object]


def there_and_back(forward: Callable[[], Tensor], bf16: bool = False) -> Task:
    """Run forward, then backward from a gradient of ones."""

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
    rows_SG = torch.rand(BLOCK, GENES)
    linear, wide = nn.Linear(GENES, GENES // 6), WideLinear(GENES, GENES // 6)
    attention_CG, weight_KG = (
        torch.rand(BLOCK // 4, GENES, requires_grad=True),
        torch.rand(K, GENES, requires_grad=True),
    )
    factors = attention_CG, weight_KG
    return {
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
    """Return training steps of the published size on a block."""
    batch = GridDataset(store)[Block(np.arange(BLOCK), np.arange(BLOCK))]
    module, optimiser = build(GENES, store.window)
    return {
        f"training step, {name}": partial(training_step, module, optimiser, batch, bf16)
        for name, bf16 in (("float32", False), ("bf16", True))
    }


def main() -> None:
    """Time all tasks in alternation."""
    torch.manual_seed(0)
    tasks: dict[str, Task] = {}
    for name, (plain, now) in parts().items():
        tasks |= {f"{name}, plain": plain, f"{name}, now": now}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        write_random_store(path, BLOCK, BLOCK, GENES)
        took = alternate(tasks | training_steps(Store(path)), ROUNDS)
    print("| part | s |\n|---|---|")
    for name, seconds in took.items():
        print(f"| {name} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
