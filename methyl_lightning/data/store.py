"""The store: one HDF5 file a cohort, CpG-major, read by memory map.

A cohort is a grid of CpGs × samples. What describes a CpG (sequence, gene distances) and what describes a sample
(expression) is stored once. The large arrays are contiguous, so a row is one read, no lock and no chunk cache are
involved, and the page cache is shared between worker processes.

Axis letters: C CpGs, S samples, G genes, L bases.
"""

import hashlib
import json
import math
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np
import pandas as pd

from methyl_lightning.data.checks import (
    CPG_COLUMNS,
    DATASETS,
    GENE_COLUMNS,
    READS,
    SAMPLE_COLUMNS,
    SCHEMA_VERSION,
    check_store,
    dataset_digest,
)
from methyl_lightning.data.keys import chromosome_keys, cpg_keys
from methyl_lightning.data.rows import Rows, row_blocks
from methyl_lightning.data.sealed import sealed_hdf5
from methyl_lightning.files import InputError, replacing

ALPHABET = "ACGTN"
BETA_STEP = 1e-4
BETA_MISSING = 65535
MOST_READS = 255
UNKNOWN_POSITION = -1
ROWS_AT_ONCE = 512  # whose statistics are taken together: a few megabytes, near the processor

AROUND_BP = (100, 300, 1_000, 3_000, 10_000, 50_000)
ANNOTATION = (
    *("island", "shore", "shelf", "open_sea", "island_log_bp", "island_log_length", "near_island"),
    *(f"log_probes_{reach}" for reach in AROUND_BP),
    *(f"log_cpgs_{reach}" for reach in AROUND_BP),
)


