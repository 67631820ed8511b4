"""The same cohort from every format, with features or samples as rows, and what is refused in them."""

import gzip
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import rdata
from conftest import contents
from raw_tables import TABLES, edit, make_cohort, write_cohort
from scipy.sparse import csr_matrix

from methyl_lightning.files import InputError
from methyl_lightning.readers.formats import open_matrix
from methyl_lightning.readers.matrices import read_all

KINDS = {"methylation": "probe", "expression": "gene"}
R_NAMES = {"methylation": "methyl", "expression": "expressi"}


def frame(name: str) -> pd.DataFrame:
    header, *rows = TABLES[name]
    values = [[float(cell) if cell not in ("", "NA") else np.nan for cell in row[1:]] for row in rows]
    return pd.DataFrame(values, [row[0] for row in rows], header[1:])


def r_matrix(name: str, table: pd.DataFrame) -> bytes:
    """Write one matrix with row and column names as R's ``save(…, ascii = TRUE)`` does."""

    def text(word: str) -> list[str]:
        return ["262153", str(len(word)), word]

    def tag(word: str) -> list[str]:
        return ["1026", "1", *text(word)]

    def words(values: pd.Index) -> list[str]:
        return ["16", str(len(values)), *(line for value in values for line in text(value))]

    cells = ["NA" if np.isnan(value) else repr(float(value)) for value in table.to_numpy().ravel(order="F")]
    shape = ["13", "2", *map(str, table.shape)]
    names = ["19", "2", *words(table.index), *words(table.columns)]
    head = ["RDA2", "A", "2", "262400", "197888"]
    body = [*tag(name), "526", str(table.size), *cells, *tag("dim"), *shape, *tag("dimnames"), *names, "254", "254"]
    return gzip.compress(("\n".join([*head, *body]) + "\n").encode())


def as_text(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".csv.gz")
    table.to_csv(path, sep="\t", na_rep="NA", index_label="sample")
    return path


def as_parquet(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".parquet")
    table.to_parquet(path)
    return path


def as_parquet_without_index(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".parquet")
    table.rename_axis("sample").reset_index().to_parquet(path, index=False)
    return path


def as_h5ad(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".h5ad")
    anndata.AnnData(table.astype(np.float32)).write_h5ad(path)
    return path


def as_sparse_h5ad(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".h5ad")
    obs, var = pd.DataFrame(index=table.index), pd.DataFrame(index=table.columns)
    anndata.AnnData(csr_matrix(table.to_numpy(np.float32)), obs, var).write_h5ad(path)
    return path


def as_r_matrix(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".RData")
    path.write_bytes(r_matrix(R_NAMES[name], table))
    return path


def as_r_frame(path: Path, name: str, table: pd.DataFrame) -> Path:
    path = path.with_suffix(".rda")
    rdata.write_rda(path, {R_NAMES[name]: table})
    return path


WRITERS = [as_text, as_parquet, as_parquet_without_index, as_h5ad, as_sparse_h5ad, as_r_matrix, as_r_frame]


@pytest.mark.parametrize("turned", [False, True], ids=["features as rows", "samples as rows"])
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_store(tmp_path: Path, write: Callable[..., Path], turned: bool) -> None:
    files = write_cohort(tmp_path)
    expected = contents(make_cohort(files))
    for name in KINDS:
        table = frame(name)
        files[name] = write(tmp_path / f"other_{name}", name, table.T if turned else table)
    found = contents(make_cohort(files))
    for name in ("cpgs", "genes", "samples"):
        pd.testing.assert_frame_equal(found[name], expected[name])
    np.testing.assert_array_equal(found["beta_CS"], expected["beta_CS"])
    np.testing.assert_array_equal(found["expression_SG"], expected["expression_SG"])


