"""Jobs of a sweep that differ in settings of their test alone train once: the first trains, the others take that."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from omegaconf import DictConfig, OmegaConf

import methyl_lightning
from methyl_lightning.command.run_folder import open_locked
from methyl_lightning.data.store import Store
from methyl_lightning.data.texts import SUMS
from methyl_lightning.files import InputError, replacing

NOTE = "training.json"  # in each run folder: where its checkpoint was trained
TRAININGS = ".trainings"  # in a sweep's folder: a lock and a note for each training
# what does not decide what is trained: names, places, and the test on diluted expression
NOT_DECIDING = ("name", "logger", "raw", "choices", "dilution")
NOT_DECIDING_DATA = ("store", "source", "download", "num_workers")  # the store itself decides instead
LIBRARIES = ("torch", "lightning", "numpy", "scikit-learn")
# what belongs to a job rather than to its training
OWN = ("config.yaml", NOTE, SUMS, ".*", "*.log", "dilution*", "table.md", "comparisons.csv", "wandb", "report*")


def refuse_processes(cfg: DictConfig) -> None:
    """Refuse a sweep whose jobs would start processes, as each of these would start the whole sweep again.

    Raises
    ------
    InputError
        If a job asks for more than one device; SLURM starts the processes itself.
    """
    one = cfg.trainer.devices in (1, "1") and cfg.trainer.get("num_nodes", 1) == 1
    if not one and not SLURMEnvironment.detect():
        raise InputError(
            f"--multirun with trainer.devices={cfg.trainer.devices}: each process of a job would start the whole sweep "
            "again; take one device a job (trainer=default), or a single run (trainer=ddp or torchrun) for each setting"
        )


def fingerprint(cfg: DictConfig, store: Store, requeued: bool = False) -> str:
    """Return the SHA-256 of the settings, the data and the code that decide what is trained.

    A job that was put back into its queue goes on to where it would have ended, so its checkpoint decides nothing.
    """
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    deciding = {name: value for name, value in settings.items() if name not in NOT_DECIDING}
    if requeued:
        deciding["ckpt_path"] = None
    deciding["data"] = {name: value for name, value in settings["data"].items() if name not in NOT_DECIDING_DATA}
    split_file, file = settings["data"]["split_file"], store.path.stat()
    deciding["split"] = split_file and Path(split_file).read_text()
    deciding["store"] = [str(store.path.resolve()), file.st_size, file.st_mtime_ns, store.attributes["provenance"]]
    deciding["libraries"] = [version(name) for name in LIBRARIES]
    digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode())
    for path in sorted(Path(methyl_lightning.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def trained_once(sweep: Path, key: str, folder: Path) -> Iterator[Path | None]:
    """Give the folder of the sweep's job that has had this training, or None to the job that is to have it.

    The others wait meanwhile. A job that fails leaves the training to the next.
    """
    (sweep / TRAININGS).mkdir(parents=True, exist_ok=True)
    note, place = sweep / TRAININGS / f"{key}.json", sweep / TRAININGS / f"{key}.lock"
    file = open_locked(place, wait=False)
    if file is None:
        print(f"{folder}: waits for another job, which has the same training", file=sys.stderr)
        file = open_locked(place, wait=True)
    try:
        former = sweep / json.loads(note.read_text())["folder"] if note.is_file() else None
        if former is not None and not (former / "metrics.json").is_file():
            former = None  # removed since
        yield former
        if former is None:
            _write(note, {"folder": os.path.relpath(folder, sweep)})
    finally:
        if file is not None:
            file.close()


def take_training(former: Path, folder: Path) -> None:
    """Take what another job has trained and tested into a run folder, without a second copy on the disk if possible."""
    shutil.copytree(
        former, folder, ignore=shutil.ignore_patterns(*OWN), copy_function=_link_or_copy, dirs_exist_ok=True
    )
    print(f"{folder}: checkpoint and test are those of {former}, which has the same training", flush=True)


def note_training(folder: Path, former: Path | None, key: str) -> None:
    """Write into a run folder where its checkpoint was trained, and the fingerprint of that training."""
    _write(folder / NOTE, {"trained_in": os.path.relpath(former or folder, folder), "fingerprint": key})


def _write(path: Path, content: dict[str, str]) -> None:
    with replacing(path, "note") as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)  # all files of a run are replaced, never written into
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
