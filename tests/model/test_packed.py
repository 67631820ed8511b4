"""Packed sequences are the sequences, in any rows, with unknown bases anywhere."""

import numpy as np
import pytest

from methyl_lightning.model.packed import PackedSequences


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
