"""Training beside busy programs: steps a second and processor time of a step, by how threads wait, as a table.

``python -m experiments.benchmarks.busy stores/simulated.h5``; what stands in the environment is left out.
"""

import json
import os
import subprocess
import sys
import time
from argparse import ArgumentParser
from itertools import cycle, islice, product
from statistics import median

import methyl_lightning  # noqa: F401 - says how threads wait before torch is imported
from methyl_lightning.data.datamodule import GridDataModule, GridDataset, GridSampler
from methyl_lightning.model.module import MethylationModule

WAYS = {
    "as it comes": {},
    "spinning (the default of OpenMP)": {"GOMP_SPINCOUNT": "300000"},
    "spinning shortly": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WARM_UP = 2  # steps
NEIGHBOUR = "while True: pass"


def measure(store: str, steps: int) -> dict[str, float]:
    """Train for some steps in this process."""
    datamodule = GridDataModule(store)
    module = MethylationModule("LevyJurgenson", len(datamodule.store.genes), datamodule.store.window)
    module.fit_statistics(datamodule)
    module.log = lambda *args, **settings: None  # type: ignore[method-assign]
    view = datamodule.split.view("train_cpg-train_sample")
    sampler, dataset = GridSampler(*view, datamodule.block, 0, 0, 1, lambda: 0), GridDataset(datamodule.store)
    optimizer = module.configure_optimizers()
    for i, block in enumerate(islice(cycle(sampler.epoch_blocks(0)), WARM_UP + steps)):
        if i == WARM_UP:
            wall, processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        module.training_step(dataset[block], i).backward()
        optimizer.step()
    seconds, processor_seconds = time.perf_counter() - wall, time.process_time() - processor
    return {"rate": steps / seconds, "processor": processor_seconds / steps}


def main() -> None:
    """Measure each way beside each number of neighbours in turn, and print medians over rounds."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--child", action="store_true")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.store, given.steps)))
        return
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-m", "experiments.benchmarks.busy", given.store, "--child", f"--steps={given.steps}"]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _, n, (way, environment) in product(range(given.rounds), given.neighbours, WAYS.items()):
        neighbours = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(n)]
        try:
            done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()
        found.setdefault((way, n), []).append(json.loads(done.stdout))
    print("| threads | " + " | ".join(f"{n} busy" for n in given.neighbours) + " |")
    print("|---" * (1 + len(given.neighbours)) + "|")
    for way in WAYS:
        cells = []
        for n in given.neighbours:
            rate, processor = (median(one[key] for one in found[way, n]) for key in ("rate", "processor"))
            cells.append(f"{rate:.2f} ({processor:.2f} s)")
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
