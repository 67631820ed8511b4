"""A folder for each run: taken for good, so that two runs never write side by side."""

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any, ClassVar, cast

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from methyl_lightning.command.settings import as_override
from methyl_lightning.files import InputError, replacing

CONFIG = "config.yaml"
LOCK = ".lock"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as torchrun, Lightning and SLURM number the processes of a run
RUN_MARKS, SWEEP_MARKS = (CONFIG, "dilution.csv"), ("multirun.yaml",)  # files that only a run, or a sweep, writes


class RunFolder(Callback):
    """Hydra's callback that gives a run or a sweep a folder that no other has, and a run that goes on its own again.

    A folder is held by a lock that ends with the process, however it ends, and it stays the run's once there are
    settings in it. The name that was asked for gets a number where it is another run's.
    """

    held: ClassVar[list[IO[str]]] = []

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder before Hydra writes into it."""
        own = config.get("ckpt_path") and Path(str(config.ckpt_path)).parent
        if own and (own / CONFIG).is_file():
            with open_dict(config):
                if not _typed(config, "hydra.run.dir"):
                    config.hydra.run.dir = str(own)
                if Path(config.hydra.run.dir).resolve() == own.resolve():
                    config.hydra.output_subdir = None  # .hydra keeps what the run was started with
                    return
        if is_first_process():
            with open_dict(config):
                config.hydra.run.dir = str(self._free(Path(config.hydra.run.dir), RUN_MARKS))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Choose the folder of a sweep; its jobs are composed anew, so it becomes an override."""
        folder = Path(config.hydra.sweep.dir)
        free = self._free(folder, SWEEP_MARKS)
        if free != folder:
            with open_dict(config):
                config.hydra.sweep.dir = str(free)
                config.hydra.overrides.hydra.append(as_override("hydra.sweep.dir", str(free)))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Let go of the job's folder, which stays its own by what is in it."""
        release(Path(config.hydra.runtime.output_dir))

    def _free(self, folder: Path, marks: tuple[str, ...]) -> Path:
        names = _names(folder)
        name = next(names)
        try:
            while not take(name, marks):
                name = next(names)
        except OSError:  # Hydra meets it as well, and then says so
            return folder
        if name != folder:
            print(f"{folder}: belongs to another run; this one writes into {name}", file=sys.stderr)
        return name


def is_first_process() -> bool:
    """Tell whether this process is the only one of its run, or the one of several that writes."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def take_job_folder(folder: Path, goes_on: bool = False) -> None:
    """Take the folder of a job for which :class:`RunFolder` chose none: one of a sweep, or of a run that goes on.

    Raises
    ------
    InputError
        If another process writes into it, or it holds another run.
    """
    if not is_first_process() or any(_holds(file, folder) for file in RunFolder.held):
        return
    if not goes_on and has_run(folder):
        raise InputError(f"{folder}: holds another run; let hydra.sweep.subdir differ from job to job")
    if not take(folder, ()):
        raise InputError(f"{folder}: another process is writing this run; wait for its end")


def save_config(cfg: DictConfig, folder: Path) -> None:
    """Write the settings of a run into its folder, which is the run's from then on."""
    with replacing(folder / CONFIG, "settings") as temporary:
        OmegaConf.save(cfg, temporary, resolve=True)


def read_config(path: Path, needed: Iterable[str]) -> DictConfig:
    """Read the settings of a run, and nothing that would be run or resolved now: the folder may be a stranger's.

    Raises
    ------
    InputError
        If the file is missing or broken, lacks a setting, or refers to something outside it.
    """
    try:
        text = path.read_text()
        config = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path}: missing or broken; take a run folder with its {CONFIG}") from error
    if "${" in text:
        raise InputError(f"{path}: not written by methyl_lightning.train: ${{…}} in it is not resolved")
    for name in needed:
        if not isinstance(config, DictConfig) or OmegaConf.select(config, name) is None:
            raise InputError(f"{path}: not written by methyl_lightning.train: there is no {name} in it")
    return cast(DictConfig, config)


def has_run(folder: Path, marks: tuple[str, ...] = RUN_MARKS) -> bool:
    """Tell whether a folder is a run's."""
    return any((folder / mark).is_file() for mark in marks)


def take(folder: Path, marks: tuple[str, ...]) -> bool:
    """Take a folder for this process, unless another has it or it holds a mark, and tell whether that was possible."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open_locked(folder / LOCK, wait=False)
    if file is None:
        return False
    RunFolder.held.append(file)
    if has_run(folder, marks):
        release(folder)
        return False
    return True


def open_locked(path: Path, wait: bool) -> IO[str] | None:
    """Open a file that no other process has open this way, or return None; closed or killed, it is free again."""
    while True:
        file = open(path, "a", opener=_open_no_link)  # noqa: SIM115 - open as long as the folder is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # the former owner removed it in between


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def release(folder: Path | None = None) -> None:
    """Let go of a folder, or of all that this process has taken."""
    for file in [file for file in RunFolder.held if folder is None or _holds(file, folder)]:
        RunFolder.held.remove(file)
        Path(file.name).unlink(missing_ok=True)
        file.close()


def _holds(file: IO[str], folder: Path) -> bool:
    return Path(file.name).parent.resolve() == folder.resolve()


def _names(folder: Path) -> Iterator[Path]:
    """Name the folder that was asked for, then those with a number."""
    yield folder
    for number in count(2):
        yield folder.absolute().with_name(f"{folder.absolute().name}-{number}")


def _typed(config: DictConfig, name: str) -> bool:
    return any(str(text).startswith(f"{name}=") for text in config.hydra.overrides.hydra)