class Distances(NamedTuple):
    """Gene distances of consecutive CpGs as compressed rows.

    Attributes
    ----------
    indptr_C
        int64 [C + 1]; the genes of CpG ``c`` are entries ``indptr_C[c]:indptr_C[c + 1]``.
    gene_N
        int32 [N], index of the gene.
    bp_N
        int32 [N], gene position − CpG position in base pairs.
    """

    indptr_C: np.ndarray
    gene_N: np.ndarray
    bp_N: np.ndarray

    def rows(self, index_C: np.ndarray) -> "Distances":
        """Select CpGs, in the order given."""
        lengths = np.diff(self.indptr_C)[index_C]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entry = np.repeat(self.indptr_C[:-1][index_C] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Distances(indptr, self.gene_N[entry], self.bp_N[entry])


def encode_beta(beta: np.ndarray) -> np.ndarray:
    """Turn beta values (0…1, NaN missing) into uint16 steps of 1e-4 (65535 missing)."""
    steps = np.rint(beta / BETA_STEP)
    return np.where(np.isnan(steps), BETA_MISSING, steps).astype(np.uint16)


def decode_beta(steps: np.ndarray) -> np.ndarray:
    """Turn stored steps into float32 beta values, missing ones NaN."""
    beta = steps.astype(np.float32)
    beta *= np.float32(BETA_STEP)
    beta[steps == BETA_MISSING] = np.nan
    return beta


def encode_sequences(sequences: list[str]) -> np.ndarray:
    """Turn equally long strings into uint8 [C, L] codes of ``ACGTN``; every other letter becomes N."""
    table = np.full(256, ALPHABET.index("N"), dtype=np.uint8)
    for code, letter in enumerate(ALPHABET):
        table[ord(letter)] = table[ord(letter.lower())] = code
    return table[np.frombuffer("".join(sequences).encode("ascii"), dtype=np.uint8)].reshape(len(sequences), -1)


def _blocks(matrix: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    n_rows, *columns = matrix.shape
    for rows in row_blocks(n_rows, 4 * math.prod(columns)):
        yield rows, matrix[rows]


def _write_rows(dataset: h5py.Dataset, blocks: Iterator[tuple[slice, np.ndarray]]) -> None:
    """Write blocks of rows one after the other into a contiguous dataset, and the checksum of its bytes."""
    digest = hashlib.sha256()
    for rows, block in blocks:
        values = np.ascontiguousarray(block, dtype=dataset.dtype)
        dataset[rows] = values
        digest.update(values.data)
    dataset.attrs["sha256"] = digest.hexdigest()


def _steps(path: Path, cpgs: pd.DataFrame, samples: pd.DataFrame, beta_CS: Rows) -> Iterator[tuple[slice, np.ndarray]]:
    """Encode blocks of beta values and refuse a value outside 0…1; blocks of uint16 are steps already."""
    for rows, block_CS in _blocks(beta_CS):
        if block_CS.dtype == np.uint16:
            yield rows, block_CS
            continue
        with np.errstate(invalid="ignore"):
            outside = (block_CS < 0) | (block_CS > 1)
        if outside.any():
            c, s = np.argwhere(outside)[0]
            raise InputError(
                f"{path}: beta of CpG {cpgs['id'].iloc[rows.start + c]!r}, sample {samples['id'].iloc[s]!r} "
                f"is {block_CS[c, s]:g}, outside 0…1; convert the values to beta"
            )
        yield rows, encode_beta(block_CS)


def write_store(
    path: str | Path,
    *,
    cpgs: pd.DataFrame,
    sequence_CL: Rows,
    genes: pd.DataFrame,
    samples: pd.DataFrame,
    distances: Distances,
    expression_SG: np.ndarray,
    beta_CS: Rows,
    units: str,
    assembly: str,
    provenance: Mapping[str, Any],
    annotation_CP: np.ndarray | None = None,
    reads_CS: np.ndarray | None = None,
) -> None:
    """Write a complete store, or nothing.

    Parameters
    ----------
    path
        Final name; it is taken only when everything has been written.
    cpgs, genes, samples
        Tables with the columns of ``CPG_COLUMNS``, ``GENE_COLUMNS``, ``SAMPLE_COLUMNS``; positions 0-based.
    sequence_CL
        uint8 [C, L], codes of ``ACGTN``; read and written block by block of rows.
    distances
        One row a CpG.
    expression_SG
        float32 [S, G], finite.
    beta_CS
        float [C, S] in 0…1, NaN where missing, or uint16 steps as in the store; read and written block by block.
    units
        What the expression values are, for example ``log2(norm+1)``.
    assembly
        Genome assembly of every position in the file.
    provenance
        Plain JSON: source names, sizes, checksums, settings.
    annotation_CP
        float32, the columns of ``ANNOTATION``, NaN where unknown (default: nothing is known).
    reads_CS
        uint8 [C, S], of beta that was called from so many reads of sequencing each, 255 where there are more.

    Raises
    ------
    InputError
        If ids repeat, expression is not finite, or beta leaves 0…1.
    """
    path = Path(path)
    for name, table, key in (("CpG", cpgs, "id"), ("gene", genes, "id"), ("sample", samples, "id")):
        repeated = table[key][table[key].duplicated()]
        if len(repeated):
            raise InputError(f"{path}: {name} id {repeated.iloc[0]!r} occurs twice; keep one of the rows")
    if not np.isfinite(expression_SG).all():
        s, g = np.argwhere(~np.isfinite(expression_SG))[0]
        raise InputError(
            f"{path}: expression of sample {samples['id'].iloc[s]!r}, gene {genes['id'].iloc[g]!r} "
            "is not a finite number; remove the gene or fill the value"
        )
    n_cpgs, window = sequence_CL.shape
    if annotation_CP is None:
        annotation_CP = np.full((n_cpgs, len(ANNOTATION)), np.nan, dtype=np.float32)
    matrices: dict[str, Rows] = {
        "cpgs/sequence": sequence_CL,
        "cpgs/annotation": annotation_CP,
        "distances/indptr": distances.indptr_C,
        "distances/gene": distances.gene_N,
        "distances/bp": distances.bp_N,
        "expression": expression_SG,
        "beta": beta_CS,
    }
    if reads_CS is not None:
        matrices["reads"] = reads_CS

    def describe(file: h5py.File) -> None:
        for name, table, columns in (
            ("cpgs", cpgs, CPG_COLUMNS),
            ("genes", genes, GENE_COLUMNS),
            ("samples", samples, SAMPLE_COLUMNS),
        ):
            group = file.create_group(name)
            for column, kind in columns.items():
                values = table[column]
                group[column] = (
                    values.astype(str).to_numpy(dtype=h5py.string_dtype()) if kind is str else values.to_numpy(kind)
                )
                group[column].attrs["sha256"] = dataset_digest(group[column])
        for name, matrix in matrices.items():
            file.create_dataset(name, matrix.shape, (DATASETS | READS)[name][0])
        file["expression"].attrs["units"] = units
        file.attrs.update(
            schema_version=SCHEMA_VERSION,
            assembly=assembly,
            window=window,
            provenance=json.dumps(dict(provenance), sort_keys=True),
        )

    with replacing(path, "store") as temporary, sealed_hdf5(temporary, describe) as file:
        for name, matrix in matrices.items():
            _write_rows(file[name], _steps(path, cpgs, samples, matrix) if name == "beta" else _blocks(matrix))
        file.attrs["complete"] = True


class Store:
    """A complete store, opened for reading when first used and once in each process.

    Parameters
    ----------
    path
        File written by :func:`write_store`.

    Raises
    ------
    InputError
        If the file does not exist, is not a store, is truncated, incomplete or of another schema version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{self.path}: no such store; make it with python -m methyl_lightning.prepare")
        check_store(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # handles and maps never cross a process border

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Read the root attributes, the provenance parsed, and the units of the expression."""
        with h5py.File(self.path, "r") as file:
            attributes = {
                key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
            }
            attributes["units"] = file["expression"].attrs["units"]
        attributes["provenance"] = json.loads(attributes["provenance"])
        return attributes

    def _table(self, name: str, columns: Mapping[str, type]) -> pd.DataFrame:
        with h5py.File(self.path, "r") as file:
            group = file[name]
            return pd.DataFrame(
                {
                    column: group[column].asstr()[:] if kind is str else group[column][:]
                    for column, kind in columns.items()
                }
            )

    @cached_property
    def cpgs(self) -> pd.DataFrame:
        """Read each CpG's id, chrom, position (0-based, of the C; −1 unknown), island (relation to it, "" unknown)."""
        return self._table("cpgs", CPG_COLUMNS)

    @cached_property
    def cpg_key_C(self) -> np.ndarray:
        """Return one int64 a CpG, the hash of its id: a CpG has the same key in every store."""
        return cpg_keys(self.cpgs["id"])

    @cached_property
    def chrom_key_C(self) -> np.ndarray:
        """Return one int64 a CpG, the hash of its chromosome's name, −1 where it is unknown."""
        return chromosome_keys(self.cpgs["chrom"])

    @cached_property
    def position_C(self) -> np.ndarray:
        """Return the position of each CpG, int64, −1 where it is unknown."""
        return self.cpgs["position"].to_numpy(np.int64)

    @property
    def annotation_CP(self) -> np.ndarray:
        """Map the annotation anew: float32 [C, P], the columns of ``ANNOTATION``, NaN where unknown."""
        return self._map("cpgs/annotation")

    @cached_property
    def genes(self) -> pd.DataFrame:
        """Read symbol, id, chrom, start, end and strand of each gene."""
        return self._table("genes", GENE_COLUMNS)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Read id, patient, cohort and tissue_type of each sample."""
        return self._table("samples", SAMPLE_COLUMNS)

    @cached_property
    def distances(self) -> Distances:
        """Read the distances of all CpGs into memory (a few genes each)."""
        with h5py.File(self.path, "r") as file:
            group = file["distances"]
            return Distances(group["indptr"][:], group["gene"][:], group["bp"][:])

    @cached_property
    def _file(self) -> BinaryIO:
        # kept open: whoever prepares the store again puts another file under its name
        file = self.path.open("rb")
        weakref.finalize(self, file.close)
        return file

    @cached_property
    def _layout(self) -> dict[str, dict[str, Any]]:
        with h5py.File(self._file, "r") as file:
            names = ("cpgs/sequence", "cpgs/annotation", "expression", "beta", "reads")
            matrices = {name: file[name] for name in names if name in file}
            return {
                name: {"offset": matrix.id.get_offset(), "dtype": matrix.dtype, "shape": matrix.shape}
                for name, matrix in matrices.items()
            }

    def _map(self, name: str) -> np.ndarray:
        # never kept: the pages that a reader touched stop counting as resident when its map goes
        return np.memmap(self._file, mode="r", **self._layout[name])

    @property
    def sequence_CL(self) -> np.ndarray:
        """Map uint8 [C, L] anew."""
        return self._map("cpgs/sequence")

    @property
    def expression_SG(self) -> np.ndarray:
        """Map float32 [S, G] anew."""
        return self._map("expression")

    @property
    def beta_steps_CS(self) -> np.ndarray:
        """Map uint16 [C, S] in steps of 1e-4, 65535 missing, anew."""
        return self._map("beta")

    @property
    def has_reads(self) -> bool:
        """Tell whether beta was called from reads of sequencing, few of them a cell."""
        return "reads" in self._layout

    def reads(self, cpg: np.ndarray, sample: np.ndarray) -> np.ndarray:
        """Read float32 numbers of reads at rows and columns, broadcast against each other."""
        return self._map("reads")[cpg, sample].astype(np.float32)

    def beta(self, cpg_C: np.ndarray, sample_S: np.ndarray) -> np.ndarray:
        """Read float32 [C, S] beta values, missing ones NaN."""
        return decode_beta(self.beta_steps_CS[cpg_C[:, None], sample_S[None, :]])

    def beta_pairs(self, cpg_N: np.ndarray, sample_N: np.ndarray) -> np.ndarray:
        """Read float32 [N], the beta values of the cells (cpg_N[n], sample_N[n]), missing ones NaN."""
        return decode_beta(self.beta_steps_CS[cpg_N, sample_N])

    def beta_moments(self, cpg_C: np.ndarray, sample_S: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute count, mean and sum of squared deviations of the measured cells of each CpG over samples: [C] each.

        Exact but for the last division, as the sums are of whole steps; the mean of no cell is NaN.
        """
        n_C, mean_C, square_C = np.zeros(len(cpg_C), dtype=np.int64), np.full(len(cpg_C), np.nan), np.zeros(len(cpg_C))
        for first in range(0, len(cpg_C), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            steps_CS = self.beta_steps_CS[cpg_C[rows]][:, sample_S]
            measured_CS = steps_CS != BETA_MISSING
            values_CS = np.where(measured_CS, steps_CS, 0).astype(np.float64)
            n_C[rows], sum_C = measured_CS.sum(axis=1), values_CS.sum(axis=1)
            np.divide(sum_C * BETA_STEP, n_C[rows], out=mean_C[rows], where=n_C[rows] > 0)
            squares_C = np.einsum("cs,cs->c", values_CS, values_CS)
            square_C[rows] = (squares_C - sum_C**2 / np.maximum(n_C[rows], 1)) * BETA_STEP**2
        return n_C, mean_C, square_C

    @property
    def window(self) -> int:
        """Return how many bases around each CpG are stored."""
        return int(self.attributes["window"])
