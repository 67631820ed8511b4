"""Packed sequences are the sequences, in any rows, with unknown bases anywhere; packed columns are the columns."""

import numpy as np
import pytest

from methyl_lightning.model.packed import PackedSequences, pack_columns, unpack_columns


@pytest.mark.parametrize("window", [1, 40, 122, 801])
@pytest.mark.parametrize("unknown", ["none", "some", "all"])
def test_rows_come_back_as_they_were(window: int, unknown: str) -> None:
    rng = np.random.default_rng(window)
    code_CL = rng.integers(4, size=(5000, window), dtype=np.uint8)  # more than are packed at once
    if unknown != "none":
        code_CL[[0, 17, 4096, 4999], rng.integers(window)] = 4
        code_CL[300] = 4
    if unknown == "all":
        code_CL[:] = 4
    packed = PackedSequences.pack(code_CL)
    arrays = {name: tensor.numpy() for name, tensor in packed.tensors().items()}
    for sequences in (packed, PackedSequences.restore(arrays), PackedSequences.restore({"sequence": code_CL})):
        for row_C in (np.arange(5000), np.array([4999, 0, 300, 301, 300]), np.arange(0)):
            np.testing.assert_array_equal(sequences[row_C], code_CL[row_C])
        assert sequences.any_known() == (unknown != "all")


def test_a_base_takes_two_bits() -> None:
    packed = PackedSequences.pack(np.random.default_rng(0).integers(4, size=(1000, 800), dtype=np.uint8))
    assert sum(tensor.numel() * tensor.element_size() for tensor in packed.tensors().values()) == 200_000 + 8


def test_columns_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    few, more, own = rng.integers(2, size=40_000), rng.integers(3000, size=40_000), rng.random(40_000)
    value_CP = np.stack([few, np.full(40_000, np.nan), np.log1p(more), own], axis=1).astype(np.float32)
    value_CP[17] = np.nan
    tensors = pack_columns(value_CP)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.testing.assert_array_equal(unpack_columns(arrays, 4), value_CP)
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert n_bytes < 40_000 * (1 + 1 + 2 + 4) + 13_000
