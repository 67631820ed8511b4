"""Bases around CpGs, from the FASTA of a genome or from one with a record a probe, and the check that they stand on CG.

A window is even: window/2 − 1 bases, C, G, window/2 − 1 bases, all on the + strand. Lower case is read as upper case;
N, other letters and what lies beyond the end of a chromosome become N.

Legend: C CpGs, L bases of a window, O offsets −1, 0, +1.
"""

import errno
import gzip
import logging
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyfaidx
import rich.progress
from rich.console import Console

from methyl_lightning.sources.annotation import chromosome
from methyl_lightning.store import ALPHABET, InputError, encode_sequences

log = logging.getLogger(__name__)

CYTOSINE, GUANINE, UNKNOWN = (ALPHABET.index(letter) for letter in "CGN")
COMPLEMENT = np.array([ALPHABET.index(letter) for letter in "TGCAN"], dtype=np.uint8)
OFFSETS = (-1, 0, 1)
MAJORITY = 0.5  # more than this share of the positions must stand on CG
CHUNK = 8_192  # windows held as text at a time


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
    console = Console(stderr=True)
    title = f"unpacking {path.name}"
    try:
        with (
            rich.progress.open(path, "rb", description=title, console=console, disable=not console.is_terminal) as raw,
            gzip.GzipFile(fileobj=raw) as unzipped,
            text.open("wb") as file,
        ):
            shutil.copyfileobj(unzipped, file, 1 << 20)
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


def _cut(record: pyfaidx.FastaRecord, start: int, window: int) -> str:
    bases = record[max(start, 0) : start + window]
    return ("N" * max(-start, 0) + bases).ljust(window, "N")


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
    for first in range(0, len(cpgs), CHUNK):
        some = cpgs[first : first + CHUNK]
        sequence_CL[first : first + CHUNK] = encode_sequences([_centre(probes, cpg, window) for cpg in some])
    return sequence_CL


def _centre(probes: Fasta, cpg: str, window: int) -> str:
    if cpg not in probes.records:
        remedy = "add it or remove the probe from the methylation table"
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


def refuse_wrong_positions(
    genome: Fasta, probe_map: Path, cpgs: pd.DataFrame, centres: Centres, base: int, minus: str = "C"
) -> None:
    """Refuse a probe map of which not more than half stands on CG, and name what is likely wrong with it.

    The counts of a map that is right go to the log.

    Parameters
    ----------
    genome, probe_map
        The files, for the message.
    cpgs
        Columns id, chrom, position and strand (of the probe map, "" unknown).
    centres
        Of the windows of these CpGs in the genome.
    base, minus
        As given to :func:`methyl_lightning.sources.annotation.locate_cpgs`.

    Raises
    ------
    InputError
        If the positions lie on no chromosome of the genome, count from another base, give the G on one strand, or
        stand on CG no more than by chance (another assembly).
    """
    if not centres.known_C.any():
        asked = sorted(set(cpgs.loc[cpgs["position"] >= 0, "chrom"]))
        names = f"it has {', '.join(list(genome.records.keys())[:3])}, …, the map {', '.join(asked[:3])}, …"
        raise InputError(f"{genome.path}: no position of {probe_map} has bases in it ({names}); give the right genome")
    found = f"{probe_map}: {centres} in {genome.path.name}; "
    minus_C = (cpgs["strand"] == "-").to_numpy() & centres.known_C
    before, at, after = _shares(centres, centres.known_C)
    minus_before, _, minus_after = _shares(centres, minus_C)
    plus_at = _shares(centres, centres.known_C & ~minus_C)[1]
    if plus_at > MAJORITY and (minus_before if minus == "C" else minus_after) > MAJORITY:
        other = "G" if minus == "C" else "C"
        raise InputError(f"{found}on strand - it gives the position of the {other}: set probe_map_minus={other}")
    if at > MAJORITY:
        log.info(found.removesuffix("; "))
        return
    offset = -1 if before > MAJORITY else 1 if after > MAJORITY else 0
    if offset == 0:
        raise InputError(
            f"{found}not more than half are right: the map is of another assembly, get the one of the genome"
        )
    if base - offset in (0, 1):
        right = base - offset
        raise InputError(f"{found}the positions look {right}-based, not {base}-based: set probe_map_base={right}")
    raise InputError(f"{found}with probe_map_base={base} they are off by {-offset:+d}: give the position of the C")


def _shares(centres: Centres, of_C: np.ndarray) -> tuple[float, float, float]:
    before, at, after = centres.is_cg_CO[of_C].sum(axis=0) / max(of_C.sum(), 1)
    return before, at, after


def refuse_wrong_probes(path: Path, centres: Centres) -> None:
    """Refuse a FASTA of probes of which not more than half has CG in the centre; tell by how much it is off."""
    before, at, after = _shares(centres, np.ones(len(centres.known_C), dtype=bool))
    if at <= MAJORITY:
        shift = " one base before" if before > MAJORITY else " one base after" if after > MAJORITY else " not at"
        counts = f"the centre of {int(centres.on_cg_C.sum()):,} of {len(centres.known_C):,} records is CG"
        raise InputError(f"{path}: {counts}, it stands{shift} the centre; cut the records so that CG is in the middle")


def refuse_off_centre(path: Path, cpgs: list[str], sequence_CL: np.ndarray) -> None:
    """Refuse a sequence without C at window/2 − 1 and G after it."""
    on_cg_C = find_centres(sequence_CL).on_cg_C
    if not on_cg_C.all():
        cpg = cpgs[int(np.argmin(on_cg_C))]
        raise InputError(f"{path}: the centre of the sequence of {cpg!r} is not CG; mend it or remove the probe")


def reverse_complement(sequence_CL: np.ndarray) -> np.ndarray:
    """Read windows on the other strand; the CG stays in the centre."""
    return COMPLEMENT[sequence_CL[:, ::-1]]


def orient(sequence_CL: np.ndarray, genome_CL: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Turn windows of probes to the + strand where their reverse complement is what the genome says.

    Parameters
    ----------
    sequence_CL, genome_CL
        uint8 [C, L], of the probes and of the genome; N agrees with every letter.

    Returns
    -------
    tuple
        The turned windows, and how many are on the + strand, were turned, agree on neither strand, and have no
        bases to compare. The last two kinds are left as they are.
    """
    unknown_CL = (sequence_CL == UNKNOWN) | (genome_CL == UNKNOWN)
    turned_CL = reverse_complement(sequence_CL)
    unknown_turned_CL = (turned_CL == UNKNOWN) | (genome_CL == UNKNOWN)
    known_C = ~unknown_CL.all(axis=1)
    forward_C = known_C & ((sequence_CL == genome_CL) | unknown_CL).all(axis=1)
    reverse_C = known_C & ~forward_C & ((turned_CL == genome_CL) | unknown_turned_CL).all(axis=1)
    counts = {
        "forward": int(forward_C.sum()),
        "turned": int(reverse_C.sum()),
        "different": int((known_C & ~forward_C & ~reverse_C).sum()),
        "not_compared": int((~known_C).sum()),
    }
    return np.where(reverse_C[:, None], turned_CL, sequence_CL), counts
