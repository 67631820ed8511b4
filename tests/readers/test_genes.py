"""The same genes from every format of gene annotation, and what is refused."""

import gzip
from pathlib import Path

import pytest

from methyl_lightning.files import InputError
from methyl_lightning.readers.genes import locate_genes, read_genes, recognise, without_version

# PLUS chr1:1501-2500 + ENSG00000000001, MINUS chrX:101-700 - ENSG00000000002, as each source writes them
GENCODE = [
    "##description: evidence-based annotation of the human genome (GRCh37), version 19 (Ensembl 74)",
    "##format: gtf",
    'chr1\tHAVANA\tgene\t1501\t2500\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_type "x; y"; gene_name "PLUS";',
    'chr1\tHAVANA\texon\t1\t9999\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_name "PLUS";',
    'chrX\tHAVANA\tgene\t101\t700\t.\t-\t.\tgene_id "ENSG00000000002.11_4"; gene_type "a"; gene_name "MINUS";',
]
ENSEMBL = [
    "#!genome-build GRCh38.p13",
    '1\tensembl\tgene\t1501\t2500\t.\t+\t.\tgene_id "ENSG00000000001"; gene_version "5"; gene_name "PLUS";',
    'X\tensembl\tgene\t101\t700\t.\t-\t.\tgene_id "ENSG00000000002"; gene_version "1"; gene_name "MINUS";',
    'X\tensembl\tgene\t5\t9\t.\t-\t.\tgene_id "ENSG00000000003"; gene_version "1";',
]
REFSEQ = [
    "#gtf-version 2.2",
    "#!genome-build GRCh37.p13",
    'NC_000001.10\tBestRefSeq\tgene\t1501\t2500\t.\t+\t.\tgene_id "PLUS"; db_xref "GeneID:7"; gene "PLUS";',
    'NC_000023.10\tBestRefSeq\tgene\t101\t700\t.\t-\t.\tgene_id "MINUS"; gene "MINUS";',
    'NC_000023.10\tBestRefSeq\tgene\t3\t7\t.\t?\t.\tgene_id "SPLICED"; gene "SPLICED";',
]
UCSC = [  # neither genes nor an exon of its own name: the transcripts of a gene are joined
    'chr1\trefGene\ttranscript\t1501\t2000\t.\t+\t.\tgene_id "PLUS"; transcript_id "NM_1"; gene_name "PLUS";',
    'chr1\trefGene\texon\t1501\t1600\t.\t+\t.\tgene_id "PLUS"; transcript_id "NM_1"; gene_name "PLUS";',
    'chr1\trefGene\ttranscript\t1700\t2500\t.\t+\t.\tgene_id "PLUS"; transcript_id "NM_2"; gene_name "PLUS";',
    'chr6_cox_hap2\trefGene\ttranscript\t1\t90000\t.\t+\t.\tgene_id "PLUS"; transcript_id "NM_2"; gene_name "PLUS";',
    'chrX\trefGene\ttranscript\t101\t700\t.\t-\t.\tgene_id "MINUS"; transcript_id "NM_3"; gene_name "MINUS";',
]
OLD_ENSEMBL = [  # up to release 74: exons alone
    '1\tprotein_coding\texon\t1501\t1600\t.\t+\t.\t gene_id "ENSG00000000001"; gene_name "PLUS";',
    '1\tprotein_coding\texon\t2400\t2500\t.\t+\t.\t gene_id "ENSG00000000001"; gene_name "PLUS";',
    '1\tprotein_coding\tCDS\t9\t9999\t.\t+\t0\t gene_id "ENSG00000000001"; gene_name "PLUS";',
    'X\tprotein_coding\texon\t101\t700\t.\t-\t.\t gene_id "ENSG00000000002"; gene_name "MINUS";',
]
GENCODE_GFF3 = [
    "##gff-version 3",
    "#description: evidence-based annotation of the human genome (GRCh38), version 44",
    "chr1\tHAVANA\tgene\t1501\t2500\t.\t+\t.\tID=ENSG00000000001.5;gene_id=ENSG00000000001.5;gene_name=PLUS;level=2",
    "###",
    "chrX\tHAVANA\tgene\t101\t700\t.\t-\t.\tID=ENSG00000000002.1;gene_id=ENSG00000000002.1;gene_name=MINUS",
]
ENSEMBL_GFF3 = [
    "##gff-version 3",
    "1\tensembl\tchromosome\t1\t249250621\t.\t.\t.\tID=chromosome:1",
    "1\tensembl\tgene\t1501\t2500\t.\t+\t.\tID=gene:ENSG00000000001;Name=PLUS;description=a%3B b;version=5",
    "X\tensembl\tncRNA_gene\t101\t700\t.\t-\t.\tID=gene:ENSG00000000002;Name=MINUS;gene_id=ENSG00000000002",
    "##FASTA",
    ">1",
    "ACGT",
]
REFSEQ_GFF3 = [
    "##gff-version 3",
    "#!genome-build GRCh37.p13",
    "NC_000001.10\tRefSeq\tgene\t1501\t2500\t.\t+\t.\tID=gene-PLUS;Dbxref=GeneID:7;Name=PLUS;gbkey=Gene;gene=PLUS",
    "NC_000023.10\tRefSeq\tpseudogene\t101\t700\t.\t-\t.\tID=gene-MINUS;Name=MINUS;gene=MINUS",
]
XENA = [
    "#id\tgene\tchrom\tchromStart\tchromEnd\tstrand",
    "ENSG00000000001.5\tPLUS\tchr1\t1501\t2500\t+",
    "ENSG00000000002.1\tMINUS\tchrX\t101\t700\t-",
]
TABLE = [
    "entrez\tsymbol\tchr\tstart\tend\tstrand\tensembl",
    "7\tPLUS\t1\t1501\t2500\t+\tENSG00000000001",
    "8\tMINUS\tchrX\t101\t700\t-\tENSG00000000002",
]
FORMATS = {
    "GENCODE": (GENCODE, "GTF", "hg19"),
    "Ensembl": (ENSEMBL, "GTF", "hg38"),
    "RefSeq": (REFSEQ, "GTF", "hg19"),
    "UCSC": (UCSC, "GTF", ""),
    "old Ensembl": (OLD_ENSEMBL, "GTF", ""),
    "GENCODE GFF3": (GENCODE_GFF3, "GFF3", "hg38"),
    "Ensembl GFF3": (ENSEMBL_GFF3, "GFF3", ""),
    "RefSeq GFF3": (REFSEQ_GFF3, "GFF3", "hg19"),
    "Xena": (XENA, "Xena gene probe map", ""),
    "table": (TABLE, "table", ""),
}
WITHOUT_ENSEMBL = ("RefSeq", "UCSC", "RefSeq GFF3")


