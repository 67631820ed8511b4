"""The sequences of a store: from a genome, block by block, or from a FASTA file with one record a probe.

Legend: C CpGs, L bases.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.sources.genome import (
    UNKNOWN,
    Centres,
    find_centres,
    genome_windows,
    open_fasta,
    orient,
    probe_windows,
    refuse_wrong_positions,
    refuse_wrong_probes,
)

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
    """

    read: Callable[[np.ndarray], np.ndarray]
    off_cg_C: np.ndarray
    counts: dict[str, int]


def open_windows(
    stack: ExitStack,
    cpgs: pd.DataFrame,
    window: int,
    genome: Path | None,
    maps: dict[Path, np.ndarray],
    probes: dict[Path, np.ndarray],
    base: int,
    minus: str,
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
        As given to :func:`methyl_lightning.sources.annotation.locate_cpgs`.

    Raises
    ------
    InputError
        If a file is damaged or lacks a probe, or not more than half of its centres are CG.
    """
    counts: dict[str, int] = {}
    off_cg_C = np.zeros(len(cpgs), dtype=bool)
    if genome is not None:
        fasta = stack.enter_context(open_fasta(genome))
        centres = find_centres(genome_windows(fasta, cpgs, CENTRE))
        for path, placed_C in maps.items():
            some = Centres(centres.known_C[placed_C], centres.is_cg_CO[placed_C])
            refuse_wrong_positions(fasta, path, cpgs[placed_C], some, base, minus)
        counts, off_cg_C = centres.counts(), centres.off_cg_C
        if not probes:
            return Windows(lambda index_C: genome_windows(fasta, cpgs.iloc[index_C], window), off_cg_C, counts)
    sequence_CL = np.full((len(cpgs), window), UNKNOWN, dtype=np.uint8)
    empty_C = np.ones(len(cpgs), dtype=bool)
    for path, having_C in probes.items():
        with open_fasta(path) as records:
            some_C = np.flatnonzero(having_C & empty_C)
            sequence_CL[some_C] = probe_windows(records, cpgs["id"].iloc[some_C].tolist(), window)
        centres = find_centres(sequence_CL[some_C])
        refuse_wrong_probes(path, centres)
        off_cg_C[some_C] |= centres.off_cg_C
        empty_C[some_C] = False
    if probes and genome is not None:
        sequence_CL, turned = orient(sequence_CL, genome_windows(fasta, cpgs, window))
        counts |= turned
    return Windows(lambda index_C: sequence_CL[index_C], off_cg_C, counts)
