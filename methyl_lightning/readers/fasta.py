"""Bases around CpGs, from the FASTA of a genome or from one with a record a probe, and the check that they stand on CG.

A window is even: window/2 − 1 bases, C, G, window/2 − 1 bases, all on the + strand. Lower case is read as upper case;
N, other letters and what lies beyond the end of a chromosome become N.

Legend: C CpGs, L bases of a window, O offsets −1, 0, +1.
"""

import errno
import gzip
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyfaidx

from methyl_lightning.data.store import ALPHABET, encode_sequences
from methyl_lightning.files import InputError
from methyl_lightning.readers.probes import chromosome, plain_name
from methyl_lightning.readers.progress import shown

log = logging.getLogger(__name__)

CYTOSINE, GUANINE, UNKNOWN = (ALPHABET.index(letter) for letter in "CGN")
OFFSETS = (-1, 0, 1)
MAJORITY = 0.5  # more than this share of the positions must stand on CG
CHUNK = 8_192  # windows held as text at a time
COPIED_BYTES = 1 << 20


class Fasta(NamedTuple):
    """An indexed FASTA file.

    Attributes
    ----------
    path
        The file as it was named.
    records
        The index of pyfaidx, by the first word of each record's name.
    chromosomes
        Record of each chromosome, ``chr1`` … ``chrX``, ``chrM``, however the file names it.
    """

    path: Path
    records: pyfaidx.Fasta
    chromosomes: dict[str, str]

    def lengths(self) -> dict[str, int]:
        """Count the bases of each chromosome."""
        return {chrom: len(self.records[name]) for chrom, name in self.chromosomes.items()}


class Centres(NamedTuple):
    """Where CG stands around the positions of CpGs.

    Attributes
    ----------
    known_C
        bool [C]; the two bases at the position are in the FASTA and are not N.
    is_cg_CO
        bool [C, 3]; CG begins one base before the position, at it, one base after it.
    """

    known_C: np.ndarray
    is_cg_CO: np.ndarray

    @property
    def on_cg_C(self) -> np.ndarray:
        """Tell for each CpG whether its position stands on CG (bool [C])."""
        return self.is_cg_CO[:, OFFSETS.index(0)]

    @property
    def off_cg_C(self) -> np.ndarray:
        """Tell for each CpG whether other bases than CG stand there; false where none is known (bool [C])."""
        return self.known_C & ~self.on_cg_C

    @property
    def shift(self) -> int | None:
        """Offset at which more than half of the positions with known bases have CG; None where none has."""
        share_O = self.shares(self.known_C)
        return next((offset for offset, share in zip(OFFSETS, share_O, strict=True) if share > MAJORITY), None)

    def shares(self, of_C: np.ndarray) -> tuple[float, float, float]:
        """Compute the share of some positions (bool [C]) that have CG at each offset."""
        before, at, after = self.is_cg_CO[of_C].sum(axis=0) / max(of_C.sum(), 1)
        return before, at, after

    def counts(self) -> dict[str, int]:
        """Count the positions with known bases, and those with CG at each offset, in plain JSON."""
        n_O = self.is_cg_CO[self.known_C].sum(axis=0)
        matches = {
            f"cg_at_{offset:+d}" if offset else "cg_at_0": int(n) for offset, n in zip(OFFSETS, n_O, strict=True)
        }
        return {"positions_with_bases": int(self.known_C.sum()), **matches}

    def __str__(self) -> str:
        """Say the counts in words."""
        n, *n_O = self.counts().values()
        return f"CG is found at offset -1, 0, +1 of {', '.join(f'{count:,}' for count in n_O)} of {n:,} positions"


@contextmanager
def open_fasta(path: Path) -> Iterator[Fasta]:
    """Open a FASTA file, plain or ``.gz`` (bgzip included), for the time of a ``with`` block.

    The index, and the text of a gzip file, lie in a temporary folder (``TMPDIR``); nothing is written beside the input.

    Raises
    ------
    InputError
        If the file cannot be read, is no FASTA, names a record twice, or its text doesn't fit the temporary folder.
    """
    with TemporaryDirectory() as folder:
        text = Path(folder, "sequences.fa") if path.suffix in (".gz", ".bgz") else path
        if text != path:
            _unpack(path, text)
        try:
            records = pyfaidx.Fasta(str(text), indexname=str(Path(folder, "index.fai")), as_raw=True)
        except (pyfaidx.FastaIndexingError, OSError, ValueError) as error:
            raise InputError(f"{path}: no FASTA file with each record once ({error}); mend or replace it") from error
        with records:
            names = list(records.keys())
            yield Fasta(path, records, {chromosome(name): name for name in names} | {name: name for name in names})


