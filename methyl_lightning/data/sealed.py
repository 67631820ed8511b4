"""HDF5 files that have their room before they are written, end in the SHA-256 of all before it, and lead nowhere else.

HDF5 can crash where it meets a full disk as it closes a file, so it meets none: what a file holds is described in
memory, then the disk gives room for all of it or refuses, and only then HDF5 opens it to fill it in.

HDF5 leaves alone what stands behind its own end until a file is written into; then it cuts that off, so that a store
that someone edits on purpose has no seal any more.
"""

import errno
import hashlib
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from methyl_lightning.data.rows import BLOCK_BYTES
from methyl_lightning.files import InputError

SEAL = b"\nmethyl_lightning SHA-256 "
SEAL_BYTES = len(SEAL) + 64
END_IN_SUPERBLOCK = {0: 40, 1: 44, 2: 28, 3: 28}  # by its version, where HDF5 writes how long the file is
ATTRIBUTES_BYTES = 1 << 16  # of those that come with the contents
CHUNK_ENTRY_BYTES = 128  # of the index of chunks, for each
MOST_EXPANDED = 1100  # times; deflate reaches 1032


class DamagedError(InputError):
    """A file whose bytes are not those that were written."""


@contextmanager
def new_hdf5(path: Path, describe: Callable[[h5py.File], object]) -> Iterator[h5py.File]:
    """Open a new file whose numbers can be filled in: the disk has room for all that was described.

    Parameters
    ----------
    path
        File to be written; HDF5 cuts off what room is left as it closes it.
    describe
        Writes texts and attributes, and declares large datasets by shape and type alone, into a file in memory.

    Raises
    ------
    OSError
        If the disk has less room; where the system cannot be asked for it, when the disk is full.
    """
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        describe(file)
        file.flush()
        described, n_bytes = file.id.get_file_image(), _bytes_to_fill(file)
    with path.open("wb") as raw:
        _ask_for_room(raw.fileno(), len(described) + n_bytes + ATTRIBUTES_BYTES)
        raw.write(described)
    del described
    try:
        with h5py.File(path, "r+") as file:  # whoever flushes it gives the room back
            yield file
    except RuntimeError as error:  # as h5py calls a full disk that it meets while closing
        raise OSError(error) from error


def _ask_for_room(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):  # not on macOS
        try:
            os.posix_fallocate(descriptor, 0, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # some file systems cannot be asked
                raise


def _bytes_to_fill(file: h5py.File) -> int:
    """Add up what datasets take that are declared and not yet written, as they are: whole, or in whole chunks."""
    n_bytes = 0

    def add(_: str, part: Any) -> None:
        nonlocal n_bytes
        if isinstance(part, h5py.Dataset) and part.size and part.id.get_storage_size() == 0:
            shape = part.chunks or part.shape
            n_chunks = math.prod(-(-size // of) for size, of in zip(part.shape, shape, strict=True))
            n_bytes += n_chunks * (math.prod(shape) * part.dtype.itemsize + CHUNK_ENTRY_BYTES)

    file.visititems(add)
    return n_bytes


@contextmanager
def sealed_hdf5(path: Path, describe: Callable[[h5py.File], object]) -> Iterator[h5py.File]:
    """Open a file as :func:`new_hdf5` does, and append its checksum when the block ends without an error."""
    with new_hdf5(path, describe) as file:
        yield file
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
