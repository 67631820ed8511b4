"""Fingerprints of names: the same in every store, and numbers, which networks can look up.

Legend: C CpGs.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd


def cpg_keys(ids: Iterable[str]) -> np.ndarray:
    """Return one int64 a CpG, the 8-byte BLAKE2 hash of its id."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def chromosome_keys(chrom_C: pd.Series) -> np.ndarray:
    """Return one int64 a CpG, the hash of its chromosome's name, −1 where that is ""."""
    codes, names = pd.factorize(chrom_C)
    return np.where(names == "", -1, cpg_keys(names))[codes]
