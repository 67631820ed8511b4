"""The disk has room for a whole HDF5 file before it is written, and not much more; or it is one line."""

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import files, largest_file, rewrite, tiny_store

from methyl_lightning.data.sealed import new_hdf5
from methyl_lightning.data.store import Distances, Store
from methyl_lightning.files import InputError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note how many bytes the disk was asked for."""
    sizes: list[int] = []
    allocate = os.posix_fallocate

    def noted(descriptor: int, offset: int, n_bytes: int) -> None:
        sizes.append(n_bytes)
        allocate(descriptor, offset, n_bytes)

    monkeypatch.setattr(os, "posix_fallocate", noted)
    return sizes


def store_of(path: Path, n_cpgs: int, n_samples: int, n_genes: int, words: list[str], **changes: Any) -> Store:
    def texts(n_rows: int, *columns: str) -> dict[str, list[str]]:
        return {column: [words[row % len(words)] for row in range(n_rows)] for column in columns}

    rng = np.random.default_rng(0)
    named = {"cpgs": n_cpgs, "genes": n_genes, "samples": n_samples}
    ids = {name: {"id": [f"{words[row % len(words)]}{row}" for row in range(n)]} for name, n in named.items()}
    return tiny_store(
        path,
        cpgs=pd.DataFrame(ids["cpgs"] | texts(n_cpgs, "chrom", "island") | {"position": np.arange(n_cpgs)}),
        genes=pd.DataFrame(ids["genes"] | texts(n_genes, "symbol", "chrom", "strand")).assign(start=1, end=2),
        samples=pd.DataFrame(ids["samples"] | texts(n_samples, "patient", "cohort", "tissue_type")),
        sequence_CL=rng.integers(4, size=(n_cpgs, 100), dtype=np.uint8),
        distances=Distances(np.arange(n_cpgs + 1) * 3, *rng.integers(n_genes, size=(2, 3 * n_cpgs))),
        expression_SG=rng.random((n_samples, n_genes), dtype=np.float32),
        beta_CS=rng.random((n_cpgs, n_samples)),
        **changes,
    )


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((1, 1, 1), [""]),
        ((20_000, 2, 5), ["chr1", "OpenSea", ""]),
        ((40, 5_000, 30), ["TCGA"]),
        ((300, 40, 20_000), ["ENSG"]),
        ((2_000, 3, 50), ["ü" * length for length in (1, 30, 1_000, 2_035, 3_000)]),
    ],
)
def test_a_store_takes_the_room_that_it_asked_for(
    tmp_path: Path, asked: list[int], sizes: tuple[int, int, int], words: list[str]
) -> None:
    reads_CS = np.ones(sizes[:2], dtype=np.uint8)
    store = store_of(tmp_path / "x.h5", *sizes, words, provenance={"notes": "n" * 100_000}, reads_CS=reads_CS)
    size = store.path.stat().st_size
    assert size <= asked[0] <= 1.01 * size + 70_000


def test_a_file_of_small_chunks_takes_the_room_that_it_asked_for(tmp_path: Path, asked: list[int]) -> None:
    with new_hdf5(tmp_path / "x.h5", lambda file: file.create_dataset("x", (310, 1_000), "f4", chunks=(8, 32))) as file:
        for row in range(310):
            file["x"][row] = row
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["x"][:, 999] == np.arange(310)).all()
    size = (tmp_path / "x.h5").stat().st_size
    assert size <= asked[0] <= 1.1 * size + 70_000


@pytest.mark.parametrize("share", [0.001, 0.3, 0.97, 1.0])
def test_a_store_without_room_is_one_line_and_leaves_nothing(store_path: Path, tmp_path: Path, share: float) -> None:
    path, store = tmp_path / "store.h5", Store(store_path)
    path.write_text("former")
    with (
        largest_file(int(share * store_path.stat().st_size)),
        pytest.raises(InputError, match=r"store\.h5: store not written \(\[Errno 27\] File too large\); the former"),
    ):
        rewrite(store, path)
    assert files(tmp_path) == {"store.h5"} and path.read_text() == "former"


def test_a_file_system_that_cannot_be_asked_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert len(tiny_store(tmp_path / "store.h5").cpgs) == 3
