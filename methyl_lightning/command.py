"""What the commands share: where conf/ is, the store that a configuration names, and errors in one line."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from methyl_lightning.check import describe, read_contents
from methyl_lightning.check_figure import store_page
from methyl_lightning.store import InputError, Store, replacing

FULL_ERROR, SHORT_ERROR = "HYDRA_FULL_ERROR", "METHYL_LIGHTNING_SHORT_ERROR"
# what Lightning says of things that are meant here, or advertises
EXPECTED_WARNINGS = (
    ".*Checkpoint directory .* exists and is not empty",
    ".*isinstance\\(treespec, LeafSpec\\).* is deprecated",
    ".*number of training batches .* is smaller than the logging interval",
    ".*does not have many workers which may be a bottleneck",
    ".*resuming from a checkpoint that ended before the epoch ended",  # our samplers go on in the middle of one
)


def conf_folder() -> Path:
    """Find conf/: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Run a task under Hydra; what a person can mend ends in one line on standard error and exit status 2.

    With ``HYDRA_FULL_ERROR=1`` in the environment the whole traceback is shown instead.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    if os.environ.get(FULL_ERROR) == "1" and SHORT_ERROR not in os.environ:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
        return

    @wraps(task)
    def guarded(cfg: DictConfig) -> None:
        try:
            task(cfg)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            _exit(error)

    os.environ[FULL_ERROR] = "1"  # Hydra then raises instead of printing several lines of its own
    os.environ[SHORT_ERROR] = "1"  # seen by the processes that trainer=ddp starts
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        _exit(error)
    except ValueError as error:  # from Hydra, which says neither which group nor what to do
        groups = [f"{folder.name}=null" for folder in conf_folder().iterdir() if folder.is_dir()]
        given = [argument for argument in sys.argv[1:] if argument.lstrip("+") in groups]
        if not given:
            raise
        _exit(InputError(f"{given[0]}: not an option of this group; --help lists them ({error})"))
    except BrokenPipeError:  # whoever read the output, ``head`` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _exit(error: Exception) -> None:
    """Print the error as one line, or raise it again where it is no one's input."""
    message = str(error)
    if isinstance(error, InstantiationException):
        from lightning.fabric.utilities.exceptions import MisconfigurationException  # slow to import, rarely needed

        cause = error.__cause__
        if not isinstance(cause, ValueError | TypeError | MisconfigurationException):
            raise error
        message = str(error if isinstance(cause, TypeError) else cause)  # a TypeError doesn't tell whose argument
    elif not isinstance(error, InputError):
        causes = [str(part) for part in (error, error.__cause__) if part]
        message = ". ".join(dict.fromkeys(causes)).replace("\n", "  ")
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def check_store(path: str) -> None:
    """Say what a store holds and draw it on one page beside the store, ``<store stem>.png``."""
    store = Store(path)
    contents = read_contents(store)
    print(describe(store, contents))
    page = store.path.with_suffix(".png")
    with replacing(page, "figure") as temporary:
        store_page(store, contents).savefig(temporary, format="png", dpi=150)
    print(f"{page}: its figure")


def download_files(data: DictConfig) -> None:
    """Fetch the public files that ``data.source`` reads."""
    if "download" not in data:
        raise InputError(f"download=true: data={data.name} names no public files; only data=tcga_brca_luad does")
    instantiate(data.download, _convert_="all")


def prepare_store(data: DictConfig) -> Store:
    """Make the store that ``data`` describes, taking the place of a former one, and say what it holds."""
    path = Path(data.store)
    print(f"preparing {path}", flush=True)
    instantiate(data.source, store=str(path), _convert_="all")
    store = Store(path)
    print(
        f"{path}: {len(store.cpgs):,} CpGs × {len(store.samples):,} samples, {len(store.genes):,} genes, "
        f"window {store.window}, assembly {store.attributes['assembly']}, {path.stat().st_size / 1e6:,.1f} MB",
        flush=True,
    )
    return store


def ensure_store(data: DictConfig) -> Store:
    """Open the store that ``data`` describes, or make it first where there is none.

    Raises
    ------
    InputError
        If the store was prepared with other settings than ``data.source`` has now.
    """
    if not Path(data.store).exists():
        return prepare_store(data)
    store = Store(data.store)
    asked: dict[str, Any] = OmegaConf.to_container(data.source, resolve=True)  # type: ignore[assignment]
    had = store.attributes["provenance"]["settings"]
    for name, value in asked.items():
        if name in had and json.loads(json.dumps(value)) != had[name]:
            raise InputError(
                f"{store.path}: was prepared with {name}={had[name]!r}, data.source.{name} is now {value!r}; "
                "run methyl_lightning.prepare with the same settings to replace it, or name another data.store"
            )
    return store