def write(path: Path, lines: list[str]) -> Path:
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("source", FORMATS)
def test_every_format_gives_the_same_genes(tmp_path, source, zipped, caplog):
    caplog.set_level("INFO")
    lines, kind, assembly = FORMATS[source]
    path = write(tmp_path / ("genes.gz" if zipped else "genes"), lines)
    assert recognise(path) == (kind, assembly)
    genes = locate_genes(path, ["MINUS", "NOWHERE", "PLUS"])
    assert genes["id"].tolist() == ["MINUS", "NOWHERE", "PLUS"]
    assert genes["symbol"].tolist() == ["MINUS", "NOWHERE", "PLUS"]
    assert genes["chrom"].tolist() == ["chrX", "", "chr1"]
    assert genes["start"].tolist() == [100, -1, 1500]
    assert genes["end"].tolist() == [700, -1, 2500]
    assert genes["strand"].tolist() == ["-", "", "+"]
    assert caplog.messages == [f"{path}: {kind}, gives the place of 2 of 3 genes"]


@pytest.mark.parametrize("source", [source for source in FORMATS if source not in WITHOUT_ENSEMBL])
def test_ensembl_ids_of_any_version(tmp_path, source):
    path = write(tmp_path / "genes", FORMATS[source][0])
    genes = locate_genes(path, ["ENSG00000000002.77", "ENSG00000000001"])
    assert genes["id"].tolist() == ["ENSG00000000002.77", "ENSG00000000001"]
    assert genes["symbol"].tolist() == ["MINUS", "PLUS"]
    assert genes["start"].tolist() == [100, 1500]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ENSG00000223972.5", "ENSG00000223972"),
        ("ENSG00000223972", "ENSG00000223972"),
        ("ENSG00000223972.5_2", "ENSG00000223972"),
        ("ENSG00000182378.15_PAR_Y", "ENSG00000182378_PAR_Y"),
        ("ENSMUSG00000051951.6", "ENSMUSG00000051951"),
        ("AC000111.3", "AC000111.3"),
        ("HLA-A", "HLA-A"),
    ],
)
def test_version_is_taken_off_ensembl_ids_only(name, expected):
    assert without_version(name) == expected


