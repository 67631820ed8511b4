"""What the commands share: where conf/ is, and errors in one line."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import hydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from methyl_lightning.files import InputError

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
    # the shell expands ~ only where a word begins with it
    sys.argv[1:] = [
        re.sub(r"^([\w.+]+=)~(?=/|$)", lambda start: start[1] + str(Path.home()), one) for one in sys.argv[1:]
    ]
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
    """Print the error as one line, or raise it again where it is nobody's input."""
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
