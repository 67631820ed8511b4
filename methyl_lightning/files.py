"""Files that appear under their name only when they are complete, and the error that a person can mend."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Input that the person who typed the command can mend: names the thing, the place and the remedy in one line."""


@contextmanager
def replacing(path: Path, purpose: str = "file") -> Iterator[Path]:
    """Give a temporary name beside ``path`` that takes its place only when the block ends without an error.

    What a killed process left under such a name is removed first.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _beside(path, purpose) as temporary:
        yield temporary
        temporary.replace(path)


@contextmanager
def scratch_folder(path: Path, purpose: str = "file") -> Iterator[Path]:
    """Give an empty folder beside ``path`` for what is too large for memory; it is removed when the block ends.

    Raises
    ------
    InputError
        If a file in it cannot be written.
    """
    with _beside(path, purpose, ".rows") as folder:
        folder.mkdir()
        yield folder


@contextmanager
def _beside(path: Path, purpose: str, ending: str = "") -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        yield temporary
    except OSError as error:
        raise InputError(f"{path}: {purpose} not written ({error}); the former one, if any, stands") from error
    finally:
        if path.parent.is_dir():
            _remove(temporary)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the temporary files for ``path`` of processes of this host that are no more."""
    stale = re.compile(rf"\.{re.escape(path.name)}\.{re.escape(socket.gethostname())}\.(\d+)\.part(\.rows)?")
    for part in path.parent.iterdir():
        if (match := stale.fullmatch(part.name)) and not _is_running(int(match[1])):
            _remove(part)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        return True
    return True
