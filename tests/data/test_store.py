"""The store keeps every value, refuses what is not one, and never lies half-written under its name."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import contents, files, rewrite, tiny_store

from methyl_lightning.data.store import Distances, Store, decode_beta, encode_beta, encode_sequences
from methyl_lightning.files import InputError, replacing


def test_round_trip(tmp_path: Path) -> None:
    store = tiny_store(tmp_path / "tiny.h5")
    assert store.cpgs.to_dict("list") == {
        "id": ["cg1", "cg2", "cg3"],
        "chrom": ["chr1", "chr1", "chrX"],
        "position": [100, 900, -1],
        "island": ["Island", "OpenSea", ""],
    }
    assert store.genes.to_dict("records")[1] == {
        "symbol": "MINUS",
        "id": "g2",
        "chrom": "chr1",
        "start": 40,
        "end": 90,
        "strand": "-",
    }
    assert store.samples["patient"].tolist() == ["TCGA-AA-0001", "TCGA-BB-0002"]
    assert store.samples["cohort"].tolist() == ["X", "Y"]
    assert store.samples["tissue_type"].tolist() == ["Primary Tumor", "Solid Tissue Normal"]
    assert store.window == 4
    assert store.attributes["assembly"] == "hg19"
    assert store.attributes["units"] == "log2(norm+1)"
    assert store.attributes["provenance"] == {"source": "hand", "settings": {"window": 4}}
    assert store.sequence_CL.tolist() == [[0, 1, 2, 3], [4, 4, 1, 2], [3, 1, 2, 0]]
    assert store.expression_SG.tolist() == [[0.5, 2.25], [7.0, 0.0]]
    assert store.distances.indptr_C.tolist() == [0, 2, 3, 3]
    assert store.distances.gene_N.tolist() == [1, 0, 0]
    assert store.distances.bp_N.tolist() == [-11, 50, -750]
    beta_CS = store.beta(np.array([2, 0, 1]), np.array([1, 0]))
    np.testing.assert_allclose(beta_CS, [[0.25, 0.5], [1, 0], [np.nan, 0.1234]], atol=1e-7)
    beta_N = store.beta_pairs(np.array([1, 1, 0]), np.array([1, 0, 1]))
    np.testing.assert_allclose(beta_N, [np.nan, 0.1234, 1], atol=1e-7)


def test_rewritten_store_holds_the_same(store: Store, tmp_path: Path) -> None:
    copied, had = contents(rewrite(store, tmp_path / "copy.h5")), contents(store)
    for name, value in had.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(copied[name], value)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(copied[name], value)
        elif isinstance(value, Distances):
            assert all(np.array_equal(one, other) for one, other in zip(copied[name], value, strict=True))
        else:
            assert copied[name] == value


def test_beta_is_kept_to_half_a_step() -> None:
    beta = np.random.default_rng(0).random(10_000)
    beta[:3] = 0, 1, np.nan
    decoded = decode_beta(encode_beta(beta))
    assert encode_beta(beta).dtype == np.uint16 and decoded.dtype == np.float32
    assert np.isnan(decoded[2]) and np.isfinite(np.delete(decoded, 2)).all()
    assert np.nanmax(np.abs(decoded - beta)) <= 0.5e-4 + 1e-7
    assert (decoded[0], decoded[1]) == (0, 1)


def test_letters_become_codes() -> None:
    assert encode_sequences(["ACGTN", "acgtn", "RYX-."]).tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [4] * 5]


@pytest.mark.parametrize("kept", [0, 100, 5_000, -1])
def test_truncated_store_is_named(store_path: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(store_path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cut\.h5: truncated or not an HDF5 file; make it again with python -m"):
        Store(path)


def test_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.h5: no such store; make it with python -m methyl_lightning\.prepare"):
        Store(tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("complete", False, "not a complete methyl_lightning store"),
        ("complete", None, "not a complete methyl_lightning store"),
        ("schema_version", None, "not a complete methyl_lightning store"),
        ("schema_version", 99, "schema version 99, this program reads 3"),
    ],
)
def test_other_files_are_refused(store_path: Path, tmp_path: Path, attribute: str, value: Any, words: str) -> None:
    path = Path(shutil.copy(store_path, tmp_path / "other.h5"))
    with h5py.File(path, "r+") as file:
        del file.attrs[attribute]
        if value is not None:
            file.attrs[attribute] = value
    with pytest.raises(InputError, match=rf"other\.h5: {words}"):
        Store(path)


def test_killed_while_writing_leaves_the_former_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*args: Any, **settings: Any) -> None:
        (half,) = {tmp_path / name for name in files(tmp_path)} - {path}
        with h5py.File(half, "r") as file:
            assert "beta" in file and "complete" not in file.attrs
        raise Killed

    path = tmp_path / "store.h5"
    tiny_store(path)
    before = path.read_bytes()
    monkeypatch.setattr("methyl_lightning.data.store._steps", kill)  # beta comes after all other arrays
    for name in ("store.h5", "new.h5"):
        with pytest.raises(Killed):
            tiny_store(tmp_path / name, assembly="hg38")
        assert path.read_bytes() == before
        assert files(tmp_path) == {"store.h5"}


def test_full_disk_is_one_line_and_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("former")
    message = r"kept: table not written \(.*No space left.*\); the former one"
    with pytest.raises(InputError, match=message), replacing(path, "table") as temporary:
        temporary.write_text("half")
        assert path.read_text() == "former"
        raise OSError(28, "No space left on device")
    assert path.read_text() == "former"
    assert files(tmp_path) == {"kept"}


@pytest.mark.parametrize(("table", "kind"), [("cpgs", "CpG"), ("genes", "gene"), ("samples", "sample")])
def test_duplicates_are_named(tmp_path: Path, table: str, kind: str) -> None:
    ids = contents(tiny_store(tmp_path / "good.h5"))[table]
    ids.loc[1, "id"] = first = ids.loc[0, "id"]
    with pytest.raises(InputError, match=rf"bad\.h5: {kind} id '{first}' occurs twice; keep one"):
        tiny_store(tmp_path / "bad.h5", **{table: ids})
    assert files(tmp_path) == {"good.h5"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beta_CS": np.array([[0, 1], [0.1, 1.5], [0, 0]])}, "beta of CpG 'cg2', sample 'TCGA-BB-0002-01' is 1.5"),
        ({"beta_CS": np.array([[0, 1], [0.1, 0.5], [-0.5, 0]])}, "beta of CpG 'cg3', sample 'TCGA-AA-0001-01' is -0.5"),
        ({"expression_SG": np.array([[0, 1], [np.nan, 1]])}, "sample 'TCGA-BB-0002-01', gene 'g1' is not a finite"),
    ],
)
def test_values_out_of_range_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_store(tmp_path / "bad.h5", **changes)
    assert files(tmp_path) == set()


def test_a_reader_keeps_the_store_that_it_opened(store_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    shutil.copy(store_path, path)
    reading, expected = Store(path), Store(store_path)
    rows, columns = np.arange(5), np.arange(4)
    assert reading.beta_steps_CS is not reading.beta_steps_CS  # pages of a former reader do not stay resident
    other = tiny_store(tmp_path / "other.h5")
    other.path.replace(path)
    np.testing.assert_array_equal(reading.beta(rows, columns), expected.beta(rows, columns))
    np.testing.assert_array_equal(reading.sequence_CL[rows], expected.sequence_CL[rows])
    assert len(Store(path).cpgs) == 3


def test_no_handle_crosses_a_process_border(store_path: Path) -> None:
    store = Store(store_path)
    rows, columns = np.arange(5), np.arange(3)
    beta_CS = store.beta(rows, columns)
    assert store.sequence_CL.size and len(store.distances.bp_N)
    state = pickle.dumps(store)
    assert len(state) < 1_000
    again = pickle.loads(state)
    np.testing.assert_array_equal(again.beta(rows, columns), beta_CS)
    assert again.path == store_path
