"""One small simulated store for all tests, stores derived from it, and the commands in this process or their own."""

import io
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra

from methyl_lightning.command.run import run_command
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.store import Distances, Store, write_store
from methyl_lightning.prepare.simulated import simulate

# figures are compared to the last digit, which is another on a GPU; tests/test_accelerator.py asks for one
if not os.environ.get("METHYL_LIGHTNING_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

SIZES = {"n_cpgs": 120, "n_patients": 40, "n_genes": 40, "window": 100, "seed": 5}
DATA = [f"data.source.{name}={value}" for name, value in SIZES.items()]
TRAINER = ["trainer.accelerator=cpu", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1"]
# 96 CpGs × 34 samples to train on: 8 blocks an epoch
SMALL = [*DATA, "data.block=[24,20]", "data.val_cpgs=10", "data.val_samples=4", *TRAINER]
REPRODUCE = ["+experiment=reproduce", *SMALL, "trainer.max_steps=6", "hydra.run.dir=run"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small arrays gain nothing from threads, and sums keep their order."""
    torch.set_num_threads(1)


class Result(NamedTuple):
    status: int
    out: str
    err: str


def command(name: str, overrides: Sequence[str], folder: Path, **environment: str) -> Result:
    """Run a command of the package in this process, from a folder."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for key in ("HYDRA_FULL_ERROR", "METHYL_LIGHTNING_SHORT_ERROR"):
            patch.setenv(key, "")  # so that what the command sets is undone
            patch.delenv(key)
        for key, value in environment.items():
            patch.setenv(key, value)
        patch.chdir(folder)
        patch.setattr(sys, "argv", [f"methyl_lightning.{name}", *overrides])
        GlobalHydra.instance().clear()
        try:
            run_command(getattr(import_module(f"methyl_lightning.{name}.__main__"), name), name)
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            if "wandb" in sys.modules:  # whose session keeps the environment of the first command of a process
                sys.modules["wandb"].teardown()
    return Result(status, out.getvalue(), err.getvalue())


def process(arguments: Sequence[str], folder: Path, python: str = sys.executable, **environment: str) -> Result:
    """Run Python in a process of its own, from a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    removed = ("HYDRA_FULL_ERROR", "METHYL_LIGHTNING_SHORT_ERROR", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if key not in removed}
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def assert_refused(result: Result, *words: str) -> None:
    """Exactly one line says what is wrong, and the status is that of an error."""
    assert result.err.startswith("error: ") and result.err.count("\n") == 1 and result.err.endswith("\n"), result.err
    assert result.status not in (0, None)
    for word in words:
        assert word in result.err


def grids(n_cpgs: int = 60, n_samples: int = 24, digits: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a float32 grid with missing cells, and a prediction that knows something of CpGs and of samples."""
    rng = np.random.default_rng(seed)
    level_C1 = rng.beta(0.5, 0.5, (n_cpgs, 1))
    effect_CS = 0.1 * rng.normal(size=(n_cpgs, n_samples))
    measured_CS = np.clip(level_C1 + effect_CS + 0.1 * rng.normal(size=effect_CS.shape), 0, 1).round(digits)
    measured_CS[rng.random(measured_CS.shape) < 0.1] = np.nan
    predicted_CS = np.clip(0.1 + 0.8 * level_C1 + effect_CS, 0, 1).round(digits)
    return measured_CS.astype(np.float32), predicted_CS.astype(np.float32)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "cohort.h5"
    simulate(path, **SIZES)
    return path


@pytest.fixture(scope="session")
def store(store_path: Path) -> Store:
    return Store(store_path)


@pytest.fixture
def datamodule(store_path: Path) -> GridDataModule:
    return GridDataModule(str(store_path), block=(24, 20), val_cpgs=10, val_samples=4)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> GridDataModule:
    """Give a cohort that is large enough for its planted drivers and motifs to be found."""
    path = tmp_path_factory.mktemp("planted") / "cohort.h5"
    simulate(path, n_cpgs=700, n_patients=100, n_genes=100, window=120, effects=4, seed=3)
    return GridDataModule(str(path))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Where the commands have run once, for all workers: ``stores/simulated.h5`` and the trained ``run``."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "workplace"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "train.err").exists():
            for name, overrides in (("prepare", DATA), ("train", REPRODUCE)):
                result = command(name, overrides, folder)
                assert result.status == 0, result.err
                (folder / f"{name}.out").write_text(result.out)
                (folder / f"{name}.err").write_text(result.err)
    return folder


def contents(store: Store) -> dict[str, Any]:
    """Read everything that ``write_store`` takes."""
    return {
        "cpgs": store.cpgs,
        "sequence_CL": np.array(store.sequence_CL),
        "genes": store.genes,
        "samples": store.samples,
        "distances": store.distances,
        "expression_SG": np.array(store.expression_SG),
        "beta_CS": store.beta(np.arange(len(store.cpgs)), np.arange(len(store.samples))),
        "units": store.attributes["units"],
        "assembly": store.attributes["assembly"],
        "provenance": store.attributes["provenance"],
        "annotation_CP": np.array(store.annotation_CP),
    }


def rewrite(store: Store, path: Path, **changes: Any) -> Store:
    """Write a store with some of its contents changed."""
    write_store(path, **contents(store) | changes)
    return Store(path)


def reorder(store: Store, path: Path, cpg_C: np.ndarray, sample_S: np.ndarray) -> Store:
    """Write a store with its CpGs and samples in another order."""
    has = contents(store)
    return rewrite(
        store,
        path,
        cpgs=has["cpgs"].iloc[cpg_C],
        sequence_CL=has["sequence_CL"][cpg_C],
        distances=has["distances"].rows(cpg_C),
        samples=has["samples"].iloc[sample_S],
        expression_SG=has["expression_SG"][sample_S],
        beta_CS=has["beta_CS"][cpg_C][:, sample_S],
        annotation_CP=has["annotation_CP"][cpg_C],
    )


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let no file become larger, as if the disk had no more room."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def tiny_store(path: Path, **changes: Any) -> Store:
    """Write a store of three CpGs, two genes and two samples whose every value is known."""
    values: dict[str, Any] = {
        "cpgs": pd.DataFrame(
            {
                "id": ["cg1", "cg2", "cg3"],
                "chrom": ["chr1", "chr1", "chrX"],
                "position": [100, 900, -1],
                "island": ["Island", "OpenSea", ""],
            }
        ),
        "sequence_CL": np.array([[0, 1, 2, 3], [4, 4, 1, 2], [3, 1, 2, 0]], dtype=np.uint8),
        "genes": pd.DataFrame(
            {
                "symbol": ["PLUS", "MINUS"],
                "id": ["g1", "g2"],
                "chrom": ["chr1", "chr1"],
                "start": [150, 40],
                "end": [400, 90],
                "strand": ["+", "-"],
            }
        ),
        "samples": pd.DataFrame(
            {
                "id": ["TCGA-AA-0001-01", "TCGA-BB-0002-01"],
                "patient": ["TCGA-AA-0001", "TCGA-BB-0002"],
                "cohort": ["X", "Y"],
                "tissue_type": ["Primary Tumor", "Solid Tissue Normal"],
            }
        ),
        "distances": Distances(np.array([0, 2, 3, 3]), np.array([1, 0, 0]), np.array([-11, 50, -750])),
        "expression_SG": np.array([[0.5, 2.25], [7.0, 0.0]], dtype=np.float32),
        "beta_CS": np.array([[0.0, 1.0], [0.1234, np.nan], [0.5, 0.25]]),
        "units": "log2(norm+1)",
        "assembly": "hg19",
        "provenance": {"source": "hand", "settings": {"window": 4}},
    }
    write_store(path, **values | changes)
    return Store(path)


@pytest.fixture
def elsewhere(workplace: Path, tmp_path: Path) -> Path:
    """Make an empty working folder with copies of the store and of the run."""
    shutil.copytree(workplace / "stores", tmp_path / "stores")
    shutil.copytree(workplace / "run", tmp_path / "run", ignore=shutil.ignore_patterns("*.h5ad", "figures", "log"))
    return tmp_path
