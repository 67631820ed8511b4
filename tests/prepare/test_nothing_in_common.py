"""Files that have nothing in common are refused with an example of either side; how much they have is said."""

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from raw_tables import TABLES, edit, make_cohort, write_cohort, write_table

from methyl_lightning.data.store import ALPHABET
from methyl_lightning.files import InputError
from methyl_lightning.readers.probes import chromosome


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_cohort(tmp_path)


def replaced(path: Path, **names: str) -> Path:
    text = path.read_text()
    for old, new in names.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


EPIC2 = {"cg1": "cg1_TC21", "cg2": "cg2_BO11", "cg3": "cg3_TC12"}


@pytest.mark.parametrize("table", ["methylation", "probe_map", "sequences"])
def test_names_of_epicv2_meet_those_of_other_arrays(files: dict[str, Path], table: str) -> None:
    expected = make_cohort(files)
    names, places, bases = (
        expected.cpgs["id"].tolist(),
        expected.cpgs["position"].tolist(),
        np.array(expected.sequence_CL),
    )
    replaced(files[table], **{cpg: new for cpg, new in EPIC2.items() if cpg in files[table].read_text()})
    store = make_cohort(files)
    assert (store.cpgs["id"].tolist(), store.cpgs["position"].tolist()) == (names, places)
    np.testing.assert_array_equal(store.sequence_CL, bases)


def test_of_several_probes_of_a_cpg_the_first_is_taken(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    header, *rows = TABLES["methylation"]
    again = [["cg1_BC21", *("0.9" for _ in rows[0][1:])]]
    write_table(files["methylation"], [header, *([f"{row[0]}_TC21", *row[1:]] for row in rows), *again])
    store = make_cohort(files)
    assert store.cpgs["id"].tolist() == ["cg1", "cg2", "cg3"]
    np.testing.assert_allclose(store.beta(np.arange(1), np.arange(4)), [[0.1, 0.2, np.nan, 0.4]], atol=1e-6)
    assert "4 probes of 3 CpGs (EPICv2), of several of one the first is taken" in caplog.text
    assert "probe_map.tsv: places 1 of 3 CpGs" in caplog.text
    assert "samples: 4 in both, 5 with methylation, 5 with expression" in caplog.text
    assert "1 of 3 CpGs have a gene within 100,000 bp" in caplog.text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["chr1", "Chr1", "CHR1", "1", "01", "chr01", "NC_000001.10", "NC_000001.11", "CM000663.2", "chromosome 1"],
            "chr1",
        ),
        (["X", "x", "chrx", "CHRX", "23", "chr23", "NC_000023.11", "CM000685.1"], "chrX"),
        (["24", "Y", "CM000686.2"], "chrY"),
        (["MT", "mt", "chrMT", "M", "26", "NC_012920.1"], "chrM"),
        (["chr1_KI270706v1_random"], "chr1_KI270706v1_random"),
        (["GL000192.1"], "chrGL000192.1"),
    ],
)
def test_spellings_of_chromosomes(names: list[str], expected: str) -> None:
    assert {chromosome(name) for name in names} == {expected}


@pytest.mark.parametrize("spelling", ["Chr1", "CHR1", "1", "NC_000001.10"])
def test_maps_with_other_spellings_place_the_same(files: dict[str, Path], spelling: str) -> None:
    replaced(files["probe_map"], chr1=spelling)
    store = make_cohort(files)
    assert (store.cpgs["chrom"].iloc[0], store.cpgs["position"].iloc[0]) == ("chr1", 1000)
    assert len(store.distances.bp_N) == 2


def refused(files: dict[str, Path], *words: str, **options: object) -> None:
    with pytest.raises(InputError) as refusal:
        make_cohort(files, **options)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_a_map_of_other_probes_is_refused(files: dict[str, Path]) -> None:
    replaced(files["probe_map"], cg1="A_23_P1", cg2="A_23_P2")
    refused(files, "probe_map.tsv: has none of the 3 CpGs ('cg1', … there, 'A_23_P1', … here)")


def test_a_map_without_a_position_is_refused(files: dict[str, Path]) -> None:
    edit(files["probe_map"], "chr1\t1001", "chr1\t-1")
    refused(files, "probe_map.tsv: gives none of the 3 CpGs a position from 1")


def test_lists_that_name_nobody_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("cg00000029\ncg00000108\n")
    for name in ("ids", "exclude"):
        refused(
            files, "list.txt: none of its CpGs is in the cohort ('cg1', … there, 'cg00000029'", selection={name: path}
        )
    path.write_text("chr7\t0\t10\n")
    refused(files, "no CpG is left by the filter 'in list.txt'", "(chr1:1000, …)", selection={"bed": path})


def test_tables_of_other_samples_and_genes_are_refused(files: dict[str, Path]) -> None:
    replaced(files["genes"], PLUS="A1BG", MINUS="A2M", ENSG00000000002="ENSG00000000009")
    refused(files, "genes.tsv: no gene of the expression table is in it ('PLUS', … there, 'A1BG', … here)")
    replaced(files["expression"], **{f"TCGA.{name}": f"TCGA.X{name[0]}" for name in ("AA", "BB", "CC")})
    refused(files, "has no sample of", "TCGA.XC.0003.02, … here, TCGA-AA-0001-01, … there")


def test_a_manifest_of_illumina_is_a_map(files: dict[str, Path], tmp_path: Path) -> None:
    header = "IlmnID,Name,AddressA_ID,CHR,MAPINFO,Strand,UCSC_RefGene_Name,Relation_to_UCSC_CpG_Island"
    lines = ["Illumina,,,", "[Heading],,", "Descriptor File Name,x,", "[Assay],,", header]
    lines += ['cg1_TC21,cg1,1,1,1001,F,"A;B,C",Island', "cg2_BC21,cg2,2,,,R,,", "[Controls],,", "1,NEGATIVE,x"]
    path = tmp_path / "manifest.csv.gz"
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    store = make_cohort(files | {"probe_map": path}, islands=path)
    assert store.cpgs["position"].tolist() == [1000, -1, -1] and store.cpgs["island"].tolist() == [
        "Island",
        "OpenSea",
        "",
    ]
    assert "".join(ALPHABET[code] for code in store.sequence_CL[0]) == "GTCGAA"
