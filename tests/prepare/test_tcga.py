"""Several cohorts in one store, barcodes of every length, and which CpGs are kept."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from raw_tables import SAMPLES, edit, make_cohort, write_cohort, write_table

from methyl_lightning.data.store import ALPHABET
from methyl_lightning.files import InputError
from methyl_lightning.prepare.samples import pair_samples

OTHER = {
    "methylation": [
        ["sample", "TCGA-DD-0004-01", "TCGA-EE-0005-01"],
        ["cg9", "0.6", "0.7"],
        ["cg2", "NA", "0.3"],
    ],
    "expression": [
        ["sample", "TCGA-DD-0004-01", "TCGA-EE-0005-01"],
        ["OTHER", "9", "9"],
        ["ENSG00000000002.12", "11", "12"],
        ["PLUS", "13", "14"],
    ],
    "probe_map": [["#id", "chrom", "chromStart"], ["cg9", "chr2", "71"], ["cg2", "chr1", "1401"]],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_cohort(tmp_path)


@pytest.fixture
def both(files: dict[str, Path], tmp_path: Path) -> dict[str, Any]:
    """Give the settings of two cohorts, the second with tables in another order and a probe map of its own."""
    other = {name: write_table(tmp_path / f"other_{name}.tsv", rows) for name, rows in OTHER.items()}
    own = {name: files[name] for name in ("methylation", "expression")}
    return {"cohorts": {"ONE": own, "TWO": other}, "methylation": None, "expression": None, "sequences": None}


def test_cohorts_stand_side_by_side(files: dict[str, Path], both: dict[str, Any]) -> None:
    store = make_cohort(files, **both)
    assert store.samples["id"].tolist() == [*SAMPLES, "TCGA-DD-0004-01", "TCGA-EE-0005-01"]
    assert store.samples["cohort"].tolist() == ["ONE"] * 4 + ["TWO"] * 2
    assert store.genes["id"].tolist() == ["PLUS", "ENSG00000000002.7"]
    assert store.expression_SG.tolist() == [[1, 5], [2, 6], [3, 7], [4, 8], [13, 11], [14, 12]]
    assert store.cpgs["id"].tolist() == ["cg1", "cg2", "cg3", "cg9"]
    assert store.cpgs["chrom"].tolist() == ["chr1", "chr1", "", "chr2"]
    assert store.cpgs["position"].tolist() == [1000, 1400, -1, 70]
    nan = np.nan
    expected_CS = [
        [0.1, 0.2, nan, 0.4, nan, nan],
        [0, 1, 0.25, 0.75, nan, 0.3],
        [0.5, 0.5, 0.5, nan, nan, nan],
        [nan, nan, nan, nan, 0.6, 0.7],
    ]
    np.testing.assert_allclose(store.beta(np.arange(4), np.arange(6)), expected_CS, atol=1e-6)
    record = store.attributes["provenance"]
    assert record["counts"]["missing_share"] == pytest.approx(11 / 24)
    assert record["cohorts"][1] == {"name": "TWO", "cpgs": 2, "samples": 2, "genes": 3, "duplicates_left_out": []}
    assert [one["file"] for one in record["inputs"]].count("probe_map.tsv") == 1


def test_cpgs_of_every_cohort(files: dict[str, Path], both: dict[str, Any]) -> None:
    store = make_cohort(files, cpg_join="intersection", **both)
    assert store.cpgs["id"].tolist() == ["cg2"]
    expected_CS = [[0, 1, 0.25, 0.75, np.nan, 0.3]]
    np.testing.assert_allclose(store.beta(np.arange(1), np.arange(6)), expected_CS, atol=1e-6)


def test_cohorts_without_a_common_cpg(files: dict[str, Path], both: dict[str, Any], tmp_path: Path) -> None:
    edit(tmp_path / "other_methylation.tsv", "cg2", "cg8")
    refused(files, ["cpg_join=intersection", "share no CpG"], cpg_join="intersection", **both)


def test_sequences_of_every_cohort(files: dict[str, Path], both: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "other.fa"
    other.write_text(">cg9\nAACGTT\n>cg2\nGGCGGG\n")
    both["cohorts"]["TWO"]["sequences"] = str(other)
    both["cohorts"]["ONE"]["sequences"] = str(files["sequences"])
    store = make_cohort(files, **both)
    sequences = ["".join(ALPHABET[code] for code in codes) for codes in store.sequence_CL]
    assert sequences == ["GTCGAA", "TTCGTT", "TTCGNN", "AACGTT"]  # cg2 as the first cohort has it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"assembly": "hg38"}, ["ONE is on hg19, TWO on hg38"]),
        ({"probe_mop": "x"}, ["data.source.cohorts.TWO", "'probe_mop'", "probe_map"]),
        ({"expression": None}, ["data.source.expression", "data.source.cohorts.TWO.expression"]),
        ({"expression": "none.tsv"}, ["none.tsv: cannot be read"]),
    ],
)
def test_wrong_cohorts_are_named(
    files: dict[str, Path], both: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    both["cohorts"]["TWO"] |= change
    refused(files, words, **both)


def refused(files: dict[str, Path], words: list[str], **options: Any) -> None:
    folder = files["methylation"].parent
    before = sorted(folder.iterdir())
    with pytest.raises(InputError) as refusal:
        make_cohort(files, **options)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)
    assert sorted(folder.iterdir()) == before


def test_cohorts_on_different_assemblies_are_recognised(files: dict[str, Path], both: dict[str, Any]) -> None:
    edit(files["probe_map"], "chr1\t-1\t-1", "chr1\t1501\t1502")
    words = ["other_probe_map.tsv", "1 CpGs", "'cg2' at chr1:1500 and chr1:1400", "assembly"]
    refused(files, words, **both)


def test_sample_of_two_cohorts_is_named(files: dict[str, Path], both: dict[str, Any], tmp_path: Path) -> None:
    for name in ("methylation", "expression"):
        edit(tmp_path / f"other_{name}.tsv", "TCGA-EE-0005-01", SAMPLES[0])
    refused(files, ["other_methylation.tsv", SAMPLES[0], "ONE and TWO"], **both)


def test_cohorts_without_a_common_gene(files: dict[str, Path], both: dict[str, Any], tmp_path: Path) -> None:
    edit(tmp_path / "other_expression.tsv", "PLUS", "P")
    edit(tmp_path / "other_expression.tsv", "ENSG00000000002.12", "E")
    refused(files, ["other_expression.tsv", "no gene of", "expression.tsv"], **both)


def test_gene_in_two_versions_is_named(files: dict[str, Path]) -> None:
    edit(files["expression"], "NOWHERE", "ENSG00000000002.8")
    refused(files, ["expression.tsv", "'ENSG00000000002'", "two versions"])


def test_join_is_one_of_two(files: dict[str, Path]) -> None:
    refused(files, ["cpg_join='outer'", "union, intersection"], cpg_join="outer")


def pairs(methylation: list[str], expression: list[str]) -> tuple[list[tuple[str, str, str]], list[str]]:
    found, left_out = pair_samples(Path("m"), methylation, Path("e"), expression)
    return list(zip(*found, strict=True)), left_out


def test_barcodes_of_every_length_meet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found, left_out = pairs(
        ["TCGA.AA.0001", "TCGA-BB-0002-11A-22D-A123-05", "TCGA-CC-0003-01A", "TCGA-DD-0004-01"],
        ["TCGA-CC-0003-01", "TCGA-BB-0002-11", "TCGA-BB-0002-01", "TCGA-AA-0001-01A"],
    )
    assert found == [
        ("TCGA-AA-0001-01", "TCGA.AA.0001", "TCGA-AA-0001-01A"),
        ("TCGA-BB-0002-11", "TCGA-BB-0002-11A-22D-A123-05", "TCGA-BB-0002-11"),
        ("TCGA-CC-0003-01", "TCGA-CC-0003-01A", "TCGA-CC-0003-01"),
    ]
    assert left_out == []
    assert "m: 1 barcodes of 12 characters are taken as primary tumours" in caplog.text


def test_one_column_a_patient_and_tissue(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found, left_out = pairs(
        ["TCGA-AA-0001-01B", "TCGA-AA-0001-01A", "TCGA-BB-0002-01A", "TCGA-BB-0002-01B", "TCGA-AA-0001-11A"],
        ["TCGA-BB-0002-01B", "TCGA-AA-0001-01B", "TCGA-AA-0001-01A", "TCGA-AA-0001-11A"],
    )
    assert found == [  # the lowest vial, or the one that both tables have
        ("TCGA-AA-0001-01", "TCGA-AA-0001-01A", "TCGA-AA-0001-01A"),
        ("TCGA-BB-0002-01", "TCGA-BB-0002-01B", "TCGA-BB-0002-01B"),
        ("TCGA-AA-0001-11", "TCGA-AA-0001-11A", "TCGA-AA-0001-11A"),
    ]
    assert left_out == ["TCGA-AA-0001-01B", "TCGA-BB-0002-01A", "TCGA-AA-0001-01B"]
    assert "m: 2 further columns of the same patient and tissue left out" in caplog.text


def test_duplicates_are_in_the_provenance(files: dict[str, Path]) -> None:
    edit(files["methylation"], "TCGA-ZZ-9999-01", "TCGA-AA-0001-01B")
    edit(files["methylation"], "TCGA-AA-0001-01\t", "TCGA-AA-0001-01A\t")
    store = make_cohort(files)
    assert store.samples["id"].tolist() == SAMPLES
    assert store.beta(np.array([0]), np.array([0])).item() == pytest.approx(0.1)
    assert store.attributes["provenance"]["cohorts"][0]["duplicates_left_out"] == ["TCGA-AA-0001-01B"]


def test_tables_of_the_gdc(tmp_path: Path) -> None:
    """Vials, real duplicates, empty cells for missing ones, versions of Ensembl ids, gene map of the hub, hg38."""
    tables = {
        "methylation": [
            ["Composite Element REF", "TCGA-AA-0001-01B", "TCGA-AA-0001-01A", "TCGA-BB-0002-11A"],
            ["cg1", "0.9", "0.1", ""],
            ["cg2", "0.9", "0.2", "0.3"],
        ],
        "expression": [
            ["Ensembl_ID", "TCGA-BB-0002-11A", "TCGA-AA-0001-01A"],
            ["ENSG00000000002.15", "1.5", "2.5"],
            ["ENSG00000000003.15_PAR_Y", "0", "0"],
        ],
        "genes": [
            ["id", "gene", "chrom", "chromStart", "chromEnd", "strand"],
            ["ENSG00000000002.15", "TWO", "chr1", "101", "700", "-"],
        ],
        "probe_map": [
            ["#id", "gene", "chrom", "chromStart", "chromEnd", "strand"],
            ["cg1", "TWO", "chr1", "1001", "1003", "."],
            ["cg2", "TWO", "chr1", "1101", "1103", "."],
        ],
    }
    files = {name: write_table(tmp_path / f"{name}.tsv", rows) for name, rows in tables.items()}
    store = make_cohort(files, assembly="hg38", units="log2(tpm+1)", window=4)
    assert store.samples["id"].tolist() == ["TCGA-AA-0001-01", "TCGA-BB-0002-11"]
    assert store.samples["tissue_type"].tolist() == ["Primary Tumor", "Solid Tissue Normal"]
    beta_CS = store.beta(np.arange(2), np.arange(2))
    np.testing.assert_allclose(beta_CS, [[0.1, np.nan], [0.2, 0.3]], atol=1e-6)
    assert store.genes["symbol"].tolist() == ["TWO", "ENSG00000000003.15_PAR_Y"]
    assert store.distances.bp_N.tolist() == [699 - 1000, 699 - 1100]
    assert store.expression_SG.tolist() == [[2.5, 0], [1.5, 0]]
    assert store.attributes["assembly"] == "hg38"


def test_selection_is_counted(files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    edit(files["sequences"], "aattcgttaa", "aatttgttaa")
    store = make_cohort(files, selection={"min_measured": 0.7})
    assert store.cpgs["id"].tolist() == ["cg1", "cg3"]
    record = store.attributes["provenance"]
    assert record["filters"] == [
        {"filter": "all", "kept": 3, "dropped": 0},
        {"filter": "on CG", "kept": 2, "dropped": 1},
        {"filter": "measured in 70% of samples", "kept": 2, "dropped": 0},
    ]
    assert record["counts"]["cpgs"] == 2 and record["counts"]["missing_share"] == pytest.approx(2 / 8)
    assert "on CG" in caplog.text
    assert store.distances.indptr_C.tolist() == [0, 2, 2]
    ids = write_table(tmp_path / "ids.txt", [["cg3"], ["cg2"]])
    store = make_cohort(files, selection={"ids": str(ids), "on_cg": False})
    assert store.cpgs["id"].tolist() == ["cg2", "cg3"]
    assert ids.name in [one["file"] for one in store.attributes["provenance"]["inputs"]]
    refused(files, ["no.bed: cannot be read"], selection={"bed": "no.bed"})


def test_islands_are_kept(files: dict[str, Path], tmp_path: Path) -> None:
    table = pd.DataFrame({"probe": ["cg2", "cg1", "cg7"], "Relation_to_Island": ["N_Shore", "Island", "OpenSea"]})
    table.to_parquet(tmp_path / "islands.parquet")
    store = make_cohort(files, islands=tmp_path / "islands.parquet")
    assert store.cpgs["island"].tolist() == ["Island", "N_Shore", ""]


def test_genome_gives_the_sequences(files: dict[str, Path], tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa"
    bases = np.random.default_rng(0).choice(list("AT"), 3000)
    bases[1000:1002] = "C", "G"
    genome.write_text(">chr1\n" + "".join(bases) + "\n")
    store = make_cohort(files, sequences=None, genome=genome, window=20)
    assert "".join(ALPHABET[code] for code in store.sequence_CL[0]) == "".join(bases[991:1011])
    assert (store.sequence_CL[1:] == ALPHABET.index("N")).all()
    centres = store.attributes["provenance"]["sequences"]
    assert centres == {"positions_with_bases": 1, "cg_at_-1": 0, "cg_at_0": 1, "cg_at_+1": 0}
    refused(
        files, ["probe_map.tsv", "set probe_map_base=1"], sequences=None, genome=genome, window=20, probe_map_base=0
    )


def test_probes_are_turned_to_the_genome(files: dict[str, Path], tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa"
    genome.write_text(">chr1\n" + "A" * 996 + "GGTTCGACGT" + "A" * 500 + "\n")  # of cg1: the other strand of its probe
    store = make_cohort(files, genome=genome, window=10)
    assert "".join(ALPHABET[code] for code in store.sequence_CL[0]) == "GGTTCGACGT"
    assert store.attributes["provenance"]["sequences"]["turned"] == 1
