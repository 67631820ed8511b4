"""Probe maps and islands as different hubs write them."""

from pathlib import Path

import pandas as pd
import pytest

from methyl_lightning.files import InputError
from methyl_lightning.readers.probes import chromosome, locate_cpgs, read_islands

# the same two CpGs as each source writes them, and the position of its first base
XENA = "#id gene chrom chromStart chromEnd strand"
MAPS = {
    "Xena legacy hub": (0, XENA, "cg1 . chr7 99 101 .", "cg2 A,B chrX 49 51 ."),
    "Xena GDC hub": (1, XENA, "cg1 . chr7 100 101 .", "cg2 A chrX 50 51 ."),
    "minfi": (1, "Name chr pos strand Relation_to_Island", "cg1 chr7 100 + OpenSea", "cg2 chrX 50 - Island"),
    "Illumina": (1, "IlmnID CHR MAPINFO Strand", "cg1 7 100 F", "cg2 X 50 R"),
    "Zhou lab": (0, "CpG_chrm CpG_beg CpG_end probe_strand probeID", "chr7 99 101 + cg1", "chrX 49 51 - cg2"),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chr1", "chr1"),
        ("22", "chr22"),
        ("X", "chrX"),
        ("MT", "chrM"),
        ("chrMT", "chrM"),
        ("chrM", "chrM"),
        ("NC_000001.10", "chr1"),
        ("NC_000020.11", "chr20"),
        ("NC_000024.9", "chrY"),
        ("NC_012920.1", "chrM"),
        ("NC_000067.6", "chrNC_000067.6"),  # of the mouse
        ("GL000192.1", "chrGL000192.1"),
        (" chr1 ", "chr1"),
        ("1.0", "chr1"),  # of a column of floats
        ("NA", ""),
        (".", ""),
        ("*", ""),
        ("", ""),
    ],
)
def test_chromosome(name, expected):
    assert chromosome(name) == expected


@pytest.mark.parametrize("source", MAPS)
def test_probe_map(tmp_path, source):
    base, *lines = MAPS[source]
    path = tmp_path / "map.tsv"
    path.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    cpgs = locate_cpgs(path, ["cg2", "cg9", "cg1"], base)
    assert cpgs["id"].tolist() == ["cg2", "cg9", "cg1"]
    assert cpgs["chrom"].tolist() == ["chrX", "", "chr7"]
    assert cpgs["position"].tolist() == [49, -1, 99]
    assert cpgs["island"].tolist() == ["", "", ""]


def test_probe_map_as_parquet(tmp_path):
    path = tmp_path / "map.parquet"
    table = {"probe": ["cg1", "cg2", "rs3"], "chr_hg19": ["chr7", "chrX", None], "pos_hg19": [100.0, 50.0, None]}
    pd.DataFrame(table).to_parquet(path)
    cpgs = locate_cpgs(path, ["rs3", "cg2", "cg1"], 1)
    assert cpgs["chrom"].tolist() == ["", "chrX", "chr7"]
    assert cpgs["position"].tolist() == [-1, 49, 99]
    assert cpgs["strand"].tolist() == ["", "", ""]


def test_whole_numbers_as_r_and_pandas_write_them(tmp_path):
    rows = ["cg1\tchr1\t1e+05", "cg2\tchr1\t1000.0", "cg3\tchr1\t.", "cg4\tchr1\tNA", "cg5\tchr1\t7"]
    (tmp_path / "map.tsv").write_text("id\tchrom\tpos\n" + "\n".join(rows) + "\n")
    positions = locate_cpgs(tmp_path / "map.tsv", ["cg1", "cg2", "cg3", "cg4", "cg5"], 1)["position"]
    assert positions.tolist() == [99_999, 999, -1, -1, 6]


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        ("id\tchrom\tpos_hg18\tpos_hg19", "cg1\tchr1\t5\t6", r"'pos_hg18' and 'pos_hg19' may both be 'chromStart'"),
        ("id\tchrom\tcoordinate", "cg1\tchr1\t5", "no column 'chromStart' among id, chrom, coordinate"),
        ("id\tchrom\tchromStart", "cg1\tchr1\t5.5", "row 'cg1', column 'chromStart' is '5.5'"),
        ("id\tchrom\tchromStart", "cg1\tchr1\t5\ncg1\tchr1\t6", "probe 'cg1' occurs twice"),
    ],
)
def test_bad_probe_map_is_refused(tmp_path, header, row, words):
    path = tmp_path / "map.tsv"
    path.write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=f"map.tsv: .*{words}"):
        locate_cpgs(path, ["cg1"], 1)


def test_bad_parquet_is_refused(tmp_path):
    path = tmp_path / "map.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"map.parquet: cannot be read as parquet .* get the file again"):
        locate_cpgs(path, ["cg1"], 1)


def write_islands(path: Path, column: str, relations: dict[str, str]) -> Path:
    path.write_text(f"Name\t{column}\n" + "".join(f"{cpg}\t{relation}\n" for cpg, relation in relations.items()))
    return path


@pytest.mark.parametrize(
    "column", ["Relation_to_Island", "Relation_to_UCSC_CpG_Island", "cpg_island_relation", "island"]
)
def test_islands(tmp_path, column):
    relations = {"cg1": "Island", "cg2": "N_Shore", "cg3": "S_Shelf", "cg4": "OpenSea", "cg5": ""}
    path = write_islands(tmp_path / "islands.tsv", column, relations)
    assert read_islands(path, ["cg4", "cg9", "cg2", "cg5", "cg1"]).tolist() == ["OpenSea", "", "N_Shore", "", "Island"]
    parquet = tmp_path / "islands.parquet"
    pd.DataFrame({"probe": list(relations), column: list(relations.values())}).to_parquet(parquet)
    assert read_islands(parquet, list(relations)).tolist() == list(relations.values())


def test_an_empty_relation_is_open_sea_where_no_cell_says_so(tmp_path):
    path = write_islands(tmp_path / "manifest.tsv", "Relation_to_UCSC_CpG_Island", {"cg1": "S_Shore", "cg2": ""})
    assert read_islands(path, ["cg2", "cg1", "cg3"]).tolist() == ["OpenSea", "S_Shore", ""]


@pytest.mark.parametrize(
    ("relations", "words"),
    [
        ({"cg1": "Shore"}, "row 'cg1', column 'island' is 'Shore'; name one of Island, N_Shore"),
        ({"cg8": "Island"}, "none of the CpGs is in it .'cg1'"),
    ],
)
def test_bad_islands_are_refused(tmp_path, relations, words):
    path = write_islands(tmp_path / "islands.tsv", "island", relations)
    with pytest.raises(InputError, match=f"islands.tsv: {words}"):
        read_islands(path, ["cg1"])