def test_gene_without_a_symbol_is_called_by_its_id(tmp_path):
    genes = locate_genes(write(tmp_path / "genes", ENSEMBL), ["ENSG00000000003.1"])
    assert (genes["symbol"].item(), genes["start"].item()) == ("ENSG00000000003.1", 4)


def test_copies_on_the_two_sex_chromosomes_stay_apart(tmp_path):
    lines = [
        'chrX\tH\tgene\t11\t20\t.\t+\t.\tgene_id "ENSG00000000009.5"; gene_name "PAR";',
        'chrY\tH\tgene\t31\t40\t.\t+\t.\tgene_id "ENSG00000000009.5_PAR_Y"; gene_name "PAR";',
    ]
    genes = locate_genes(write(tmp_path / "genes", lines), ["ENSG00000000009.7_PAR_Y", "ENSG00000000009.7"])
    assert (genes["chrom"].tolist(), genes["start"].tolist()) == (["chrY", "chrX"], [30, 10])


def test_transcripts_of_one_gene_on_two_chromosomes_are_not_joined(tmp_path):
    table = read_genes(write(tmp_path / "genes", UCSC))
    plus = table[table["symbol"] == "PLUS"].set_index("chrom")
    assert plus.loc["chr1", ["start", "end"]].tolist() == [1500, 2500]
    assert plus.loc["chr6_cox_hap2", ["start", "end"]].tolist() == [0, 90000]


def feature(kind: str, start: int, end: int, transcript: str = "", gene: str = "TWICE", chrom: str = "chr1") -> str:
    attributes = f'gene_id "{gene}"; gene_name "{gene}";' + (f' transcript_id "{transcript}";' if transcript else "")
    return f"{chrom}\trefGene\t{kind}\t{start}\t{end}\t.\t+\t.\t{attributes}"


COPIES = {  # and where the gene is
    "distant transcripts": (["transcript", (101, 900), (501, 1200), (5_000_001, 5_000_500)], (100, 1200)),
    "the longer copy lies behind": (["transcript", (101, 900), (90_001, 91_500)], (90_000, 91_500)),
    "one inside another": (["transcript", (101, 9_000), (201, 300), (8_000, 9_500), (20_001, 21_000)], (100, 9_500)),
    "exons without transcripts": (["exon", (101, 200), (100_001, 100_100), (9_000_001, 9_000_900)], (100, 100_100)),
}


@pytest.mark.parametrize("source", COPIES)
@pytest.mark.parametrize("turned", [False, True])
def test_overlapping_transcripts_are_joined_and_copies_are_not(tmp_path, source, turned, caplog):
    caplog.set_level("INFO")
    (kind, *places), (start, end) = COPIES[source]
    lines = [feature(kind, *place, transcript="" if kind == "exon" else f"NM_{k}") for k, place in enumerate(places)]
    path = write(tmp_path / "genes.gtf", lines[::-1] if turned else lines)
    gene = locate_genes(path, ["TWICE"]).iloc[0]
    assert (gene["start"], gene["end"]) == (start, end)
    assert caplog.messages[1:] == [f"{path}: 1 genes (TWICE, …) lie at several places, of which the longest is taken"]


def test_exons_of_a_transcript_are_joined_before_transcripts_are(tmp_path):
    copies = [(1_001, 1_100, "A"), (50_001, 50_100, "A"), (200_001, 200_100, "B"), (200_501, 200_600, "B")]
    path = write(tmp_path / "genes.gtf", [feature("exon", *place) for place in copies])
    table = read_genes(path)
    assert table[["start", "end"]].to_numpy().tolist() == [[1_000, 50_100], [200_000, 200_600]]


