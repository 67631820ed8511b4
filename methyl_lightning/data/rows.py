"""Matrices that are read and written in blocks of rows."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

BLOCK_BYTES = 2**25  # of rows in memory at once


class Rows(Protocol):
    """A matrix of which blocks of rows can be had, in memory or not; a numpy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Read consecutive rows."""


def row_blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut rows into consecutive blocks of about ``BLOCK_BYTES``."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
