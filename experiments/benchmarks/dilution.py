"""What a dilution test costs beside one evaluation: ``python -m experiments.benchmarks.dilution RUN/best.ckpt …``.

An evaluation is prediction and metrics with their bootstrap intervals; a dilution test predicts levels × repeats as
many samples, needs no intervals, and encodes each CpG once, as an evaluation does.
"""

import sys
from pathlib import Path

from experiments.benchmarks.timing import alternate
from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.dilution.run import dilution_test
from methyl_lightning.evaluate.evaluation import load_run
from methyl_lightning.metrics.bootstrap import bootstrap_grid
from methyl_lightning.model.grid import predict_grid

LEVELS, REPEATS, ROUNDS = (100, 1_000, 5_000, 10_000, 15_000, 20_000), 10, 3


def measure(checkpoint: Path) -> str:
    """Time both in alternation and lay the medians out as a row of a table."""
    module, store, split, run = load_run(checkpoint)
    view = cpg_C, sample_S = split.view(HEADLINE)
    patient_S = store.samples["patient"].to_numpy(str)[sample_S]
    took = alternate(
        {
            "evaluation": lambda: bootstrap_grid(store.beta(*view), predict_grid(module, store, *view), patient_S, 0),
            "dilution": lambda: dilution_test(module, store, split, LEVELS, repeats=REPEATS),
        },
        ROUNDS,
    )
    name = f"{run.data.name} ({len(store.genes):,} genes, {len(cpg_C):,} CpGs × {len(sample_S)} samples)"
    dilution, evaluation = took["dilution"], took["evaluation"]
    return f"| {name} | {dilution:.1f} s | {evaluation:.1f} s | {dilution / evaluation:.1f} |"


if __name__ == "__main__":
    print(f"| run | {len(LEVELS) * REPEATS} dilutions | one evaluation of the view | ratio |\n|---|---|---|---|")
    for path in sys.argv[1:]:
        print(measure(Path(path)), flush=True)