def _unpack(path: Path, text: Path) -> None:
    try:
        with (
            path.open("rb") as raw,
            gzip.GzipFile(fileobj=raw) as unzipped,
            text.open("wb") as file,
            shown(f"unpacking {path.name}", path.stat().st_size / 1e6, "MB") as tell,
        ):
            place = 0
            while block := unzipped.read(COPIED_BYTES):
                file.write(block)
                place, before = raw.tell(), place
                tell((place - before) / 1e6)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(
                f"{path}: no room to unpack it in {text.parent}; name a larger folder in TMPDIR"
            ) from error
        raise InputError(f"{path}: cannot be read ({error}); check the name or get the file again") from error


def genome_windows(genome: Fasta, cpgs: pd.DataFrame, window: int) -> np.ndarray:
    """Cut the window around each CpG out of a genome.

    Parameters
    ----------
    genome
        Opened with :func:`open_fasta`.
    cpgs
        Columns chrom and position (0-based, of the C on the + strand; −1 unknown), in any order.
    window
        Even number of bases.

    Returns
    -------
    numpy.ndarray
        uint8 [C, L], codes of ``ACGTN``; only N where the position is unknown or its chromosome isn't in the genome.
    """
    sequence_CL = np.full((len(cpgs), window), UNKNOWN, dtype=np.uint8)
    position_C = cpgs["position"].to_numpy()
    chrom_C = cpgs["chrom"].to_numpy()
    for chrom in np.unique(chrom_C.astype(str)):
        name = genome.chromosomes.get(chrom)
        if name is None:
            continue
        record = genome.records[name]
        known_C = np.flatnonzero((chrom_C == chrom) & (position_C >= 0) & (position_C < len(record)))
        for first in range(0, len(known_C), CHUNK):
            some_C = known_C[first : first + CHUNK]
            starts = (position_C[some_C] - (window // 2 - 1)).tolist()
            sequence_CL[some_C] = encode_sequences([_cut(record, start, window) for start in starts])
    return sequence_CL


def cpg_positions(genome: Fasta, chrom: str) -> np.ndarray | None:
    """Find every CpG of a chromosome: ascending positions of the C, int64; None where the genome lacks it."""
    name = genome.chromosomes.get(chrom)
    if name is None:
        return None
    record, found = genome.records[name], []
    for start in range(0, len(record), COPIED_BYTES):
        bases = np.frombuffer(record[start : start + COPIED_BYTES + 1].upper().encode("ascii"), dtype=np.uint8)
        found.append(start + np.flatnonzero((bases[:-1] == ord("C")) & (bases[1:] == ord("G"))))
    return np.concatenate(found)


def _cut(record: pyfaidx.FastaRecord, start: int, window: int) -> str:
    bases = record[max(start, 0) : start + window]
    return ("N" * max(-start, 0) + bases).ljust(window, "N")


def probe_records(probes: Fasta) -> dict[str, str]:
    """Name the record of each probe, with and without what follows the probe's plain name."""
    names = list(probes.records.keys())
    return {plain_name(name): name for name in reversed(names)} | {name: name for name in names}


def probe_windows(probes: Fasta, cpgs: list[str], window: int) -> np.ndarray:
    """Cut the window around the centre of each probe's record (C at k − 1 of 2k bases).

    Returns
    -------
    numpy.ndarray
        uint8 [C, L], codes of ``ACGTN``.

    Raises
    ------
    InputError
        If a probe has no record, or one that is odd or shorter than the window.
    """
    sequence_CL = np.empty((len(cpgs), window), dtype=np.uint8)
    record_of = probe_records(probes)
    for first in range(0, len(cpgs), CHUNK):
        some = cpgs[first : first + CHUNK]
        sequence_CL[first : first + CHUNK] = encode_sequences(
            [_centre(probes, record_of.get(cpg, cpg), window) for cpg in some]
        )
    return sequence_CL


def _centre(probes: Fasta, cpg: str, window: int) -> str:
    if cpg not in probes.records:
        remedy = "add it, remove the probe from the methylation table, or set partial_sequences=true"
        raise InputError(f"{probes.path}: no sequence of probe {cpg!r}; {remedy}")
    record = probes.records[cpg]
    start, odd = divmod(len(record) - window, 2)
    if start < 0 or odd:
        remedy = f"give an even number ≥ window, now {window}"
        raise InputError(f"{probes.path}: {cpg!r} has {len(record)} bases; {remedy}")
    return record[start : start + window]


def find_centres(sequence_CL: np.ndarray) -> Centres:
    """Look for CG in the centre of windows and one base to either side.

    Parameters
    ----------
    sequence_CL
        uint8 [C, L], codes of ``ACGTN``; L = 4 suffices, of L = 2 only the centre is known.
    """
    padded_CL = np.pad(sequence_CL, ((0, 0), (1, 1)), constant_values=UNKNOWN)
    first = padded_CL.shape[1] // 2 - 2
    centre_C4 = padded_CL[:, first : first + 4]
    is_cg_CO = (centre_C4[:, :-1] == CYTOSINE) & (centre_C4[:, 1:] == GUANINE)
    return Centres((centre_C4[:, 1:3] != UNKNOWN).all(axis=1), is_cg_CO)
