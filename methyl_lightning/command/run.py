"""What the commands share: where conf/ is, errors in one line, and what a signal does."""

import errno
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from methyl_lightning.command.run_folder import is_first_process, release
from methyl_lightning.command.settings import as_argument
from methyl_lightning.files import InputError

# what a person can mend who meets them on a disk
DISK_ERRORS = {
    errno.EACCES: "name a folder that you may write into",
    errno.EPERM: "name a folder that you may write into",
    errno.EROFS: "name a folder that you may write into",
    errno.ENOTDIR: "name a folder, not what is in a file",
    errno.EEXIST: "name a folder, not a file",
    errno.ELOOP: "remove the link that lies there",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
}
PLUGINS = {"joblib": "hydra-joblib-launcher", "submitit": "hydra-submitit-launcher"}  # of Hydra, for launchers
FULL = (errno.ENOSPC, errno.EDQUOT)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FULL_ERROR, SHORT_ERROR = "HYDRA_FULL_ERROR", "METHYL_LIGHTNING_SHORT_ERROR"
# a missing font is drawn in another
QUIET = {"lightning.pytorch": logging.WARNING, "matplotlib": logging.WARNING, "matplotlib.font_manager": logging.ERROR}
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
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


class Stopped(BaseException):
    """A signal has asked this command to end.

    Attributes
    ----------
    advice
        How to go on; the command that was running may say so.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number, self.advice = number, f"start again with: {typed_command()}"


def typed_command() -> str:
    """Write the command that runs, as it was typed."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {main.name.removesuffix('.__main__')}" if main else shlex.quote(sys.argv[0])
    return " ".join([program, *map(shlex.quote, sys.argv[1:])])


def run_command(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Run a task under Hydra; what a person can mend ends in one line on standard error and exit status 2.

    SIGTERM and Ctrl-C end it in one line, too, with 128 + the signal's number. With ``HYDRA_FULL_ERROR=1`` in the
    environment the whole traceback is shown instead.
    """
    # the shell expands ~ only where a word begins with it
    sys.argv[1:] = [
        re.sub(r"^([\w.+]+=)~(?=/|$)", lambda start: start[1] + str(Path.home()), one) for one in sys.argv[1:]
    ]
    _quiet()
    try:
        with _signals_raise():
            _run(task, config_name)
    except Stopped as stop:
        if is_first_process():
            print(f"stopped by {signal.Signals(stop.number).name}; {stop.advice}", file=sys.stderr)
        sys.exit(128 + stop.number)
    finally:
        release()


def _run(task: Callable[[DictConfig], None], config_name: str) -> None:
    if os.environ.get(FULL_ERROR) == "1" and SHORT_ERROR not in os.environ:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(task)()
        return

    @wraps(task)
    def guarded(cfg: DictConfig) -> None:
        _quiet()  # again, as a launcher may have started this process
        try:
            task(cfg)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read the output, ``head`` for one, has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            _exit(error)

    os.environ[FULL_ERROR] = "1"  # Hydra then raises instead of printing several lines of its own
    os.environ[SHORT_ERROR] = "1"  # seen by the processes that trainer=ddp starts
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException) as error:
        _exit(error)
    except ValueError as error:  # from Hydra, which says neither which group nor what to do
        groups = "|".join(folder.name for folder in conf_folder().iterdir() if folder.is_dir())
        given = [one for one in sys.argv[1:] if re.fullmatch(rf"\+?({groups})=(null|true|false|[\d.]+)", one)]
        if not given:
            raise
        _exit(InputError(f"{given[0]}: not an option of this group; --help lists them ({error})"))
    except OSError as error:
        if error.errno not in DISK_ERRORS or (error.filename is None and error.errno not in FULL):
            raise
        place = error.filename or "the disk of the run"  # writing into an open file names none
        _exit(InputError(f"{place}: {error.strerror}; {DISK_ERRORS[error.errno]} (hydra.run.dir=FOLDER)"))


def _quiet() -> None:
    """Leave out what libraries say of things that are meant, or that nobody can mend."""
    sys.excepthook, sys.unraisablehook = _show_error, _show_unraisable
    logging.raiseExceptions = False  # a log that a full disk does not take
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def _show_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not _of_a_closed_file(error):
        sys.__excepthook__(kind, error, traceback)


def _show_unraisable(unraisable: Any) -> None:
    if not _of_a_closed_file(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _of_a_closed_file(error: BaseException | None) -> bool:
    """Tell whether h5py says again, of every object of a file, that the disk was full: once is enough."""
    return isinstance(error, RuntimeError) and str(error).startswith("Can't decrement id ref count")


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C raise :class:`Stopped`, wherever the program is; every file is written so that it may."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising :class:`Stopped`; a second one must not disturb the end."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def _exit(error: Exception) -> None:
    """Print the error as one line, or raise it again where it is nobody's input."""
    message = str(error)
    if isinstance(error, InstantiationException):
        from lightning.fabric.utilities.exceptions import MisconfigurationException  # slow to import, rarely needed

        cause = error.__cause__
        if not isinstance(cause, ValueError | TypeError | MisconfigurationException | None):
            raise error
        tells = isinstance(cause, ValueError | MisconfigurationException)  # a TypeError doesn't tell whose argument
        message = str(cause if tells else error)
    elif quoted := _in_quotes(error):
        message = quoted
    elif not isinstance(error, InputError):
        causes = [str(part) for part in (error, error.__cause__) if part]
        message = ". ".join(dict.fromkeys(causes)).replace("\n", "  ")
        if launcher := re.search(f"Could not find 'hydra/launcher/(({'|'.join(PLUGINS)})[^']*)'", message):
            message = f"hydra/launcher={launcher[1]}: needs a plugin; python -m pip install {PLUGINS[launcher[2]]}"
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _in_quotes(error: Exception) -> str | None:
    """Say how to type a value that Hydra's grammar reads otherwise, such as ``section (1).h5ad``."""
    if isinstance(error, OverrideParseException):
        argument = error.override
    elif match := re.match(r"Ambiguous value for argument '(.*?)'\n", str(error)):
        argument = match[1]
    else:
        return None
    name, equals, value = argument.partition("=")
    enclosed = value[:1] + value[-1:] in ("[]", "{}", "''", '""')  # meant as what Hydra reads
    if not equals or not re.fullmatch(r"[+~]{0,2}[\w.@/]+", name) or not value or enclosed:
        return None
    sweep = ", or sweep over its parts with --multirun" if "," in value else ""
    return f"{argument}: Hydra reads some characters otherwise; quote the value: {as_argument(name, value)}{sweep}"
