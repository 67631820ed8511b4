"""Only genes are counted as genes, whatever else a file holds beside them, and each file gives the same."""

import gzip
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.genes import gene_key

GENES = ["TP53", "CD4", "CD8A", "MS4A1"]
CELLS = [f"cell{i}" for i in range(5)]
COUNTS = np.arange(1, 21).reshape(5, 4)
KNOWN = {gene_key(name) for name in GENES}
ANTIBODIES = pd.DataFrame({"feature_types": "Antibody Capture"}, index=["CD4", "CD8A"])


def read(source: Any, assembly: str = "", layer: str | None = None) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    with open_expression(source, layer, False, KNOWN, assembly) as expression:
        block = expression.rows(slice(0, len(expression.obs)))
        values = block.toarray() if sparse.issparse(block) else block
        assert len(expression.var) == values.shape[1] and expression.obs.index.name is None
        return expression.var.index.tolist(), values, expression.notes


def assert_genes_alone(source: Any, *words: str, **settings: Any) -> None:
    names, values, notes = read(source, **settings)
    assert [gene_key(name) for name in names] == GENES
    np.testing.assert_array_equal(values, COUNTS)
    assert len(notes) == bool(words)
    for word in words:
        assert word in notes[0]


def beside(others: pd.DataFrame, genes: dict[str, str] | None = None, form: Any = np.array) -> anndata.AnnData:
    """Set other features before the genes."""
    described = pd.DataFrame({column: (genes or {}).get(column, "") for column in others}, index=GENES)
    values = np.hstack([np.full((5, len(others)), 99), COUNTS]).astype(np.float32)
    return anndata.AnnData(form(values), pd.DataFrame(index=CELLS), pd.concat([others, described]))


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_antibodies_are_no_genes(tmp_path: Path, form: Any) -> None:
    data = beside(ANTIBODIES, {"feature_types": "Gene Expression"}, form)
    words = ("2 of 6 rows", "2 features of 'Antibody Capture'")
    assert_genes_alone(data, *words)
    data.write_h5ad(tmp_path / "cite.h5ad")
    assert_genes_alone(tmp_path / "cite.h5ad", *words)


@pytest.mark.parametrize(
    ("column", "kind", "gene"),
    [
        ("feature_types", "ADT", "GEX"),  # of the benchmarks of multimodal integration
        ("feature_types", "Peaks", "Gene Expression"),
        ("feature_type", "CRISPR Guide Capture", "Gene Expression"),
        ("feature_biotype", "spike-in", "gene"),  # of CELLxGENE
        ("feature_types", "Antibody Capture", ""),
        ("modality", "ADT", "RNA"),  # of muon
        ("assay", "protein", "rna"),
        ("gene_biotype", "spike_in", "protein coding"),
        ("Feature Type", "Negative Control Probe", "Gene Expression"),
    ],
)
def test_other_features_are_no_genes(column: str, kind: str, gene: str) -> None:
    others = pd.DataFrame({column: [kind] * 2}, index=["CD4", "CD8A"])
    assert_genes_alone(beside(others, {column: gene}), f"2 features of {kind!r}")


def test_words_that_are_not_known_leave_all() -> None:
    data = beside(pd.DataFrame({"feature_types": ["protein_coding"]}, index=["EGFR"]), {"feature_types": "lncRNA"})
    assert len(read(data)[0]) == 5


def test_antibodies_alone_are_refused() -> None:
    data = beside(ANTIBODIES)[:, :2].copy()
    with pytest.raises(InputError, match="holds no genes, but 2 features of 'Antibody Capture'; give gene expression"):
        read(data)


