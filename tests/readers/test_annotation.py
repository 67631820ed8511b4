"""What lies around a CpG equals a count base by base."""

from pathlib import Path

import numpy as np
import pandas as pd

from methyl_lightning.data.store import ANNOTATION, AROUND_BP
from methyl_lightning.readers.annotation import annotate, read_landmarks
from methyl_lightning.readers.fasta import cpg_positions, open_fasta

CPGS = pd.DataFrame({"chrom": ["chr1", "chr1", "chr2", "chr1", ""], "position": [150, 3_000, 40, 9_000, -1]})


def column(annotation_CP: np.ndarray, name: str) -> np.ndarray:
    return annotation_CP[:, ANNOTATION.index(name)]


def write_probes(path: Path) -> Path:
    rows = [
        "probe\tchr\tpos\tIslands_Name\tRelation_to_Island",
        "cg1\tchr1\t151\tchr1:101-200\tIsland",  # 1-based
        "cg2\tchr1\t201\tchr1:101-200\tS_Shore",
        "cg3\tchr1\t3001\tchr1:101-200\tS_Shelf",
        "cg4\tchr2\t41\t\tOpenSea",
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_islands_and_probes_are_those_of_the_array(tmp_path: Path) -> None:
    landmarks = read_landmarks(write_probes(tmp_path / "probes.tsv"), 1)
    assert landmarks.probes["chr1"].tolist() == [150, 200, 3_000]
    assert landmarks.islands["chr1"].tolist() == [[100, 200]]
    annotation = annotate(CPGS, landmarks)
    assert column(annotation, "island")[[0, 1, 3]].tolist() == [1, 0, 0]
    assert column(annotation, "shelf")[[0, 1, 3]].tolist() == [0, 1, 0]
    assert column(annotation, "open_sea")[[0, 1, 3]].tolist() == [0, 0, 1]
    np.testing.assert_allclose(column(annotation, "island_log_bp")[[0, 1, 3]], np.log1p([0, 2_801, 8_801]))
    np.testing.assert_allclose(column(annotation, "island_log_length")[[0, 1, 3]], [np.log(101), np.log(101), 0])
    np.testing.assert_allclose(column(annotation, "log_probes_100")[:4], np.log1p([2, 1, 1, 0]))
    np.testing.assert_allclose(column(annotation, "log_probes_10000")[:4], np.log1p([3, 3, 1, 3]))
    assert np.isnan(column(annotation, "island")[[2, 4]]).all()  # no island is known there; no place
    assert np.isnan(column(annotation, "log_cpgs_100")).all()  # no genome


def test_cpgs_of_the_genome_are_counted_on_either_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGTcgN"), 9_500))
    (tmp_path / "genome.fa").write_text(f">chr1\n{text}\n")
    with open_fasta(tmp_path / "genome.fa") as genome:
        sites = cpg_positions(genome, "chr1")
        assert cpg_positions(genome, "chr2") is None
        annotation = annotate(CPGS, genome=genome)
    upper = text.upper()
    assert sites is not None
    assert sites.tolist() == [i for i in range(len(upper) - 1) if upper[i : i + 2] == "CG"]
    for reach in AROUND_BP:
        expected = [np.log1p(np.sum(np.abs(sites - p) <= reach)) for p in (150, 3_000, 9_000)]
        np.testing.assert_allclose(column(annotation, f"log_cpgs_{reach}")[[0, 1, 3]], expected, rtol=1e-6)
    assert np.isnan(column(annotation, "log_cpgs_100")[[2, 4]]).all()


def test_a_table_with_relations_alone_has_no_landmarks(tmp_path: Path) -> None:
    (tmp_path / "relations.tsv").write_text("probe\tRelation_to_Island\ncg1\tIsland\ncg2\tOpenSea\n")
    landmarks = read_landmarks(tmp_path / "relations.tsv", 1)
    assert landmarks == ({}, {})
    assert np.isnan(annotate(CPGS, landmarks)).all()
