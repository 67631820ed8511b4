"""Calls of single cells: .h5ad files of 0, 1 and NaN, and coverage files of Bismark."""

import gzip
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.calls import read_calls

VALUES_SC = np.array([[0, 1, np.nan], [np.nan, 1, 0]], dtype=np.float32)
VAR = pd.DataFrame({"chrom": ["1", "chr1", "chrX"], "position": [10, 20, 5], "context": ["CpG Islands", "x", None]})


def write(path: Path, values: object = VALUES_SC, var: pd.DataFrame = VAR) -> Path:
    obs = pd.DataFrame({"culture": ["a", "b"]}, index=["c1", "c2"])
    anndata.AnnData(values, obs, var.set_axis([f"cpg{i}" for i in range(len(var))])).write_h5ad(path)
    return path


def test_an_h5ad_gives_calls_places_and_context(tmp_path: Path) -> None:
    calls = read_calls(write(tmp_path / "m.h5ad"), 1)
    np.testing.assert_array_equal(calls.beta_CS, VALUES_SC.T)
    assert calls.reads_CS is not None and calls.reads_CS.tolist() == [[1, 0], [1, 1], [0, 1]]
    assert calls.cpgs.to_dict("list") == {
        "id": ["cpg0", "cpg1", "cpg2"],
        "chrom": ["chr1", "chr1", "chrX"],
        "position": [9, 19, 4],
        "island": ["CpG Islands", "x", ""],
    }
    assert list(calls.obs["culture"]) == ["a", "b"]
    assert read_calls(write(tmp_path / "share.h5ad", np.where(VALUES_SC == 1, 0.4, VALUES_SC)), 0).reads_CS is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": sparse.csr_matrix(np.nan_to_num(VALUES_SC))}, "sparse, where 0 and nothing read look alike"),
        ({"values": np.full((2, 3), np.nan, np.float32)}, "no value that is not missing"),
        ({"var": VAR.rename(columns={"position": "where"})}, "no column 'position' among chrom, where, context"),
        ({"var": VAR.assign(position=[10, -1, 5])}, "position of CpG 'cpg1' is"),
    ],
)
def test_what_is_wrong_with_an_h5ad_is_named(tmp_path: Path, change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_calls(write(tmp_path / "m.h5ad", **change), 0)


def coverage(folder: Path, cells: dict[str, str]) -> Path:
    folder.mkdir()
    for name, lines in cells.items():
        text = "\n".join("\t".join(line.split()) for line in lines.splitlines()) + "\n"
        path = folder / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


CELLS = {
    "c1.bismark.cov.gz": "chr1 3 3 100 2 0\nchr1 4 4 0 0 1\nchr2 7 7 25 100 300",
    "c2.cov": "1 3 3 0 0 1\n1 6 6 100 1 0",
    "notes.txt": "other",
}


def test_coverage_files_give_shares_of_reads(tmp_path: Path) -> None:
    calls = read_calls(coverage(tmp_path / "cells", CELLS), 0)
    assert list(calls.obs.index) == ["c1", "c2"]
    assert calls.cpgs["id"].tolist() == ["chr1_2", "chr1_3", "chr1_5", "chr2_6"]
    assert calls.reads_CS is not None and calls.reads_CS.tolist() == [[2, 1], [1, 0], [0, 1], [255, 0]]
    np.testing.assert_array_equal(calls.beta_CS, np.float32([[1, 0], [0, np.nan], [np.nan, 1], [0.25, np.nan]]))
    both = read_calls(tmp_path / "cells", 0, least_share=1)
    assert both.cpgs["id"].tolist() == ["chr1_2"]


def test_a_genome_puts_the_strands_of_a_cpg_together(tmp_path: Path) -> None:
    genome = tmp_path / "g.fa"
    genome.write_text(">chr1\nAACGATT\n>chr2\nAAAAACG\n")  # chr1: C at 2, G at 3; chr2: C at 5, G at 6
    calls = read_calls(coverage(tmp_path / "cells", CELLS), 0, genome=genome)
    assert calls.cpgs["id"].tolist() == ["chr1_2", "chr2_5"]
    assert calls.reads_CS is not None and calls.reads_CS.tolist() == [[3, 1], [255, 0]]
    np.testing.assert_allclose(calls.beta_CS, [[2 / 3, 0], [0.25, np.nan]], rtol=1e-6)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("chr1 3 3 100 2", "c.cov: no coverage file of Bismark"),
        ("chr1 3 3 100 0 0", "c.cov: line 1 has no reads"),
        ("chr1 3 3 100 1 0\nchr1 3 3 100 1 0", "c.cov: position chr1:3 occurs twice"),
    ],
)
def test_what_is_wrong_with_a_coverage_file_is_named(tmp_path: Path, lines: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_calls(coverage(tmp_path / "cells", {"c.cov": lines}), 0)


def test_a_folder_without_coverage_and_cpgs_in_too_few_cells_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no coverage file of Bismark in it"):
        read_calls(tmp_path / "empty", 0)
    with pytest.raises(InputError, match="none of 1 CpGs is read in 100% of the cells"):
        read_calls(coverage(tmp_path / "few", {"a.cov": "chr1 3 3 0 0 1", "b.cov": ""}), 0, least_share=1)