@pytest.mark.parametrize(
    "names",
    [
        ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"],  # STAR
        ["__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"],  # HTSeq
        ["no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique"],  # HTSeq before 0.6
        ["ERCC-00002", "ERCC_00171", "SIRV101", "gERCC-00003"],
    ],
)
def test_counters_and_spike_ins_are_no_genes(tmp_path: Path, names: list[str]) -> None:
    data = beside(pd.DataFrame(index=names))
    words = (f"{len(names)} of {len(names) + 4} rows", f"{len(names)} counters and spike-ins")
    assert_genes_alone(data, *words)
    data.to_df().T.to_csv(tmp_path / "table.tsv", sep="\t", index_label="gene")
    assert_genes_alone(tmp_path / "table.tsv", *words)


def test_genes_named_like_spike_ins_stay() -> None:
    data = beside(pd.DataFrame(index=["ERCC1", "ERCC6L2", "NOFEATURE"]))
    assert read(data)[0][:3] == ["ERCC1", "ERCC6L2", "NOFEATURE"]


def two_genomes(human: str, mouse: str, column: bool) -> anndata.AnnData:
    names = [f"{mouse}{name.capitalize()}" for name in GENES] + [f"{human}{name}" for name in GENES]
    var = pd.DataFrame({"genome": ["mm10"] * 4 + ["GRCh38"] * 4} if column else {}, index=names)
    return anndata.AnnData(np.hstack([COUNTS * 7, COUNTS]).astype(np.float32), pd.DataFrame(index=CELLS), var)


@pytest.mark.parametrize("assembly", ["hg19", "hg38", "GRCh38.p13", "simulated"])
@pytest.mark.parametrize(
    "prefixes",
    [
        ("GRCh38_", "mm10___"),
        ("hg19_", "mm10_"),
        ("GRCh38______", "GRCm39_"),
        ("GRCh38-", "mm10---"),
        ("GRCh38-2020-A_", "mm10-2020-A_"),
        ("human_", "mouse_"),
        ("HUMAN_", "MOUSE_"),
        ("", ""),
    ],
)
def test_of_two_genomes_the_one_of_the_checkpoint_is_taken(assembly: str, prefixes: tuple[str, str]) -> None:
    column = prefixes == ("", "")
    if column and assembly == "simulated":
        return  # both sets of names are alike
    words = ("4 of 8 rows", "4 genes of another genome than ")
    if assembly != "simulated":
        assert_genes_alone(two_genomes(*prefixes, column), *words, assembly=assembly)
        if not column:  # named after both, it tells nothing
            data = two_genomes(*prefixes, False)
            data.var["genome"] = "hg19_and_mm10"
            assert_genes_alone(data, *words, assembly=assembly)


def test_a_genome_that_cannot_be_chosen_is_asked_for() -> None:
    with pytest.raises(
        InputError, match="has genes of GRCh38, mm10, wanted are those of an assembly that is not known"
    ):
        read(two_genomes("GRCh38_", "mm10_", False))
    with pytest.raises(InputError, match="has genes of hg19, hg38, wanted are those of the assembly hg38"):
        read(two_genomes("hg38_", "hg19_", False), assembly="hg38")


def test_the_genome_whose_genes_are_known_is_taken() -> None:
    data = two_genomes("GRCh38_", "mm10_", False)
    data.var_names = [f"mm10_Gm{i}" for i in range(4)] + data.var_names[4:].tolist()
    assert_genes_alone(data, "4 genes of another genome than GRCh38", assembly="simulated")


def write_10x(folder: Path, features: list[list[str]], zipped: bool, old: bool) -> Path:
    folder.mkdir()
    end = ".gz" if zipped else ""
    values = sparse.coo_matrix(np.hstack([np.full((5, len(features) - 4), 99), COUNTS]).T)
    io.mmwrite(str(folder / "matrix.mtx"), values)
    texts = {"genes.tsv" if old else "features.tsv": features, "barcodes.tsv": [[cell] for cell in CELLS]}
    for name, rows in texts.items():
        (folder / name).write_text("".join("\t".join(row) + "\n" for row in rows))
    for path in list(folder.iterdir()) if zipped else []:
        path.with_name(path.name + end).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_10x_folders_of_every_version(tmp_path: Path, zipped: bool) -> None:
    new = [
        ["CD4", "CD4", "Antibody Capture"],
        *([f"ENSG{i:011d}", name, "Gene Expression"] for i, name in enumerate(GENES)),
    ]
    assert_genes_alone(write_10x(tmp_path / "v3", new, zipped, old=False), "1 features of 'Antibody Capture'")
    old = [row[:2] for row in new[1:]]
    assert_genes_alone(write_10x(tmp_path / "v2", old, zipped, old=True))
    assert_genes_alone(write_10x(tmp_path / "one_column", [row[1:2] for row in old], zipped, old=True))


