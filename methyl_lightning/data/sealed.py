"""HDF5 files that end in the SHA-256 of all before it, and hold nothing that leads out of them.

HDF5 leaves alone what stands behind its own end until a file is written into; then it cuts that off, so that a store
that someone edits on purpose has no seal any more.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from methyl_lightning.data.rows import BLOCK_BYTES
from methyl_lightning.files import InputError

SEAL = b"\nmethyl_lightning SHA-256 "
SEAL_BYTES = len(SEAL) + 64
END_IN_SUPERBLOCK = {0: 40, 1: 44, 2: 28, 3: 28}  # by its version, where HDF5 writes how long the file is
MOST_EXPANDED = 1100  # times; deflate reaches 1032


class DamagedError(InputError):
    """A file whose bytes are not those that were written."""


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a new file for writing, and seal it when the block ends without an error."""
    try:
        with h5py.File(path, "w") as file:
            yield file
    except RuntimeError as error:  # as h5py calls a full disk that it meets while closing
        raise OSError(error) from error
    seal(path)


def seal(path: Path) -> None:
    """Append the checksum of what a file holds."""
    with path.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    with path.open("ab") as raw:
        raw.write(SEAL + digest.encode())


def check_seal(path: Path, remedy: str) -> None:
    """Read a whole file and compare it with its seal, where it has one.

    Raises
    ------
    DamagedError
        If a bit is another than when it was written.
    InputError
        If the seal is cut off.
    """
    with path.open("rb") as raw:
        head, size = raw.read(64), path.stat().st_size
        where = END_IN_SUPERBLOCK.get(int.from_bytes(head[8:9]), 0)
        if size == int.from_bytes(head[where : where + 8], "little"):
            return  # of a former version, or edited since
        digest, left = hashlib.sha256(), size - SEAL_BYTES
        raw.seek(0)
        while left > 0 and (block := raw.read(min(left, BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
        found = raw.read()
    if not found.startswith(SEAL):
        raise InputError(f"{path}: truncated or not an HDF5 file; {remedy}")
    if found != SEAL + digest.hexdigest().encode():
        raise DamagedError(f"{path}: damaged, its checksum is another; {remedy}")


def check_inside(file: h5py.File, remedy: str) -> None:
    """Refuse a file with parts in other files, or with declared sizes that its bytes cannot fill.

    Raises
    ------
    InputError
        Names the first such part.
    """
    size = Path(file.filename).stat().st_size

    def wrong(name: str, link: Any) -> str | None:  # h5py stops at the first that is not None
        if isinstance(link, h5py.ExternalLink):
            return f"{name} lies in another file, which is not opened"
        if not isinstance(link, h5py.HardLink) or file.get(name, getclass=True) is not h5py.Dataset:
            return None
        dataset = file[name]
        if dataset.external or dataset.is_virtual:
            return f"{name} lies in another file, which is not opened"
        if dataset.nbytes > size * (MOST_EXPANDED if dataset.chunks else 1):
            return f"{name} is declared as {dataset.shape}, more than the file can hold"
        return None

    if (reason := file.visititems_links(wrong)) is not None:
        raise InputError(f"{file.filename}: {reason}; {remedy}")
