"""The whole way at the size of the published work, or a share of it: every command with time, memory and size on disk.

``python -m experiments.benchmarks.rehearsal [--scale 0.1]`` writes files of the published size and layout (485,512 CpGs
× 1,350 samples × 20,000 genes), prepares, trains the paper's network for as long as is said and the bilinear ridge,
evaluates, dilutes, predicts and reports, and writes the table as rehearsal.md beside this file. The network is tested
on a hundredth of CpGs and patients: what a tenth costs on two cores is most of an hour.
"""

import gzip
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import chdir
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import methyl_lightning

ROOT = Path(methyl_lightning.__file__).parents[1]
WRITER = str(Path(__file__).with_name("write_cohort.py"))
N_NEW = 100  # samples that are predicted
TABLE = Path(__file__).with_name("rehearsal.md")


class Step(NamedTuple):
    """One command, and what it leaves on disk."""

    name: str
    arguments: list[str]
    output: str


class Cost(NamedTuple):
    """What a command took; processor time of all its threads."""

    wall_s: float
    processor_s: float
    peak_gb: float
    output_mb: float


def steps(scale: float, minutes: float) -> Iterator[Step]:
    """Write the commands in their order; the files that they read and write are named from the scratch folder."""

    def command(name: str, *settings: str) -> list[str]:
        return ["-m", f"methyl_lightning.{name}", *settings]

    cohorts = ", ".join(
        f"{name}: {{methylation: raw/{name}/HumanMethylation450.gz, expression: raw/{name}/HiSeqV2.gz}}"
        for name in ("BRCA", "LUAD")
    )
    source = [
        "data=tcga_xena",
        "data.name=rehearsal",
        *(
            f"data.source.{name}=raw/{file}"
            for name, file in (("probe_map", "probeMap.tsv"), ("genes", "genes.tsv.gz"), ("genome", "genome.fa"))
        ),
        f"data.source.cohorts={{{cohorts}}}",
    ]
    timed = f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{round(minutes * 60 % 60):02d}"
    yield Step("write the files", [WRITER, "raw", "--scale", str(scale)], "raw")
    yield Step("prepare", command("prepare", *source), "stores")
    yield Step("check the store", command("prepare", "check=stores/rehearsal.h5"), "")
    network = [f"+trainer.max_time='00:{timed}'", "trainer.max_steps=-1", "data.fractions=[.98,.01,.01]"]
    network += ["hydra.run.dir=runs/network"]
    yield Step("train and test the paper's network", command("train", *source, *network), "runs/network/best.ckpt")
    ridge = ["model=bilinear_ridge", "hydra.run.dir=runs/ridge"]
    yield Step("train and test the bilinear ridge", command("train", *source, *ridge), "runs/ridge/best.ckpt")
    checkpoint = "checkpoint=runs/ridge/best.ckpt"
    yield Step("evaluate", command("evaluate", checkpoint, "hydra.run.dir=again"), "again")
    diluted = ["+experiment=dilution", "dilution.retention=[1000]", "dilution.repeats=1", "dilution.match=[depth]"]
    yield Step("dilution", command("evaluate", checkpoint, *diluted, "hydra.run.dir=diluted"), "diluted")
    new = ["expression=new.tsv", "output=new.h5ad", "intervals=false"]
    yield Step(f"predict {N_NEW} samples", command("predict", checkpoint, *new), "new.h5ad")
    yield Step("report", command("report", "runs=runs", "output=report.html"), "report.html")


def write_new_samples() -> None:
    """Cut the first samples out of an expression table."""
    with gzip.open("raw/BRCA/HiSeqV2.gz", "rt") as table, Path("new.tsv").open("w") as new:
        for line in table:
            new.write("\t".join(islice(line.rstrip("\n").split("\t"), N_NEW + 1)) + "\n")


def measure(step: Step) -> Cost:
    """Run a command to its end.

    Raises
    ------
    SystemExit
        If it fails; its log is shown.
    """
    log, start = Path("log"), time.perf_counter()
    with log.open("w") as output:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
        actions = [(os.POSIX_SPAWN_DUP2, output.fileno(), 1), (os.POSIX_SPAWN_DUP2, output.fileno(), 2)]
        pid = os.posix_spawn(sys.executable, [sys.executable, *step.arguments], environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)  # of this process alone
    if status:
        raise SystemExit(f"{step.name} failed:\n{log.read_text()[-3000:]}")
    size = 0
    if step.output:
        path = Path(step.output)
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    seconds = time.perf_counter() - start
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, size / 1e6)


def row(step: Step, cost: Cost) -> str:
    """Write a row of the table."""
    size = f"{cost.output_mb:,.0f} MB" if step.output else ""
    return f"| {step.name} | {cost.wall_s:,.0f} s | {cost.processor_s:,.0f} s | {cost.peak_gb:.2f} GB | {size} |"


def main() -> None:
    """Run all commands in a scratch folder, print each row when it is known, and write the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, help="of training the network (default: 1, and 9 more at full size)")
    parser.add_argument("--scratch", type=Path, help="a folder with 15 GB of room (default: of the system)")
    given = parser.parse_args()
    minutes = 1 + 9 * given.scale if given.minutes is None else given.minutes
    rows = ["| command | elapsed | processor time | peak memory | on disk |", "|---|---|---|---|---|"]
    print("\n".join(rows))
    with TemporaryDirectory(dir=given.scratch) as scratch, chdir(scratch):
        for step in steps(given.scale, minutes):
            if step.name.startswith("predict"):
                write_new_samples()
            rows.append(row(step, measure(step)))
            print(rows[-1], flush=True)
    TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
