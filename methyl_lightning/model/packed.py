"""Numbers of CpGs as small as checkpoints hold them: sequences at two bits a base, columns of few values as codes.

Legend: C CpGs, L bases, B bytes, U rows with an unknown base, P columns, V distinct values.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

UNKNOWN = 4  # code of N; A, C, G and T are 0 to 3
SHIFT = np.arange(0, 8, 2, dtype=np.uint8)  # of the four bases in a byte
ROWS_AT_ONCE = 4096


class Codes(Protocol):
    """What is read like an array of codes of ACGTN, uint8 [C, L]."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class PackedSequences:
    """Codes of ACGTN of many CpGs, unpacked where they are asked for.

    Parameters
    ----------
    base_CB
        uint8, four bases a byte, the first in the lowest bits; 0 where a base is unknown.
    row_U
        Rows that have an unknown base, ascending.
    unknown_UB
        uint8, a bit a base, as ``numpy.packbits`` writes them: the unknown ones of those rows.
    window
        Bases of a sequence.
    """

    def __init__(self, base_CB: np.ndarray, row_U: np.ndarray, unknown_UB: np.ndarray, window: int) -> None:
        self.base_CB, self.row_U, self.unknown_UB, self.window = base_CB, row_U, unknown_UB, window

    @classmethod
    def pack(cls, code_CL: Codes) -> "PackedSequences":
        """Pack codes, some thousand rows at a time."""
        n_cpgs, window = code_CL.shape
        base_CB = np.empty((n_cpgs, -(-window // 4)), dtype=np.uint8)
        rows, unknown = [np.empty(0, dtype=np.int64)], [np.empty((0, -(-window // 8)), dtype=np.uint8)]
        for start in range(0, n_cpgs, ROWS_AT_ONCE):
            code_cL = np.asarray(code_CL[start : start + ROWS_AT_ONCE])
            unknown_cL = code_cL == UNKNOWN
            rows.append(start + np.flatnonzero(unknown_cL.any(axis=1)))
            unknown.append(np.packbits(unknown_cL[rows[-1] - start], axis=1))
            four_cB4 = np.pad(code_cL & 3, ((0, 0), (0, -window % 4))).reshape(len(code_cL), -1, 4)
            base_CB[start : start + ROWS_AT_ONCE] = np.bitwise_or.reduce(four_cB4 << SHIFT, axis=2)
        return cls(base_CB, np.concatenate(rows), np.concatenate(unknown), window)

    def __getitem__(self, row_C: np.ndarray) -> np.ndarray:
        """Return the codes of some rows, uint8 [C, L]."""
        byte_CB = np.asarray(self.base_CB[row_C])
        code_CL = ((byte_CB[:, :, None] >> SHIFT) & 3).reshape(len(byte_CB), 4 * byte_CB.shape[1])[:, : self.window]
        at_C = np.minimum(np.searchsorted(self.row_U, row_C), max(0, len(self.row_U) - 1))
        has_C = self.row_U[at_C] == row_C if len(self.row_U) else np.zeros(len(row_C), dtype=bool)
        unknown_CL = np.unpackbits(self.unknown_UB[at_C[has_C]], axis=1, count=self.window)
        code_CL[has_C] = np.where(unknown_CL, UNKNOWN, code_CL[has_C])
        return code_CL

    def any_known(self) -> bool:
        """Tell whether any base is known."""
        n_unknown = sum(int(np.bitwise_count(part).sum()) for part in np.array_split(self.unknown_UB, 64))
        return n_unknown < len(self.base_CB) * self.window

    def tensors(self) -> dict[str, Tensor]:
        """Return the numbers by name."""
        return {
            "sequence_bases": torch.from_numpy(self.base_CB),
            "sequence_row": torch.from_numpy(self.row_U),
            "sequence_unknown": torch.from_numpy(self.unknown_UB),
            "window": torch.tensor(self.window),
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> "PackedSequences":
        """Put together what :meth:`tensors` has taken apart, or what formats 1 and 2 hold, a byte a base."""
        if "sequence" in arrays:
            return cls.pack(arrays["sequence"])
        bases, row, unknown = (arrays[f"sequence_{name}"] for name in ("bases", "row", "unknown"))
        return cls(bases, row, unknown, int(arrays["window"]))


def pack_columns(value_CP: np.ndarray) -> dict[str, Tensor]:
    """Return each column as its distinct values and one or two bytes a row, or as it is where there are too many."""
    tensors = {}
    for column, value_C in enumerate(np.asarray(value_CP).T):
        value_V, code_C = np.unique(value_C, return_inverse=True)
        kind = np.uint8 if len(value_V) <= 2**8 else np.int16
        if len(value_V) > 2**15:
            value_V, code_C, kind = value_C.copy(), code_C[:0], np.uint8
        tensors[f"values_{column}"] = torch.from_numpy(value_V)
        tensors[f"codes_{column}"] = torch.from_numpy(code_C.astype(kind))
    return tensors


def unpack_columns(arrays: Mapping[str, np.ndarray], n_columns: int) -> np.ndarray:
    """Return the columns that :func:`pack_columns` has taken apart, float32 [C, P]."""
    columns = ((arrays[f"values_{column}"], arrays[f"codes_{column}"]) for column in range(n_columns))
    return np.stack([value_V[code_C] if len(code_C) else value_V for value_V, code_C in columns], axis=1)
