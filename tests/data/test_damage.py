"""A store is what was written, or one line: flipped bits, edited layouts, and what leads out of the file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import assert_refused, command, contents, rewrite

from methyl_lightning.data.checks import DATASETS, dataset_digest
from methyl_lightning.data.sealed import SEAL, SEAL_BYTES
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.ceiling import read_ceiling


def flipped(source: Path, target: Path, at: int, bit: int = 0) -> Path:
    content = bytearray(source.read_bytes())
    content[at] ^= 1 << bit
    target.write_bytes(content)
    return target


def test_every_dataset_has_its_checksum_and_the_file_ends_in_one(store_path: Path) -> None:
    with h5py.File(store_path) as file:
        assert {name: file[name].attrs["sha256"] for name in DATASETS} == {
            name: dataset_digest(file[name]) for name in DATASETS
        }
    assert store_path.read_bytes()[-SEAL_BYTES:].startswith(SEAL)


def test_a_flipped_bit_anywhere_is_refused(store_path: Path, tmp_path: Path) -> None:
    size, rng = store_path.stat().st_size, np.random.default_rng(0)
    places = [0, 9, 60, size - SEAL_BYTES - 1, size - SEAL_BYTES, size - 1, *rng.integers(0, size, 60)]
    for at, bit in zip(places, rng.integers(0, 8, len(places)), strict=True):
        path = flipped(store_path, tmp_path / "flipped.h5", int(at), int(bit))
        with pytest.raises(InputError) as refused:
            Store(path)
        assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
        assert "make it again with python -m methyl_lightning.prepare" in str(refused.value)


@pytest.mark.parametrize("name", ["beta", "expression", "cpgs/sequence", "distances/bp", "genes/start"])
def test_the_damaged_dataset_is_named(store_path: Path, tmp_path: Path, name: str) -> None:
    with h5py.File(store_path) as file:
        at = file[name].id.get_offset() + 5
    path = flipped(store_path, tmp_path / "flipped.h5", at)
    with pytest.raises(InputError, match=rf"flipped\.h5: {name} is damaged, its checksum is another; make it again"):
        Store(path)
    assert_refused(command("prepare", [f"check={path}"], tmp_path), f"flipped.h5: {name} is damaged", "make it again")
    flipped(path, path, at)
    assert len(Store(path).cpgs) == 120  # the very same file, mended


def test_the_truth_beside_a_store_is_verified(store_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(store_path, tmp_path / "cohort.h5"))
    truth = store_path.with_suffix(".truth.h5")
    flipped(truth, tmp_path / "cohort.truth.h5", truth.stat().st_size // 2)
    with pytest.raises(InputError, match=r"cohort\.truth\.h5: damaged, its checksum is another; make it again"):
        read_ceiling(path, np.arange(3), np.arange(3), np.arange(3))


def test_a_store_edited_on_purpose_is_read_without_a_seal(store_path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(store_path, tmp_path / "edited.h5"))
    with h5py.File(path, "r+") as file:
        file["expression"][0, 0] = 3.5
    assert Store(path).expression_SG[0, 0] == 3.5
    assert SEAL not in path.read_bytes()[-SEAL_BYTES:]


def replaced(name: str, **settings: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=values, **settings)

    return edit


def removed(name: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[name]

    return edit


def declared(name: str, shape: tuple[int, ...], **settings: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, kind, **settings)

    return edit


def linked(file: h5py.File) -> None:
    del file["beta"]
    file["beta"] = h5py.ExternalLink("/etc/passwd", "/beta")


def stored_outside(file: h5py.File) -> None:
    shape, kind = file["beta"].shape, file["beta"].dtype
    del file["beta"]
    file.create_dataset("beta", shape, kind, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def miscounted(file: h5py.File) -> None:
    file["distances/indptr"][3] = 10**9


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (replaced("beta", chunks=(10, 10)), ["beta is in chunks or was never written"]),
        (declared("beta", (120, 44)), ["beta"]),
        (declared("beta", (10**9, 10**6)), ["beta is declared as (1000000000, 1000000), more than the file can hold"]),
        (declared("expression", (10**9, 10**6), chunks=(8, 8)), ["expression is declared", "more than the file can"]),
        (removed("beta"), ["has no beta"]),
        (removed("samples"), ["has no samples/id"]),
        (removed("distances/bp"), ["has no distances/bp"]),
        (replaced("genes/start", dtype="f4"), ["genes/start is float32"]),
        (linked, ["beta lies in another file, which is not opened"]),
        (stored_outside, ["beta lies in another file, which is not opened"]),
        (miscounted, ["distances/indptr does not count its entries"]),
        (lambda file: file.attrs.__delitem__("provenance"), ["provenance"]),
    ],
)
def test_other_layouts_are_one_line(
    store_path: Path, tmp_path: Path, edit: Callable[[h5py.File], None], words: list[str]
) -> None:
    path = Path(shutil.copy(store_path, tmp_path / "edited.h5"))
    with h5py.File(path, "r+") as file:
        edit(file)
    assert_refused(command("prepare", ["check=edited.h5"], tmp_path), "edited.h5: ", *words, "make it again")


def test_tables_of_other_sizes_are_refused(store: Store, tmp_path: Path) -> None:
    fewer = contents(store)["genes"].iloc[:-1]
    with pytest.raises(InputError, match=r"expression has 40 rows or columns, genes/symbol 39; make it again"):
        rewrite(store, tmp_path / "short.h5", genes=fewer)
