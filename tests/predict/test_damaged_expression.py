"""Expression files that are not whole, or lead elsewhere, are one line."""

from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from methyl_lightning.files import InputError
from methyl_lightning.readers.expression import open_expression

GENES = [f"G{g}" for g in range(8)]


def put(name: str, **settings: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **settings).attrs.update(attributes)

    return edit


def linked(name: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("other.h5ad", name)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put("X", data=np.ones((4, 8))), r"X is \(4, 8\), for 6 observations and 8 variables"),
        (put("X", data=np.ones((6, 5))), r"X is \(6, 5\), for 6 observations and 8 variables"),
        (put("X", data=np.ones(6)), r"X is \(6,\), for 6 observations"),
        (put("X", shape=(10**7, 10**6), dtype="f4", chunks=(8, 8)), r"X is declared as .*more than the file can hold"),
        (put("X", shape=(6, 8), dtype="f4", external=[("other", 0, h5py.h5f.UNLIMITED)]), "X lies in another file"),
        (linked("X"), "X lies in another file, which is not opened"),
        (linked("obs"), "obs lies in another file, which is not opened"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, edit: Callable[[h5py.File], None], words: str) -> None:
    path = tmp_path / "cells.h5ad"
    obs, var = pd.DataFrame(index=[f"s{s}" for s in range(6)]), pd.DataFrame(index=GENES)
    anndata.AnnData(X=np.ones((6, 8), np.float32), obs=obs, var=var).write_h5ad(path)
    anndata.AnnData(X=np.ones((6, 8), np.float32), obs=obs, var=var).write_h5ad(tmp_path / "other.h5ad")
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(InputError, match=rf"cells\.h5ad: {words}"), open_expression(path, None, False, GENES):
        pass


@pytest.mark.parametrize("part", ["data", "barcodes", "shape"])
def test_a_10x_matrix_that_is_not_whole_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "cells.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = [1, 2, 3], [0, 1, 2], [0, 1, 2, 3]
        group["shape"] = [8, 3]
        group["barcodes"] = np.array([b"A", b"B", b"C"])
        for name in ("id", "name", "feature_type", "genome"):
            group[f"features/{name}"] = np.array([gene.encode() for gene in GENES])
        values = group[part][:]
        del group[part]
        group[part] = values[:1] if part != "shape" else [1, 3]
    with pytest.raises(InputError, match=r"cells\.h5: "), open_expression(path, None, False, GENES):
        pass
