"""Sequences around CpGs.

Legend: C CpGs, L bases.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyfaidx

from methyl_lightning.sources.text import read_lines
from methyl_lightning.store import ALPHABET, InputError, encode_sequences


def refuse_off_centre(path: Path, cpgs: list[str], sequence_CL: np.ndarray) -> None:
    """Refuse a sequence without C at window/2 − 1 and G after it."""
    c_index = sequence_CL.shape[1] // 2 - 1
    is_cg = (sequence_CL[:, c_index : c_index + 2] == [ALPHABET.index("C"), ALPHABET.index("G")]).all(axis=1)
    if not is_cg.all():
        cpg = cpgs[int(np.argmin(is_cg))]
        raise InputError(f"{path}: the centre of the sequence of {cpg!r} is not CG; mend it or remove the probe")


def read_sequences(path: Path, cpgs: list[str], window: int) -> np.ndarray:
    """Cut a window around the centre of each probe's FASTA record (C at k − 1 of 2k bases), uint8 [C, window].

    The index of pyfaidx, and the text of a gzip file, lie in a temporary folder: the folder of the input is only read.
    """
    with TemporaryDirectory() as folder:
        text = Path(folder, "sequences.fa") if path.suffix == ".gz" else path
        if text != path:
            text.write_bytes(b"".join(read_lines(path)))
        try:
            fasta = pyfaidx.Fasta(str(text), indexname=str(Path(folder, "index.fai")), as_raw=True)
        except (pyfaidx.FastaIndexingError, OSError, ValueError) as error:
            raise InputError(f"{path}: no FASTA file with one record a probe ({error}); mend or replace it") from error
        with fasta:
            sequence_CL = encode_sequences([_cut(path, fasta, cpg, window) for cpg in cpgs])
    refuse_off_centre(path, cpgs, sequence_CL)
    return sequence_CL


def _cut(path: Path, fasta: pyfaidx.Fasta, cpg: str, window: int) -> str:
    if cpg not in fasta:
        raise InputError(f"{path}: no sequence of probe {cpg!r}; add it or remove the probe from the methylation table")
    start, odd = divmod(len(fasta[cpg]) - window, 2)
    if start < 0 or odd:
        raise InputError(f"{path}: {cpg!r} has {len(fasta[cpg])} bases; give an even number ≥ window, now {window}")
    return fasta[cpg][start : start + window]
