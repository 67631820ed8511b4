"""Try faults and print one table: ``python -m experiments.reliability``."""

import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning  # noqa: F401 - imported once, before processes are forked
import numpy as np
import torch

import methyl_lightning.train.fit  # noqa: F401
from experiments.reliability.baseline import Baseline
from experiments.reliability.trials import LOST, SURVIVED, TRIALS, UNTIDY, WRONG, can_mount

COLUMNS = ("tried", SURVIVED, LOST, WRONG, UNTIDY)


def main() -> int:
    """Try each kind of fault, print a row as soon as it is through, and return 1 if anything was lost or wrong."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the trials of a full run")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start, bad = time.monotonic(), 0
    print("| fault | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1), flush=True)
    with TemporaryDirectory(prefix="reliability") as temporary:
        base = Baseline(Path(temporary, "baseline"))
        for number, (name, (trial, times, on_disk)) in enumerate(TRIALS.items()):
            if given.only not in name:
                continue
            if on_disk and not can_mount():
                print(f"{name}: not tried, mounting a small disk takes the rights of root", file=sys.stderr)
                continue
            counts = dict.fromkeys(COLUMNS, 0)
            work = base.copy(Path(temporary, f"trial{number}"))
            n = max(1, round(times * given.share))
            for verdict, seen in trial(base, work, np.random.default_rng([given.seed, number]), n):
                counts["tried"] += 1
                counts[verdict] += 1
                if verdict != SURVIVED:
                    print(f"{name}: {verdict}: {seen}", file=sys.stderr, flush=True)
            bad += counts[LOST] + counts[WRONG] + counts[UNTIDY]
            print(f"| {name} | " + " | ".join(f"{counts[column]}" for column in COLUMNS) + " |", flush=True)
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
