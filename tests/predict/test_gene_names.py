"""The names that genes have in files of CELLxGENE, Seurat, scanpy, the TCGA and R, and in HGNC's own table."""

from pathlib import Path

import pandas as pd
import pytest

from methyl_lightning.predict.genes import index_genes, match_genes, read_aliases
from methyl_lightning.readers.genes import gene_keys, locate_genes

SYMBOLS, IDS = ["TP53", "SEPTIN9", "HLA-A"], ["ENSG00000141510", "ENSG00000184640", "ENSG00000206503"]
BY_SYMBOL = pd.DataFrame({"id": SYMBOLS, "symbol": SYMBOLS})
BY_ID = pd.DataFrame({"id": IDS, "symbol": SYMBOLS})


def matched(
    names: list[str], genes: pd.DataFrame, aliases: pd.DataFrame | None = None, **columns: list[str]
) -> list[int]:
    """Match names, then each alone: the gene of every name, −1 where it is none's."""
    known = index_genes(genes, aliases)
    found = []
    for k, name in enumerate(["TP53", *names]):  # so that one is matched in any case
        var = pd.DataFrame({column: ["", *values][k : k + 1] for column, values in columns.items()}, index=[name])
        both = pd.concat([pd.DataFrame(index=["TP53"]), var]).fillna("")
        match = match_genes("x", both.index.tolist(), both, genes, known)
        row = match.sum_IK[[1]]
        found.append(int(match.gene_K[row.indices[0]]) if row.nnz else -1)
    return found[1:]


@pytest.mark.parametrize(
    "column",
    ["feature_name", "gene_name", "gene_short_name", "hgnc_symbol", "gene_symbols", "gene_symbol", "Symbol", "SYMBOL",
     "features", "external_gene_name", "Gene", "gene_names", "Hugo_Symbol", "Gene Symbol", "Gene.name", "gene-name"],
)  # fmt: skip
def test_columns_that_name_genes(column: str) -> None:
    assert matched(["g0", "g1", "g2"], BY_SYMBOL, **{column: SYMBOLS}) == [0, 1, 2]


@pytest.mark.parametrize(
    "column", ["gene_ids", "gene_id", "ensembl_id", "feature_id", "ensembl_gene_id", "ENSEMBL", "Ensembl_ID"]
)
def test_columns_with_ids(column: str) -> None:
    assert matched(["g0", "g1", "g2"], BY_ID, **{column: [f"{name}.{k}" for k, name in enumerate(IDS)]}) == [0, 1, 2]


@pytest.mark.parametrize(
    "names",
    [
        ["GRCh38_TP53", "GRCh38_SEPTIN9", "GRCh38_HLA-A"],
        ["hg19_TP53", "hg38-2020-A_SEPTIN9", "GRCh38______HLA-A"],
        ["GRCh38-TP53", "hg19---SEPTIN9", "human_HLA-A"],  # Seurat makes dashes of underscores
        ["TP53|7157", "SEPTIN9|10801", "HLA-A|3105"],  # of the TCGA
        ["ENSG00000999999.1_TP53", "ENSG00000999998|SEPTIN9", "HLA-A_ENSG00000999997.12"],
        ["tp53", " SEPTIN9 ", "HLA.A"],  # make.names of R
    ],
)
def test_names_with_something_before_or_after(names: list[str], tmp_path: Path) -> None:
    assert matched(names, BY_SYMBOL) == [0, 1, 2]
    rows = "".join(f"{symbol}\tchr1\t{k + 1}\t{k + 9}\t+\n" for k, symbol in enumerate(SYMBOLS))
    (tmp_path / "genes.tsv").write_text("symbol\tchr\tstart\tend\tstrand\n" + rows)
    genes = locate_genes(tmp_path / "genes.tsv", names)
    assert genes["start"].tolist() == [0, 1, 2] and genes["id"].tolist() == names


def test_ids_before_symbols() -> None:
    assert matched(["ENSG00000141510.11_TP53", "GRCh38_ENSG00000184640", "x|ENSG00000206503.4"], BY_ID) == [0, 1, 2]
    assert gene_keys("ANKHD1_EIF4EBP3") == ["ANKHD1_EIF4EBP3"]  # of two genes, neither
    assert gene_keys("?|100130426") == ["?|100130426", "100130426"]


def test_a_gene_that_is_known_by_its_name_is_no_other() -> None:
    genes = pd.DataFrame({"id": ["A.1", "A-1", "B|A.1", "C"], "symbol": ["A.1", "A-1", "B", "B"]})
    assert matched(["A-1", "A.1", "B", "C"], pd.concat([genes, BY_SYMBOL], ignore_index=True)) == [1, 0, 2, 3]


HGNC = {
    "complete set": (
        "hgnc_id symbol name locus_group alias_symbol alias_name prev_symbol prev_name entrez_id ensembl_gene_id",
        ["HGNC:11998", "TP53", "tumor protein p53", "protein", '"p53|LFS1"', "", "", "", "7157", IDS[0]],
        [
            "HGNC:7323",
            "SEPTIN9",
            "septin 9",
            "protein",
            '"MSF1|KIAA0991"',
            '"x, y"',
            '"MSF|SEPT9"',
            "",
            "10801",
            IDS[1],
        ],
        ["HGNC:4931", "HLA-A", "x", "protein", "", "", "HLAA", "", "3105", IDS[2]],
    ),
    "custom download": (
        "HGNC_ID Approved_symbol Approved_name Previous_symbols Alias_symbols NCBI_Gene_ID Ensembl_gene_ID",
        ["HGNC:11998", "TP53", "tumor protein p53", "", "p53, LFS1", "7157", IDS[0]],
        ["HGNC:7323", "SEPTIN9", "septin 9", "MSF, SEPT9", "MSF1, KIAA0991", "10801", IDS[1]],
        ["HGNC:4931", "HLA-A", "x", "HLAA", "", "3105", IDS[2]],
    ),
}


def write_hgnc(path: Path, source: str) -> Path:
    header, *rows = HGNC[source]
    names = [name.replace("_", " ") if source == "custom download" else name for name in header.split()]
    path.write_text("".join("\t".join(row) + "\n" for row in [names, *rows]))
    return path


@pytest.mark.parametrize("source", HGNC)
def test_the_table_of_hgnc_gives_aliases(tmp_path: Path, source: str) -> None:
    aliases = read_aliases(write_hgnc(tmp_path / "hgnc.txt", source))
    assert matched(["LFS1", "SEPT9", "HLAA"], BY_SYMBOL, aliases) == [0, 1, 2]
    assert matched(["7157", "KIAA0991", "ENSG00000206503.1"], BY_SYMBOL, aliases) == [0, 1, 2]
    assert matched(["tumor protein p53", "septin 9", "protein"], BY_SYMBOL, aliases) == [-1, -1, -1]
    old = pd.DataFrame({"id": ["TP53", "SEPT9"], "symbol": ["TP53", "SEPT9"]})  # the checkpoint has the former name
    assert matched(["SEPTIN9", "MSF1"], old, aliases) == [1, 1]


def test_an_alias_of_another_gene_does_not_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "hgnc.txt"
    path.write_text("symbol\talias_symbol\tprev_symbol\nOTHER\tTP53|P53B\t\nTP53\tP53\t\nSEPTIN9\tP53\tSEPT9\n")
    aliases = read_aliases(path)
    assert matched(["TP53", "P53", "SEPT9"], BY_SYMBOL, aliases) == [0, 0, 1]
    assert matched(["OTHER", "P53B"], BY_SYMBOL, aliases) == [-1, -1]
