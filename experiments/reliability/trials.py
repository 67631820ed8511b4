"""The trials: each is a generator of verdicts, one for each time that a fault was tried."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from experiments.reliability.baseline import (
    PREDICTED,
    RUN,
    SOURCE,
    STORE,
    TRAIN,
    Baseline,
    cells_of,
    half_written,
    resume,
)
from experiments.reliability.processes import Ended, Running, kills_at, run, run_killed

SURVIVED, LOST, WRONG, UNTIDY = "survived", "lost", "silently wrong", "not one line"
FIT, EVALUATION, FILES = "methyl_lightning.train.fit", "methyl_lightning.evaluate.evaluation", "methyl_lightning.files"
# where a training is killed: function, which call, whether after it
PLACES = [
    ("methyl_lightning.model.module:MethylationModule.training_step", 1, False),
    ("methyl_lightning.model.module:MethylationModule.training_step", 6, False),
    ("methyl_lightning.model.module:MethylationModule.validation_step", 2, True),
    ("torch:save", 1, False),
    ("torch:save", 2, True),
    ("torch:save", 3, True),
    ("pathlib:Path.replace", 5, False),
    ("pathlib:Path.replace", 5, True),
    ("pathlib:Path.replace", 8, True),
    (f"{FILES}:_sync", 9, False),
    ("methyl_lightning.train.__main__:save_split", 1, True),
    ("methyl_lightning.train.__main__:save_config", 1, False),
    (f"{FIT}:load_checkpoint", 1, False),
    (f"{EVALUATION}:to_anndata", 2, False),
    (f"{EVALUATION}:save_bootstrap", 1, True),
    (f"{FIT}:complete_checkpoint", 1, False),
    (f"{FIT}:complete_checkpoint", 1, True),
    (f"{FIT}:save_training_curves", 1, False),
]
TEXTS = ("metrics.json", "strata.csv", "split.json", "data.json", "usage.json")
Verdicts = Iterator[tuple[str, str]]  # verdict, and what was seen


def _verdict(same: bool | None, ended: Ended, note: str = "") -> tuple[str, str]:
    """Judge a command: ``same`` says whether its results are those of the baseline (None: it gave none)."""
    said = f"{note} status {ended.status}: {' '.join(ended.err.split())[-300:]}"
    if same is False:
        return WRONG, said
    if same is None and ended.status == 0:
        return LOST, said
    return (SURVIVED if ended.tidy else UNTIDY), said


def _resumed(base: Baseline, work: Path, note: str) -> tuple[str, str]:
    ended = resume(work, "run")
    if ended.status:
        return LOST, f"{note} status {ended.status}: {ended.err[-300:]}"
    same = base.equals_run(work / "run") and not half_written(work / "run")
    return _verdict(same, ended, note)


def killed_trainings(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Kill a training at a random moment, or twice; go on, and compare weights and metrics."""
    for k in range(n):
        shutil.rmtree(work / "run", ignore_errors=True)
        after = rng.uniform(0, base.seconds["train"])
        run_killed("train", [*TRAIN, "hydra.run.dir=run"], work, after)
        if k % 3 == 0 and (work / "run" / "last.ckpt").is_file():
            run_killed("train", ["ckpt_path=run/last.ckpt"], work, rng.uniform(0, after))
        yield _resumed(base, work, f"after {after:.2f} s")


