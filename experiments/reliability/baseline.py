"""A small cohort, run and prediction that have met no fault, and whether another equals them."""

import json
import re
import shutil
from pathlib import Path

import anndata
import numpy as np
import torch

from experiments.reliability.processes import Ended, run
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import load_checkpoint

SIZES = {"n_cpgs": 120, "n_patients": 40, "n_genes": 40, "window": 100, "seed": 5}
SOURCE = [f"data.source.{name}={value}" for name, value in SIZES.items()]
TRAIN = [
    *SOURCE,
    *("data.block=[24,20]", "data.val_cpgs=10", "data.val_samples=4"),
    *("trainer.accelerator=cpu", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "trainer.max_steps=8"),
]
STORE, RUN, EXPRESSION, PREDICTED = "stores/simulated.h5", "whole", "new.h5ad", "predicted.h5ad"


class Baseline:
    """The commands as they end without a fault, in a folder of their own.

    Attributes
    ----------
    folder
        Holds the store, the run, the expression of new samples and their prediction.
    seconds
        How long each command took.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.seconds: dict[str, float] = {}
        self._made("prepare", [*SOURCE, f"data.store={STORE}"])
        self._made("train", [*TRAIN, f"hydra.run.dir={RUN}"])
        self._made("evaluate", [f"checkpoint={RUN}/best.ckpt", "hydra.run.dir=evaluated"])
        store = Store(folder / STORE)
        rng = np.random.default_rng(0)
        cells = anndata.AnnData(rng.poisson(20, (30, len(store.genes))).astype(np.float32))
        cells.var_names, cells.obs_names = store.genes["symbol"].tolist(), [f"cell{i}" for i in range(30)]
        cells.write_h5ad(folder / EXPRESSION)
        self._made("predict", self.prediction(PREDICTED))
        self._made("report", [f"runs={RUN}", "output=page.html"])
        self.metrics = (folder / RUN / "metrics.json").read_text()
        self.weights = weights(folder / RUN / "last.ckpt")
        self.predicted = cells_of(folder / PREDICTED)
        self.page = (folder / "page.html").read_text()

    def _made(self, name: str, overrides: list[str]) -> None:
        ended = run(name, overrides, self.folder)
        if ended.status:
            raise RuntimeError(f"{name} fails without a fault: {ended.err}")
        self.seconds[name] = ended.seconds

    @staticmethod
    def prediction(output: str, checkpoint: str = f"{RUN}/best.ckpt") -> list[str]:
        """Return the settings that predict the new samples."""
        return [f"checkpoint={checkpoint}", f"expression={EXPRESSION}", f"output={output}"]

    def copy(self, target: Path) -> Path:
        """Copy all into a new folder."""
        return Path(shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("page*", PREDICTED)))

    def equals_run(self, folder: Path) -> bool:
        """Tell whether a run has the same weights and metrics, to the last bit, and whole predictions."""
        same = weights(folder / "last.ckpt") == self.weights and self.equals_test(folder)
        return same and (folder / "best.ckpt").is_file()

    def equals_test(self, folder: Path) -> bool:
        """Tell whether a test has the same metrics and predictions."""
        names = [f"predictions_{view}.h5ad" for view in TEST_VIEWS]
        same = all(cells_of(folder / name) == cells_of(self.folder / RUN / name) for name in names)
        return same and (folder / "metrics.json").read_text() == self.metrics


def weights(path: Path) -> dict[str, bytes]:
    """Read the weights of a checkpoint as bytes."""
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


def cells_of(path: Path) -> bytes:
    """Read predicted values as bytes."""
    return np.asarray(anndata.read_h5ad(path).X).tobytes()


def half_written(folder: Path) -> list[str]:
    """Name the files below a folder that are not whole, and leftovers."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".ckpt":
                load_checkpoint(path)
            elif path.suffix == ".h5ad":
                cells_of(path)
            elif path.suffix == ".h5" and "truth" not in path.name:
                Store(path)
            elif re.search(r"\.part(\.rows)?$", path.name):
                raise InputError("left over")
        except (OSError, ValueError, KeyError):
            found.append(path.name)
    return found


def resume(folder: Path, place: str) -> Ended:
    """Go on with a run that was killed, as its message says, or start it again where there is no checkpoint yet."""
    if (folder / place / "last.ckpt").is_file():
        return run("train", [f"ckpt_path={place}/last.ckpt"], folder)
    whole = (folder / place).resolve()  # of a link
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    return run("train", [*TRAIN, f"hydra.run.dir={place}"], folder)