def test_copies_of_a_gene_in_genes_are_not_joined(tmp_path):
    path = write(tmp_path / "genes.gtf", [feature("gene", 101, 200), feature("gene", 90_001, 90_500)])
    assert locate_genes(path, ["TWICE"])["start"].tolist() == [90_000]


@pytest.mark.parametrize("assembly", ["hg19", "GRCh37", "", "unknown"])
def test_assembly_of_the_cohort_or_none(tmp_path, assembly):
    path = write(tmp_path / "genes", GENCODE)
    assert len(locate_genes(path, ["PLUS"], assembly)) == 1


def test_genes_of_another_assembly_are_refused(tmp_path):
    path = write(tmp_path / "genes", GENCODE)
    with pytest.raises(InputError, match="genes: is of hg19, the cohort of hg38; give the genes of hg38"):
        locate_genes(path, ["PLUS"], "GRCh38")


def changed(lines: list[str], row: int, old: str, new: str) -> list[str]:
    assert old in lines[row]
    return [*lines[:row], lines[row].replace(old, new), *lines[row + 1 :]]


FAULTS = {
    "row cut short": (changed(GENCODE, 4, "\t.\t-\t.\tgene_id", "gene_id"), "line 5 has 5 columns, not 9"),
    "text for a start": (changed(GENCODE, 4, "\t101\t", "\tp13\t"), "not read as GTF .*p13"),
    "no features": ([line.replace("\tgene\t", "\tCDS\t") for line in ENSEMBL], "no gene, transcript or exon in it"),
    "text for a start of Xena": (changed(XENA, 1, "1501", "p13"), "row 'PLUS', column 'start' is 'p13'"),
    "strand of Xena": (changed(XENA, 2, "\t-", "\t."), "row 'MINUS', column 'strand' is '.'; the strand must be"),
    "column of a table": (changed(TABLE, 0, "strand", "sense"), "no column 'strand'; give a table with the columns"),
    "BED": (["chr1\t1500\t2500\tPLUS"], "its format is not known; give a table with the columns"),
    "no gene of the cohort": (changed(changed(XENA, 1, "PLUS", "A"), 2, "MINUS", "B"), "no gene of the expre"),
}


@pytest.mark.parametrize(("lines", "words"), FAULTS.values(), ids=FAULTS)
def test_bad_annotation_is_refused(tmp_path, lines, words):
    path = write(tmp_path / "genes.txt", lines)
    with pytest.raises(InputError, match=f"genes.txt: {words}") as refusal:
        locate_genes(path, ["PLUS", "MINUS"])
    assert "\n" not in str(refusal.value)


def test_transcripts_of_gff3_are_joined_by_their_parent(tmp_path):
    lines = [
        "##gff-version 3",
        "chr2\tx\tmRNA\t1001\t5000\t.\t+\t.\tID=rna0;Parent=gene-A;gene=A",
        "chr2\tx\tmRNA\t1501\t7000\t.\t+\t.\tID=rna1;Parent=gene-A;gene=A",
        "chr2\tx\tmRNA\t9001\t9500\t.\t+\t.\tID=rna2;Parent=gene-A;gene=A",
    ]
    path = tmp_path / "a.gff3"
    path.write_text("\n".join(lines) + "\n")
    (gene,) = locate_genes(path, ["A"]).itertuples()
    assert (gene.chrom, gene.start, gene.end) == ("chr2", 1000, 7000)


@pytest.mark.parametrize("tag", ["", "_PAR_Y"])
def test_pseudoautosomal_gene_lies_on_x(tmp_path, tag):
    line = '{}\tx\tgene\t{}\t{}\t.\t+\t.\tgene_id "ENSG00000185960.14{}"; gene_name "SHOX";'
    path = tmp_path / "a.gtf"
    path.write_text(line.format("chrY", 535079, 570146, tag) + "\n" + line.format("chrX", 585079, 620146, "") + "\n")
    for name in ("SHOX", "ENSG00000185960"):
        (gene,) = locate_genes(path, [name]).itertuples()
        assert (gene.chrom, gene.start) == ("chrX", 585_078)
