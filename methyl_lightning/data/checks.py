"""What is checked of a store before anything is read from it: that it is whole, as it was written, and all of one size.

Legend: C CpGs, S samples, G genes, N (CpG, gene) entries.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from methyl_lightning.data.rows import row_blocks
from methyl_lightning.data.sealed import DamagedError, check_inside, check_seal
from methyl_lightning.files import InputError

SCHEMA_VERSION = 3
REMEDY = "make it again with python -m methyl_lightning.prepare"
CPG_COLUMNS = {"id": str, "chrom": str, "position": np.int64, "island": str}
GENE_COLUMNS = {"symbol": str, "id": str, "chrom": str, "start": np.int64, "end": np.int64, "strand": str}
SAMPLE_COLUMNS = {"id": str, "patient": str, "cohort": str, "tissue_type": str}
# dataset → type of its values, and its axes; C1 is C + 1
DATASETS: dict[str, tuple[type, tuple[str, ...]]] = {
    **{f"cpgs/{column}": (kind, ("C",)) for column, kind in CPG_COLUMNS.items()},
    **{f"genes/{column}": (kind, ("G",)) for column, kind in GENE_COLUMNS.items()},
    **{f"samples/{column}": (kind, ("S",)) for column, kind in SAMPLE_COLUMNS.items()},
    "cpgs/sequence": (np.uint8, ("C", "window")),
    "cpgs/annotation": (np.float32, ("C", "P")),
    "distances/indptr": (np.int64, ("C1",)),
    "distances/gene": (np.int32, ("N",)),
    "distances/bp": (np.int32, ("N",)),
    "expression": (np.float32, ("S", "G")),
    "beta": (np.uint16, ("C", "S")),
}
READS = {"reads": (np.uint8, ("C", "S"))}  # of stores whose beta was called from sequencing


def datasets_of(file: h5py.File) -> dict[str, tuple[type, tuple[str, ...]]]:
    """List the datasets of a store, with those that it need not have but has."""
    return DATASETS | (READS if "reads" in file else {})


def check_store(path: Path) -> None:
    """Check a store as a whole, once in each process as long as the file stays the same.

    Raises
    ------
    InputError
        If it is not a store, incomplete, damaged, of another schema version, or leads out of its file.
    """
    file = path.stat()
    _check_once(path, file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)


@cache
def _check_once(path: Path, *identity: int) -> None:
    try:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("schema_version")
            complete = bool(file.attrs.get("complete", False))
    except OSError as error:
        raise InputError(f"{path}: truncated or not an HDF5 file; {REMEDY}") from error
    if not complete or version is None:
        raise InputError(f"{path}: not a complete methyl_lightning store; {REMEDY}")
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}; {REMEDY}")
    try:
        check_seal(path, REMEDY)
        with h5py.File(path, "r") as file:
            check_inside(file, REMEDY)
            _check_layout(path, file)
    except DamagedError as error:
        raise InputError(f"{path}: {_damaged_part(path)} is damaged, its checksum is another; {REMEDY}") from error
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # of h5py, where it meets no HDF5
        raise InputError(f"{path}: damaged ({' '.join(str(error).split())}); {REMEDY}") from error


def _check_layout(path: Path, file: h5py.File) -> None:
    """Refuse a store that lacks a dataset, or whose datasets do not fit each other."""
    sizes: dict[str, tuple[int, str]] = {"window": (int(file.attrs["window"]), "the attribute window")}
    for name, (kind, axes) in datasets_of(file).items():
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path}: has no {name}; {REMEDY}")
        is_text = h5py.check_string_dtype(dataset.dtype) is not None
        if is_text != (kind is str) or not (is_text or dataset.dtype == kind) or dataset.ndim != len(axes):
            raise InputError(f"{path}: {name} is {dataset.dtype} {dataset.shape}, as none is written; {REMEDY}")
        if dataset.size and dataset.id.get_offset() is None:
            raise InputError(f"{path}: {name} is in chunks or was never written; {REMEDY}")
        for axis, size in zip(axes, dataset.shape, strict=True):
            axis, size = ("C", size - 1) if axis == "C1" else (axis, size)
            expected, of = sizes.setdefault(axis, (size, name))
            if size != expected:
                raise InputError(f"{path}: {name} has {size:,} rows or columns, {of} {expected:,}; {REMEDY}")
    json.loads(file.attrs["provenance"])
    str(file.attrs["assembly"]), str(file["expression"].attrs["units"])
    indptr_C1, gene_N = file["distances/indptr"][:], file["distances/gene"][:]
    if indptr_C1[0] != 0 or indptr_C1[-1] != len(gene_N) or (np.diff(indptr_C1) < 0).any():
        raise InputError(f"{path}: distances/indptr does not count its entries; {REMEDY}")
    if len(gene_N) and not 0 <= gene_N.min() <= gene_N.max() < sizes["G"][0]:
        raise InputError(f"{path}: distances/gene names genes that are not there; {REMEDY}")


def _damaged_part(path: Path) -> str:
    """Name the first dataset that is not what was written."""
    try:
        with h5py.File(path, "r") as file:
            for name in datasets_of(file):
                try:
                    if file[name].attrs["sha256"] != dataset_digest(file[name]):
                        return name
                except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError):
                    return name
    except OSError:
        pass
    return "its description of the data"


def dataset_digest(dataset: h5py.Dataset) -> str:
    """Compute the SHA-256 of what a dataset holds, of text that of its words."""
    digest = hashlib.sha256()
    if h5py.check_string_dtype(dataset.dtype) is not None:
        digest.update(json.dumps(dataset.asstr()[:].tolist()).encode())
        return digest.hexdigest()
    for rows in row_blocks(len(dataset), dataset.nbytes // max(len(dataset), 1)):
        digest.update(np.ascontiguousarray(dataset[rows]).data)
    return digest.hexdigest()
