"""Tables as programs write them: R, Excel, callers of sequencing, the GDC; and what is no table."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from methyl_lightning.files import InputError
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.formats import open_matrix
from methyl_lightning.readers.genes import gene_key
from methyl_lightning.readers.matrices import checked_beta, read_all
from methyl_lightning.readers.text import read_table

GENES, SAMPLES = ["TP53", "EGFR", "MYC"], ["TCGA-AA-0001-01", "TCGA-AA-0002-01"]
VALUES = [[1.5, 2.0], [3.0, 4.25], [5.0, 60.0]]
LINES = [["gene", *SAMPLES], *([gene, *map(str, row)] for gene, row in zip(GENES, VALUES, strict=True))]
TEXT = "".join("\t".join(line) + "\n" for line in LINES)


def beside(described: list[list[str]]) -> bytes:
    """Set columns that describe the rows after their names."""
    rows = zip(LINES, described, strict=True)
    return "".join("\t".join([line[0], *more, *line[1:]]) + "\n" for line, more in rows).encode()


FORMS = {
    "plain": TEXT.encode(),
    "CSV": TEXT.replace("\t", ",").encode(),
    "R, header of one name less": TEXT.removeprefix("gene\t").encode(),
    "R, quoted, dots": TEXT.removeprefix("gene\t").replace("TCGA-AA-", '"TCGA.AA.').replace("-01", '.01"').encode(),
    "write.csv": ('"",' + TEXT.removeprefix("gene\t").replace("\t", ",")).encode(),
    "tabs at the end": TEXT.replace("\n", "\t\n").encode(),
    "tabs at the end of rows": TEXT.replace("\n", "\t\n").replace("01\t\n", "01\n", 1).encode(),
    "tab at the end of the header": TEXT.replace("\n", "\t\n", 1).encode(),
    "several tabs of Excel": TEXT.replace("\n", "\t\t\t\n").encode(),
    "comments": b"# gene-model: GENCODE v36\n#\n" + TEXT.encode(),
    "comment with tabs": b"#a\tb\n" + TEXT.encode(),
    "header with #": b"#" + TEXT.encode(),
    "GCT": b"#1.2\n3\t2\n" + beside([["Description"], ["x y"], [""], ["z"]]),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 of the other order": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-8 mark": TEXT.encode("utf-8-sig"),
    "lone CR": TEXT.replace("\n", "\r").encode(),
    "CRLF": TEXT.replace("\n", "\r\n").encode(),
    "empty lines": b"\n\n" + TEXT.replace("\n", "\n\n").encode(),
    "no newline at the end": TEXT.rstrip().encode(),
    "featureCounts": b"# Program:featureCounts v2.0.1\n"
    + beside([["Chr", "Start", "End", "Strand", "Length"], *[["chr1;chr1", "1;9", "5;20", "+;+", "17"]] * 3]),
    "GDC, several samples": beside([["gene_name", "gene_type"], *[["x", "protein_coding"]] * 3]),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_table(tmp_path: Path, form: str, zipped: bool) -> None:
    path = tmp_path / ("table.csv" if form in ("CSV", "write.csv") else "table.tsv")
    path = path.with_name(path.name + ".gz") if zipped else path
    path.write_bytes(gzip.compress(FORMS[form]) if zipped else FORMS[form])
    for known in ((), {gene_key(gene) for gene in GENES}):
        table = read_all(open_matrix(path, "gene", known=known))
        assert table.index.tolist() == GENES
        assert [name.replace(".", "-") for name in table.columns] == SAMPLES
        np.testing.assert_array_equal(table, VALUES)


@pytest.mark.parametrize(
    "form", ["R, header of one name less", "tabs at the end", "comments", "UTF-16", "lone CR", "CRLF"]
)
def test_small_tables_are_read_by_the_same_header(tmp_path: Path, form: str) -> None:
    (tmp_path / "t.tsv").write_bytes(FORMS[form])
    table = read_table(tmp_path / "t.tsv", SAMPLES)
    assert table.iloc[:, 0].tolist() == GENES and table[SAMPLES[1]].tolist() == ["2.0", "4.25", "60.0"]


QUANTIFIED = {
    "GDC": ("# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\tstranded_first\ttpm_unstranded\n"
    "N_unmapped\t\t\t999\t9\t\nTP53\tTP53\tprotein_coding\t7\t1\t.5\nEGFR\tEGFR\tprotein_coding\t8\t2\t.6\nMYC\tx\ty\t9\t3\t.7\n"),
    "RSEM": "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
    "TP53\ta,b\t9\t8.5\t7\t1\t2\nEGFR\ta\t9\t8\t8\t1\t2\nMYC\ta\t9\t8\t9\t1\t2\n",
    "StringTie": "Gene ID\tGene Name\tReference\tStrand\tStart\tEnd\tCoverage\tFPKM\tTPM\n"
    "TP53\tx\tchr17\t-\t1\t9\t3\t2\t7\nEGFR\tx\tchr7\t+\t1\t9\t3\t2\t8\nMYC\tx\tchr8\t+\t1\t9\t3\t2\t9\n",
    "Cufflinks": "tracking_id\tclass_code\tgene_id\tlocus\tlength\tcoverage\tFPKM\tFPKM_conf_lo\tFPKM_status\n"
    "TP53\t-\tx\tchr17:1-9\t-\t-\t7\t0\tOK\nEGFR\t-\tx\tchr7:1-9\t-\t-\t8\t0\tOK\nMYC\t-\tx\tc\t-\t-\t9\t0\tOK\n",
    "salmon": "Name\tLength\tEffectiveLength\tTPM\tNumReads\nTP53\t9\t8.5\t1\t7\nEGFR\t9\t8\t1\t8\nMYC\t9\t8\t1\t9\n",
}  # fmt: skip


@pytest.mark.parametrize("source", QUANTIFIED)
def test_files_of_one_sample_have_one_sample(tmp_path: Path, source: str) -> None:
    path = tmp_path / "tumour7.counts.tsv"
    path.write_text(QUANTIFIED[source])
    with open_expression(path, None, False, {gene_key(gene) for gene in GENES}) as expression:
        assert expression.obs.index.tolist() == ["tumour7"] and expression.var.index.tolist() == GENES
        assert expression.rows(slice(0, 1)).tolist() == [[7, 8, 9]]
        assert len(expression.notes) == (source == "GDC")


def test_what_describes_a_gene_names_it(tmp_path: Path) -> None:
    path = tmp_path / "gtex.gct"
    path.write_text("#1.2\n2\t1\nName\tDescription\tgene_name\ts1\nENSG00000141510.11\tx\tTP53\t7\nENSG2\ty\tEGFR\t8\n")
    with open_expression(path, None, False, {"TP53", "EGFR"}) as expression:
        assert expression.var["gene_name"].tolist() == ["TP53", "EGFR"] and expression.obs.index.tolist() == ["s1"]


def test_a_table_without_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "counts.txt"
    for text in ("TP53\t7\nEGFR\t8\n", "N_unmapped\t1\t2\t3\nTP53\t1\t2\t3\n", "__no_feature\t7\nTP53\t8\n"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"counts\.txt: its first line is already a gene"):
            open_expression(path, None, False, {"TP53", "EGFR"}).__enter__()


def test_dates_of_excel_are_named(tmp_path: Path) -> None:
    path = tmp_path / "excel.tsv"
    path.write_text("gene\ta\n1-Mar\t5\nTP53\t6\n2-Sep\t7\nSEPT9\t8\nDEC1\t9\n2023-03-02\t1\n")
    with open_expression(path, None, False, {"TP53"}) as expression:
        assert expression.var.index.tolist() == ["TP53", "SEPT9", "DEC1"]
        assert "3 dates that Excel made of names (1-Mar, 2-Sep, once MARCHF1" in expression.notes[0]
    path.write_text("gene\ta\n1-Mar\t5\nTP53\t6\n1-Mar\t7\n")
    with pytest.raises(InputError, match="gene '1-Mar' is a date that Excel made of a name and occurs twice"):
        open_expression(path, None, False, {"TP53"}).__enter__()


def zipped(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.tsv", content)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (gzip.compress, "is zipped by gzip; end its name in .gz"),
        (bz2.compress, "is packed by bzip2"),
        (lzma.compress, "is packed by xz"),
        (lambda content: b"PK\x03\x04" + content, "is a zip archive or an Excel workbook"),
        (lambda content: b"PAR1" + content, "is a Parquet file; end its name in .parquet"),
        (lambda content: b"\x89HDF\r\n" + content, "is an HDF5 file"),
        (lambda content: content.replace(b"\t", b"\0"), "is no text"),
        (lambda content: content.decode().encode("utf-16-le"), "is no text"),
        (lambda content: b"#1.3\n" + content, "is GCT 1.3"),
        (lambda content: b'!Series_title\t"x"\n' + content, "line 1 is of a series matrix of GEO"),
        (lambda content: b"\xd0\xcf\x11\xe0" + content, "is an Excel workbook"),
        (lambda content: b"N_unmapped\t1\t1\t1\nTP53\t2\t1\t1\n", "its first line (N_unmapped, 1, …) is no header"),
        (lambda content: content.replace(b"\t", b";"), "has semicolons between its cells"),
        (lambda content: content.replace(b"1.5", b"1,5"), "column 'TCGA-AA-0001-01' is '1,5'; put a number"),
        (lambda content: content.splitlines(keepends=True)[0], "without a row below its header"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_named(tmp_path: Path, damage, words: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(damage(TEXT.encode()))
    with pytest.raises(InputError, match=f"table.tsv: .*{words.replace('(', '.').replace(')', '.')}") as refusal:
        read_all(open_matrix(path, "gene"))
    assert "\n" not in str(refusal.value)


def test_beta_is_clipped_where_it_was_rounded(tmp_path: Path) -> None:
    path = tmp_path / "beta.tsv"
    path.write_text("x\tTCGA-AA-0001-01\ncg1\t1.0000001\ncg2\t-1.2e-9\ncg3\t0.5\ncg4\tNA\n")
    matrix = open_matrix(path, "probe", missing=True)
    (chunk,) = checked_beta(matrix, matrix.columns)
    np.testing.assert_array_equal(chunk.values_RK[:, 0], np.array([1, 0, 0.5, np.nan], np.float32))
    for value, words in (("1.00001", "is '1.0000"), ("-0.9", "is '-0."), ("7", "is '7")):
        path.write_text(f"x\tTCGA-AA-0001-01\ncg1\t{value}\ncg2\t1.0\n")
        matrix = open_matrix(path, "probe", missing=True)
        with pytest.raises(InputError, match=f"row 'cg1', column 'TCGA-AA-0001-01' {words}"):
            list(checked_beta(matrix, matrix.columns))


def test_marks_of_missing_values_and_blanks_around_names(tmp_path: Path) -> None:
    marks = ["NA", "null", ".", "#N/A", "None", "", "NaN", "<NA>", "n/a"]
    rows = "".join(f" cg{n} \t{mark}\n" for n, mark in enumerate(marks))
    path = tmp_path / "beta.tsv"
    path.write_text("x\t TCGA-AA-0001-01 \n" + rows + "cg9\t0.5\n")
    table = read_all(open_matrix(path, "probe", missing=True))
    assert table.index.tolist() == [f"cg{n}" for n in range(10)] and table.columns.tolist() == ["TCGA-AA-0001-01"]
    assert table.iloc[:9].isna().all(axis=None) and table.iloc[9, 0] == 0.5


def test_statistics_are_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "counts.tsv"
    path.write_text("gene\ts1\tExon count\tGC.content\tbaseMean\tlogFC\tlog2FoldChange\tP.Value\tadj\n")
    path.write_text(path.read_text().replace("adj", "padj") + "TP53\t1\t2\t3\t4\t5\t6\t7\t8\n")
    assert open_matrix(path, "gene").columns == ["s1"]


def test_columns_that_describe_are_said_and_parquet_has_them_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    table = pd.DataFrame(
        {"gene_type": ["a", "b"], "Length": [3, 4], "TCGA-AA-0001-01": [1.0, 2.0]}, index=["TP53", "MYC"]
    )
    table.to_parquet(tmp_path / "x.parquet")
    assert open_matrix(tmp_path / "x.parquet", "gene").columns == ["TCGA-AA-0001-01"]
    assert caplog.messages == [
        f"{tmp_path / 'x.parquet'}: columns gene_type, Length describe the rows and are no samples"
    ]
