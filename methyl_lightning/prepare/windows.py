"""The sequences of a store: from a genome, block by block, or from a FASTA file with one record a probe.

Legend: C CpGs, L bases.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.store import ALPHABET
from methyl_lightning.files import InputError
from methyl_lightning.readers.fasta import (
    MAJORITY,
    UNKNOWN,
    Centres,
    Fasta,
    find_centres,
    genome_windows,
    open_fasta,
    probe_records,
    probe_windows,
)

log = logging.getLogger(__name__)
COMPLEMENT = np.array([ALPHABET.index(letter) for letter in "TGCAN"], dtype=np.uint8)
CENTRE = 4  # bases that tell where the CG is


class Windows(NamedTuple):
    """Sequences around CpGs.

    Attributes
    ----------
    read
        Gives uint8 [C, L] of the CpGs with these indices, for as long as the files are open.
    off_cg_C
        bool [C]; other bases than CG are known to stand there.
    counts
        What was found at the positions and among the probes, in plain JSON.
    genome
        The genome, for as long as it is open.
    """

    read: Callable[[np.ndarray], np.ndarray]
    off_cg_C: np.ndarray
    counts: dict[str, int]
    genome: Fasta | None = None


def open_windows(
    stack: ExitStack,
    cpgs: pd.DataFrame,
    window: int,
    genome: Path | None,
    maps: dict[Path, np.ndarray],
    probes: dict[Path, np.ndarray],
    base: int,
    minus: str,
    partial: bool = False,
) -> Windows:
    """Open the files with sequences and check that they have CG in the centre.

    Parameters
    ----------
    stack
        Closes the files.
    cpgs
        Columns id, chrom, position, strand.
    window
        Even number of bases.
    genome
        FASTA of the assembly, of which each block is cut when it is read.
    maps
        Which CpGs (bool [C]) each probe map places.
    probes
        Which CpGs (bool [C]) each FASTA of probes has; held in memory, and turned to the + strand of the genome where
        that is given. A CpG that none has is N.
    base, minus
        As given to :func:`methyl_lightning.readers.probes.locate_cpgs`.
    partial
        Whether a FASTA of probes may lack some of them, which are N then.

    Raises
    ------
    InputError
        If a file is damaged or lacks a probe, or not more than half of its centres are CG.
    """
    counts: dict[str, int] = {}
    fasta = None
    off_cg_C = np.zeros(len(cpgs), dtype=bool)
    if genome is not None:
        fasta = stack.enter_context(open_fasta(genome))
        centres = find_centres(genome_windows(fasta, cpgs, CENTRE))
        for path, placed_C in maps.items():
            some = Centres(centres.known_C[placed_C], centres.is_cg_CO[placed_C])
            refuse_wrong_positions(fasta, path, cpgs[placed_C], some, base, minus)
        counts, off_cg_C = centres.counts(), centres.off_cg_C
        if not probes:
            return Windows(lambda index_C: genome_windows(fasta, cpgs.iloc[index_C], window), off_cg_C, counts, fasta)
    sequence_CL = np.full((len(cpgs), window), UNKNOWN, dtype=np.uint8)
    empty_C = np.ones(len(cpgs), dtype=bool)
    for path, having_C in probes.items():
        with open_fasta(path) as records:
            some_C = np.flatnonzero(having_C & empty_C)
            if partial:
                has_C = cpgs["id"].iloc[some_C].isin(probe_records(records)).to_numpy()
                log.info(f"{path}: has a sequence of {int(has_C.sum()):,} of {len(has_C):,} CpGs, the others are N")
                some_C = some_C[has_C]
            sequence_CL[some_C] = probe_windows(records, cpgs["id"].iloc[some_C].tolist(), window)
        centres = find_centres(sequence_CL[some_C])
        refuse_wrong_probes(path, centres)
        off_cg_C[some_C] |= centres.off_cg_C
        empty_C[some_C] = False
    if probes and fasta is not None:
        sequence_CL, turned = orient(sequence_CL, genome_windows(fasta, cpgs, window))
        counts |= turned
    return Windows(lambda index_C: sequence_CL[index_C], off_cg_C, counts, fasta)


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
        As given to :func:`methyl_lightning.readers.probes.locate_cpgs`.

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
    minus_before, _, minus_after = centres.shares(minus_C)
    plus_at = centres.shares(centres.known_C & ~minus_C)[1]
    if plus_at > MAJORITY and (minus_before if minus == "C" else minus_after) > MAJORITY:
        other = "G" if minus == "C" else "C"
        raise InputError(f"{found}on strand - it gives the position of the {other}: set probe_map_minus={other}")
    if centres.shift == 0:
        log.info(found.removesuffix("; "))
        return
    if centres.shift is None:
        raise InputError(
            f"{found}not more than half are right: the map is of another assembly, get the one of the genome"
        )
    right = base - centres.shift
    if right in (0, 1):
        raise InputError(f"{found}the positions look {right}-based, not {base}-based: set probe_map_base={right}")
    off = f"{-centres.shift:+d}"
    raise InputError(f"{found}with probe_map_base={base} they are off by {off}: give the position of the C")


def refuse_wrong_probes(path: Path, centres: Centres) -> None:
    """Refuse a FASTA of probes of which not more than half has CG in the centre; tell by how much it is off."""
    before, at, after = centres.shares(np.ones(len(centres.known_C), dtype=bool))
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