@pytest.mark.parametrize("turned", [False, True])
def test_blocks_of_many_sizes_are_joined(tmp_path: Path, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"TCGA-AA-{s:04d}-01" for s in range(7)]
    table = pd.DataFrame(rng.random((50, 7)).round(4), [f"cg{c}" for c in range(50)], names)
    table = table.mask(rng.random(table.shape) < 0.2)
    written = table.T if turned else table
    for module in ("matrices.BLOCK_BYTES", "formats.CHUNK_BYTES"):
        monkeypatch.setattr(f"methyl_lightning.readers.{module}", 64)
    monkeypatch.setattr("methyl_lightning.readers.matrices.BLOCK_LINES", 1)
    for write in (as_text, as_parquet, as_h5ad):
        matrix = open_matrix(write(tmp_path / "table", "methylation", written), "probe", missing=True)
        assert len(list(matrix.chunks(matrix.columns))) > 5
        pd.testing.assert_frame_equal(read_all(matrix), table.astype(np.float32), check_names=False)
        some = list(matrix.chunks(names[5:2:-1]))
        np.testing.assert_allclose(np.concatenate([part.values_RK for part in some]), table[names[5:2:-1]], atol=1e-7)


@pytest.mark.parametrize("ending", ["parquet", "h5ad", "RData", "rda"])
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_named(tmp_path: Path, name: str, ending: str) -> None:
    files = write_cohort(tmp_path)
    files[name] = files[name].rename(tmp_path / f"bad.{ending}")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=rf"bad\.{ending}: no \.?\w+ file") as refusal:
        make_cohort(files)
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


def refused(tmp_path: Path, name: str, path: Path) -> str:
    files = write_cohort(tmp_path)
    files[name] = path
    with pytest.raises(InputError) as refusal:
        make_cohort(files)
    assert "\n" not in str(refusal.value) and path.name in str(refusal.value)
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".*"))
    return str(refusal.value)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("write", [as_parquet, as_h5ad, as_r_matrix])
def test_values_are_checked_in_every_format(tmp_path: Path, write: Callable[..., Path], turned: bool) -> None:
    table = frame("methylation")
    table.loc["cg2", "TCGA-CC-0003-02"] = 1.75
    path = write(tmp_path / "m", "methylation", table.T if turned else table)
    message = refused(tmp_path, "methylation", path)
    assert "'cg2'" in message and "'TCGA-CC-0003-02'" in message and "1.75" in message
    table = frame("expression")
    table.loc["NOWHERE", "TCGA.BB.0002.06"] = np.nan
    path = write(tmp_path / "e", "expression", table.T if turned else table)
    message = refused(tmp_path, "expression", path)
    assert "'NOWHERE'" in message and "'TCGA.BB.0002.06'" in message


def test_text_in_parquet_is_named(tmp_path: Path) -> None:
    table = frame("methylation").astype(object)
    table["TCGA-CC-0003-02"] = ["0.4", "n.a.", "0.5"]
    assert "'TCGA-CC-0003-02'" in refused(tmp_path, "methylation", as_parquet(tmp_path / "m", "", table))
    assert "'cg1'" in refused(tmp_path, "methylation", as_parquet(tmp_path / "m", "", table.T.astype(str)))


def test_r_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.RData"
    path.write_bytes(r_matrix("beta", frame("methylation")))
    assert "no object 'methyl' among beta" in refused(tmp_path, "methylation", path)
    rdata.write_rda(path, {"methyl": np.eye(3)})
    assert "'methyl' has no row and column names" in refused(tmp_path, "methylation", path)


def test_probe_twice_is_named_wherever_it_stands(tmp_path: Path) -> None:
    table = pd.concat([frame("methylation"), frame("methylation").iloc[:1]])
    for write in (as_text, as_parquet, as_r_matrix):
        for written in (table, table.T):
            if write is as_parquet and written is not table:
                continue  # parquet has no two columns of one name
            path = write(tmp_path / "m", "methylation", written)
            assert "'cg1' occurs twice" in refused(tmp_path, "methylation", path)


def test_line_of_a_fault_is_named(tmp_path: Path) -> None:
    files = write_cohort(tmp_path)
    edit(files["methylation"], "0.75", "n.a.")
    with pytest.raises(InputError, match=r"methylation\.tsv: line 3: row 'cg2', column 'TCGA-CC-0003-02' is 'n\.a\.'"):
        make_cohort(files)
    edit(files["methylation"], "\tn.a.\t0.9", "")
    with pytest.raises(InputError, match=r"methylation\.tsv: line 3: row 'cg2' has 4 cells, the header 6"):
        make_cohort(files)
