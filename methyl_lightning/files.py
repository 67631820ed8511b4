"""Files that appear under their name only when they are complete, and the error that a person can mend."""

import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST = 100  # bytes of a name in that of its temporary, of which a disk takes 255
_own: set[str] = set()  # temporaries of this process: any other with its number is of one that had it before


class InputError(ValueError):
    """Input that the person who typed the command can mend: names the thing, the place and the remedy in one line."""


@contextmanager
def replacing(path: Path, purpose: str = "file") -> Iterator[Path]:
    """Give a new file beside ``path`` that takes its place only when the block ends without an error.

    It is on the disk before it takes the name. What a killed process left of such a file is removed first.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with _beside(path, purpose) as temporary:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY  # nothing that lies there is written into
        os.close(os.open(temporary, flags, 0o666))
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def replacing_folder(path: Path, purpose: str = "folder") -> Iterator[Path]:
    """Give an empty folder that takes the name ``path`` only when the block ends without an error.

    Raises
    ------
    InputError
        If a file in it cannot be written, or ``path`` is there already.
    """
    with scratch_folder(path, purpose) as folder:
        yield folder
        for part in (*folder.iterdir(), folder):
            _sync(part)
        folder.rename(path)
        _sync(path.parent)


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
    name = f".{_short(path.name)}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(8)}.part{ending}"
    temporary = path.with_name(name)
    _own.add(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        yield temporary
    except OSError as error:
        told = re.search("error message = '(.*?)'", str(error))  # by HDF5, among addresses and times
        reason = told[1] if told else " ".join(str(error).split())
        raise InputError(f"{path}: {purpose} not written ({reason}); the former one, if any, stands") from error
    finally:
        _remove(temporary)
        _own.discard(name)


def _short(name: str) -> str:
    return os.fsencode(name)[:LONGEST].decode(errors="ignore")


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(part: Path) -> None:
    """Remove a file, a link or a folder, if it is there and may be removed."""
    with suppress(OSError):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink()


def _remove_stale(path: Path) -> None:
    """Remove the temporary files for ``path`` of processes of this host that are no more."""
    host = re.escape(socket.gethostname())
    stale = re.compile(rf"\.{re.escape(_short(path.name))}\.{host}\.(\d+)(\.[0-9a-f]+)?\.part(\.rows)?")
    for part in path.parent.iterdir():
        if (match := stale.fullmatch(part.name)) and part.name not in _own and not _is_another(int(match[1])):
            _remove(part)


def _is_another(pid: int) -> bool:
    """Tell whether a process runs that is not this one."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        return True
    return True