def killed_at_places(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Kill a training at exact places, in fit and in test."""
    for place, count, after in PLACES[:n]:
        shutil.rmtree(work / "run", ignore_errors=True)
        ended = run("train", [*TRAIN, "hydra.run.dir=run"], work, kills_at(place, count, after))
        if ended.status != -9:
            raise RuntimeError(f"{place}: not reached ({ended.err})")
        yield _resumed(base, work, place)


def killed_tests(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Kill evaluate; the run that it tests stays as it was, and the next one gives the same."""
    for _ in range(n):
        shutil.rmtree(work / "again", ignore_errors=True)
        again = [f"checkpoint={RUN}/best.ckpt", "hydra.run.dir=again"]
        run_killed("evaluate", again, work, rng.uniform(0, base.seconds["evaluate"]))
        shutil.rmtree(work / "again", ignore_errors=True)
        ended = run("evaluate", again, work)
        yield _verdict(base.equals_test(work / "again") and base.equals_run(work / RUN), ended)


def killed_predictions(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Kill predict; its output is whole or not there, and the next one gives the same."""
    for _ in range(n):
        (work / PREDICTED).unlink(missing_ok=True)
        run_killed("predict", base.prediction(PREDICTED), work, rng.uniform(0, base.seconds["predict"]))
        whole = (work / PREDICTED).exists()
        ended = Ended(0, "", "", 0) if whole else run("predict", base.prediction(PREDICTED), work)
        yield _verdict(cells_of(work / PREDICTED) == base.predicted, ended, "whole" if whole else "again")


def killed_preparations(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Kill prepare over a store; the former or the new one is there, whole, and the same."""
    content = (work / STORE).read_bytes()
    for _ in range(n):
        run_killed("prepare", [*SOURCE, f"data.store={STORE}"], work, rng.uniform(0, base.seconds["prepare"]))
        ended = run("prepare", [f"check={STORE}"], work)
        same = ended.status == 0 and len((work / STORE).read_bytes()) == len(content)
        yield _verdict(same, ended)
    ended = run("prepare", [*SOURCE, f"data.store={STORE}"], work)
    left = [path.name for path in (work / "stores").iterdir() if ".part" in path.name]
    yield _verdict(not left or None, ended, f"left: {left}")


def _flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def _flipped(work: Path, name: str, rng: np.random.Generator, n: int) -> Iterator[None]:
    """Flip one bit of a file each time, and put it back."""
    content = (work / name).read_bytes()
    for _ in range(n):
        _flip(work / name, rng)
        yield
        (work / name).write_bytes(content)


def flipped_best(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Flip a bit of best.ckpt and predict with it."""
    for _ in _flipped(work, f"{RUN}/best.ckpt", rng, n):
        (work / PREDICTED).unlink(missing_ok=True)
        ended = run("predict", base.prediction(PREDICTED), work)
        yield _verdict(None if ended.status else cells_of(work / PREDICTED) == base.predicted, ended)


def flipped_last(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Flip a bit of last.ckpt of a killed run and go on."""
    run("train", [*TRAIN, "hydra.run.dir=run"], work, kills_at(PLACES[1][0], 6))
    shutil.copytree(work / "run", work / "killed")
    for _ in range(n):
        shutil.rmtree(work / "run")
        shutil.copytree(work / "killed", work / "run")
        _flip(work / "run" / "last.ckpt", rng)
        ended = run("train", ["ckpt_path=run/last.ckpt"], work)
        yield _verdict(None if ended.status else base.equals_run(work / "run"), ended)


def flipped_store(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Flip a bit of the store and test a checkpoint on it."""
    for _ in _flipped(work, STORE, rng, n):
        shutil.rmtree(work / "again", ignore_errors=True)
        ended = run("evaluate", [f"checkpoint={RUN}/best.ckpt", "hydra.run.dir=again"], work)
        yield _verdict(None if ended.status else base.equals_test(work / "again"), ended)


def flipped_predictions(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Flip a bit of a run's predictions and draw the report."""
    yield from _reported(base, work, "predictions_test_cpg-test_sample.h5ad", rng, n)


def flipped_texts(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Flip a bit of a run's metrics, strata, split or facts and draw the report."""
    for k in range(n):
        yield from _reported(base, work, TEXTS[k % len(TEXTS)], rng, 1)


def _reported(base: Baseline, work: Path, name: str, rng: np.random.Generator, n: int) -> Verdicts:
    for _ in _flipped(work, f"{RUN}/{name}", rng, n):
        (work / "page.html").unlink(missing_ok=True)
        ended = run("report", [f"runs={RUN}", "output=page.html"], work)
        yield _verdict(None if ended.status else (work / "page.html").read_text() == base.page, ended, name)


class Disk:
    """A small disk of its own: a tmpfs, which takes the rights of root to mount."""

    def __init__(self, place: Path, size: str):
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self._mount("-t", "tmpfs", "-o", f"size={size}", "none")

    def change(self, options: str) -> None:
        """Give it another size, or make it read-only."""
        self._mount("-o", f"remount,{options}")

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", str(self.place)], check=True)

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, str(self.place)], check=True)


def can_mount() -> bool:
    """Tell whether this process may mount a disk."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


# commands that write onto a disk: name, settings
WRITERS = {
    "train": [*TRAIN, "hydra.run.dir=disk/run"],
    "evaluate": [f"checkpoint={RUN}/best.ckpt", "hydra.run.dir=disk/run"],
    "predict": Baseline.prediction(f"disk/{PREDICTED}"),
    "prepare": [*SOURCE, "data.store=disk/simulated.h5"],
    "report": [f"runs={RUN}", "output=disk/page.html"],
}


def full_disks(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Let each command write onto a disk that is too small at another place each time; then make room and go on."""
    for name, overrides in WRITERS.items():
        needed = _needed(work, name, overrides)
        for share in 0.02 + 0.95 * (np.arange(n) + rng.random(n)) / n:
            disk = Disk(work / "disk", f"{max(4096, int(needed * share))}")
            try:
                ended = run(name, overrides, work)
                broken = half_written(work / "disk")
                verdict = _verdict(None if ended.status else True, ended, f"{name}, {share:.0%} of {needed:,} bytes;")
                if broken:
                    verdict = LOST, f"half-written: {broken}"
                elif name == "train" and verdict[0] == SURVIVED and ended.status:
                    disk.change("size=1g")
                    (work / "run").symlink_to("disk/run")
                    verdict = _resumed(base, work, verdict[1])
                    (work / "run").unlink()
                yield verdict
            finally:
                disk.close()


def _needed(work: Path, name: str, overrides: list[str]) -> int:
    disk = Disk(work / "disk", "1g")
    run(name, overrides, work)
    used = shutil.disk_usage(work / "disk").used
    disk.close()
    return used


def read_only_disks(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Let each command write onto a disk that takes nothing."""
    disk = Disk(work / "disk", "1g")
    disk.change("ro")
    try:
        for name, overrides in WRITERS.items():
            ended = run(name, overrides, work)
            yield _verdict(None, ended, name)
    finally:
        disk.close()


def long_names(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Give each output a name of 300 letters, which no disk takes, and one of 240, which all do."""
    for name, overrides in WRITERS.items():
        for length in (300, 240):
            *others, last = overrides
            setting, _, value = last.partition("=")
            ending = "".join(Path(value).suffixes[-1:])
            ended = run(name, [*others, f"{setting}=long/{'a' * (length - len(ending))}{ending}"], work)
            yield _verdict(None if length == 300 else ended.status == 0, ended, f"{name}, {length}")
            if broken := half_written(work / "long"):
                yield LOST, f"half-written: {broken}"


def runs_at_once(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Start two trainings, preparations and predictions in the same moment, into the same place."""
    for _ in range(n):
        shutil.rmtree(work / "run", ignore_errors=True)
        shutil.rmtree(work / "run-2", ignore_errors=True)
        both = [Running("train", [*TRAIN, "hydra.run.dir=run"], work) for _ in range(2)]
        for ended, folder in zip([one.wait() for one in both], ("run", "run-2"), strict=True):
            yield _verdict(ended.status == 0 and base.equals_run(work / folder), ended, folder)
        both = [Running("prepare", [*SOURCE, "data.store=stores/new.h5"], work) for _ in range(2)]
        for ended in [one.wait() for one in both]:
            yield _verdict(run("prepare", ["check=stores/new.h5"], work).status == 0, ended, "prepare")
        (work / PREDICTED).unlink(missing_ok=True)
        both = [Running("predict", base.prediction(PREDICTED), work) for _ in range(2)]
        for ended in [one.wait() for one in both]:
            yield _verdict(cells_of(work / PREDICTED) == base.predicted, ended, "predict")


def leftovers(base: Baseline, work: Path, rng: np.random.Generator, n: int) -> Verdicts:
    """Leave temporaries and links of a process with the same number where a training writes; none is followed."""
    for _ in range(n):
        shutil.rmtree(work / "run", ignore_errors=True)
        victim = work / "victim"
        victim.write_text("precious")

        def plant() -> None:
            (work / "run").mkdir()
            for name in ("config.yaml", "split.json", "best.ckpt", "last.ckpt", "metrics.json", "data.json"):
                own = work / "run" / f".{name}.{socket.gethostname()}.{os.getpid()}"
                Path(f"{own}.part").symlink_to(work / "victim")
                Path(f"{own}.00ff.part").write_text("half")

        ended = run("train", [*TRAIN, "hydra.run.dir=run"], work, plant)
        same = ended.status == 0 and base.equals_run(work / "run") and victim.read_text() == "precious"
        yield _verdict(same and not half_written(work / "run"), ended)


# what is tried, how often in a full run, and whether it needs a disk of its own
TRIALS = {
    "training killed at a random moment": (killed_trainings, 40, False),
    "training killed at an exact place, in fit and test": (killed_at_places, len(PLACES), False),
    "evaluate killed": (killed_tests, 10, False),
    "predict killed": (killed_predictions, 20, False),
    "prepare killed": (killed_preparations, 20, False),
    "bit of best.ckpt flipped": (flipped_best, 60, False),
    "bit of last.ckpt flipped": (flipped_last, 60, False),
    "bit of the store flipped": (flipped_store, 60, False),
    "bit of the predictions flipped": (flipped_predictions, 30, False),
    "disk full, each command": (full_disks, 8, True),
    "disk read-only, each command": (read_only_disks, 1, True),
    "names of 300 and 240 letters, each command": (long_names, 1, False),
    "two started together": (runs_at_once, 3, False),
    "leftovers and links of the same process number": (leftovers, 3, False),
    "bit of a run's JSON or CSV flipped": (flipped_texts, 30, False),
}