def test_files_of_geo_have_a_prefix(tmp_path: Path) -> None:
    rows = [[f"ENSG{i:011d}", name, "Gene Expression"] for i, name in enumerate(GENES)]
    folder = write_10x(tmp_path / "geo", rows, True, old=False)
    for path in list(folder.iterdir()):
        path.rename(folder / f"GSM123_{path.name}")
    assert_genes_alone(folder)
    (folder / "GSM124_matrix.mtx.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"geo: more than one matrix.mtx \(.gz\) in it"):
        read(folder)


def test_10x_h5_of_two_species_with_antibodies(tmp_path: Path) -> None:
    names = ["CD4", *(f"mm10___{name.capitalize()}" for name in GENES), *(f"GRCh38_{name}" for name in GENES)]
    values = sparse.csr_matrix(np.hstack([np.full((5, 1), 99), COUNTS * 7, COUNTS]))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(values, name)
        group["shape"], group["barcodes"] = values.shape[::-1], np.array(CELLS, "S")
        group["features/id"] = group["features/name"] = np.array(names, "S")
        group["features/feature_type"] = np.array(["Antibody Capture"] + ["Gene Expression"] * 8, "S")
        group["features/genome"] = np.array([""] + ["mm10"] * 4 + ["GRCh38"] * 4, "S")
    words = ("5 of 9 rows", "1 features of 'Antibody Capture'", "4 genes of another genome than GRCh38")
    assert_genes_alone(tmp_path / "x.h5", *words, assembly="hg38")


def test_10x_h5_of_version_2_has_a_matrix_for_each_genome(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for genome, names, counts in (("hg19", GENES, COUNTS), ("mm10", [g.title() for g in GENES], COUNTS * 7)):
            values, group = sparse.csr_matrix(counts), file.create_group(genome)
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(values, name)
            group["shape"], group["barcodes"] = values.shape[::-1], np.array(CELLS, "S")
            group["genes"] = group["gene_names"] = np.array(names, "S")
    assert_genes_alone(tmp_path / "x.h5", "of the matrices of hg19, mm10 that of hg19", assembly="hg38")
    assert read(tmp_path / "x.h5", "mm39")[0] == [gene.title() for gene in GENES]
    with pytest.raises(InputError, match="has matrices of hg19, mm10, the assembly is 'simulated'; keep one"):
        read(tmp_path / "x.h5", "simulated")


@pytest.mark.parametrize(
    ("name", "words"),
    [("x.loom", "is a loom file; write it as .h5ad: anndata.io.read_loom"), ("x.zarr", "is a zarr store; write it as"),
     ("x.h5mu", "holds several AnnData"), ("x.rds", "is of saveRDS"), ("matrix.mtx.gz", "is a part of a 10x matrix"),
     ("x.h5Seurat", "is a file of Seurat")],
)  # fmt: skip
def test_formats_that_are_not_read_are_named_with_a_way_out(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match=f"{name}: {words}"):
        read(tmp_path / name)


def test_genes_as_observations_are_turned(tmp_path: Path) -> None:
    data = anndata.AnnData(
        sparse.csr_matrix(COUNTS.T.astype(np.float32)), pd.DataFrame(index=GENES), pd.DataFrame(index=CELLS)
    )
    data.write_h5ad(tmp_path / "turned.h5ad")
    assert_genes_alone(data)
    assert_genes_alone(tmp_path / "turned.h5ad")
