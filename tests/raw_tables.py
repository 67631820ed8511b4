"""A cohort of three CpGs and four samples as text, small enough to check by hand."""

from pathlib import Path
from typing import Any

from methyl_lightning.data.store import Store
from methyl_lightning.prepare.tcga import tcga

SAMPLES = ["TCGA-AA-0001-01", "TCGA-AA-0001-11", "TCGA-BB-0002-06", "TCGA-CC-0003-02"]
TABLES = {
    "methylation": [
        ["sample", *SAMPLES, "TCGA-ZZ-9999-01"],
        ["cg1", "0.1", "0.2", "NA", "0.4", "0.9"],
        ["cg2", "0", "1", "0.25", "0.75", "0.9"],
        ["cg3", "0.5", "0.5", "0.5", "", "0.9"],
    ],
    "expression": [  # other order, dots, and a sample that has no methylation
        ["sample", "TCGA.CC.0003.02", "TCGA.BB.0002.06", "TCGA.AA.0001.11", "TCGA.AA.0001.01", "TCGA.YY.8888.01"],
        ["PLUS", "4", "3", "2", "1", "9"],
        ["ENSG00000000002.7", "8", "7", "6", "5", "9"],
        ["NOWHERE", "0", "0.5", "0", "0", "9"],
    ],
    "probe_map": [
        ["#id", "gene", "chrom", "chromStart", "chromEnd", "strand"],
        ["cg1", ".", "chr1", "1001", "1002", "."],
        ["cg2", ".", "chr1", "-1", "-1", "."],
    ],
    "genes": [
        ["symbol", "chr", "start", "end", "strand", "ensembl"],
        ["PLUS", "chr1_random", "1", "90000", "+", "ENSG00000000001"],
        ["PLUS", "chr1", "1502", "1502", "+", "ENSG00000000001"],
        ["PLUS", "1", "1501", "2500", "+", "ENSG00000000001"],
        ["MINUS", "chr1", "101", "700", "-", "ENSG00000000002"],
    ],
}
FASTA = {"cg1": "ACGTCGAACC", "cg2": "aattcgttaa", "cg3": "TTTTCGNNNN"}  # the C at 4 of 10


def write_table(path: Path, rows: list[list[str]], separator: str = "\t") -> Path:
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    return path


def write_cohort(folder: Path) -> dict[str, Path]:
    """Write the tables and the FASTA file of the probes; return them under the names of the settings."""
    folder.mkdir(exist_ok=True)
    files = {name: write_table(folder / f"{name}.tsv", rows) for name, rows in TABLES.items()}
    files["sequences"] = folder / "sequences.fa"
    files["sequences"].write_text("".join(f">{cpg} some words\n{bases}\n" for cpg, bases in FASTA.items()))
    return files


def make_cohort(files: dict[str, Path], **options: Any) -> Store:
    path = files["methylation"].with_name("cohort.h5")
    tcga(path, **{"window": 6, "cohort": "TINY", **files, **options})
    return Store(path)


def edit(path: Path, old: str, new: str) -> None:
    """Replace one piece of a table."""
    content = path.read_text()
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))
