"""The public cohorts, held against their raw files cell by cell."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from methyl_lightning.data.store import ALPHABET, Store
from methyl_lightning.prepare.tcga import tcga
from methyl_lightning.prepare.upstream import upstream

DATA = Path(os.environ.get("METHYL_LIGHTNING_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
COHORTS = {
    "tcga_lgg_hm27": ("HumanMethylation27.gz", (1238, 409, 2125), 122),
    "tcga_brca_hm27": ("HumanMethylation27.gz", (465, 392, 6000), 122),
    "tcga_brca_chr17": ("HumanMethylation27.gz", (1116, 224, 730), 122),
    "tcga_brca_hm450": ("HumanMethylation450.gz", (4153, 510, 6000), 0),
}


def require(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; METHYL_LIGHTNING_DATA names the folder of the public cohorts")
    return folder


@pytest.fixture(scope="module", params=COHORTS)
def real_cohort(request, tmp_path_factory):
    folder = require(DATA / request.param)
    methylation, shape, width = COHORTS[request.param]
    path = tmp_path_factory.mktemp(request.param) / "cohort.h5"
    tcga(
        path,
        methylation=folder / methylation,
        expression=folder / "HiSeqV2.gz",
        probe_map=folder / "probeMap.tsv",
        genes=DATA / "annotation" / "genes_hg19.tsv.gz",
        sequences=folder / "probe_sequences.fa" if width else None,
        window=width or 800,
        cohort=request.param,
    )
    return Store(path), folder, methylation, shape, width


def random_cells(path: Path, separator: str = "\t", n_rows: int = 20) -> list[tuple[str, str, str]]:
    """Draw cells of a gzip table as (row name, column name, text)."""
    with gzip.open(path, "rt") as file:
        header, *rows = [line.rstrip("\n").split(separator) for line in file]
    generator = np.random.default_rng(0)
    drawn = [(rows[r], k) for r in generator.choice(len(rows), n_rows) for k in generator.integers(1, len(header), 5)]
    return [(row[0], header[k], row[k]) for row, k in drawn]


@pytest.mark.real_data
def test_real_cohort(real_cohort):
    store, folder, methylation, (n_cpgs, n_samples, n_genes), width = real_cohort
    assert store.beta_steps_CS.shape == (n_cpgs, n_samples)
    assert store.expression_SG.shape == (n_samples, n_genes)
    row_of = {
        name: {key: row for row, key in enumerate(getattr(store, name)["id"])} for name in ("cpgs", "genes", "samples")
    }
    for cpg, sample, text in random_cells(folder / methylation):
        beta = store.beta(np.array([row_of["cpgs"][cpg]]), np.array([row_of["samples"][sample]])).item()
        assert beta == pytest.approx(np.nan if text == "NA" else float(text), abs=1e-4, nan_ok=True)
    for gene, sample, text in random_cells(folder / "HiSeqV2.gz"):
        value = store.expression_SG[row_of["samples"][sample], row_of["genes"][gene]]
        assert value == pytest.approx(float(text), abs=1e-4)
    probe_map = pd.read_csv(folder / "probeMap.tsv", sep="\t", index_col=0)["chromStart"]
    assert (store.cpgs["position"].to_numpy() == np.maximum(probe_map[store.cpgs["id"]].to_numpy() - 1, -1)).all()
    assert 0.9 < (store.genes["start"] >= 0).mean() < 1
    if width:
        assert ["".join(ALPHABET[code] for code in pair) for pair in store.sequence_CL[:, 60:62]] == ["CG"] * n_cpgs


@pytest.mark.real_data
def test_real_counts_and_few_sequences(tmp_path):
    folder = require(DATA / "tcga_coad_hm450")
    tcga(
        tmp_path / "coad.h5",
        methylation=folder / "HumanMethylation450.gz",
        expression=folder / "counts.gz",
        probe_map=folder / "probeMap.tsv",
        genes=DATA / "annotation" / "genes_hg19.tsv.gz",
        sequences=DATA / "annotation" / "hm450_windows800_hg19.fa.gz",
        partial_sequences=True,
    )
    store = Store(tmp_path / "coad.h5")
    assert store.beta_steps_CS.shape == (822, 52) and store.attributes["units"] == "log2(cpm+1)"
    assert store.expression_SG.shape == (52, 17_045 - 20)  # 20 rows have no name
    np.testing.assert_allclose((np.exp2(store.expression_SG.astype(float)) - 1).sum(axis=1), 1e6, rtol=1e-5)
    known_C = (store.sequence_CL != ALPHABET.index("N")).any(axis=1)
    assert known_C.sum() == 12
    assert ["".join(ALPHABET[code] for code in row) for row in store.sequence_CL[known_C][:, 399:401]] == ["CG"] * 12


@pytest.mark.real_data
def test_real_union_of_two_tissues(tmp_path):
    names = ("tcga_brca_hm27", "tcga_lgg_hm27")
    parts = {"methylation": "HumanMethylation27.gz", "expression": "HiSeqV2.gz"}
    parts |= {"probe_map": "probeMap.tsv", "sequences": "probe_sequences.fa"}
    cohorts = {name: {key: str(require(DATA / name) / file) for key, file in parts.items()} for name in names}
    genes = DATA / "annotation" / "genes_hg19.tsv.gz"
    tcga(tmp_path / "union.h5", cohorts=cohorts, genes=genes, window=122)
    store = Store(tmp_path / "union.h5")
    assert store.beta_steps_CS.shape == (465 + 1238 - 101, 392 + 409)
    assert store.samples["cohort"].value_counts().to_dict() == {"tcga_brca_hm27": 392, "tcga_lgg_hm27": 409}
    row_of = {kind: {key: row for row, key in enumerate(getattr(store, kind)["id"])} for kind in ("cpgs", "samples")}
    own = {}
    for name in names:
        for cpg, sample, text in random_cells(DATA / name / parts["methylation"]):
            cell = np.array([row_of["cpgs"][cpg]]), np.array([row_of["samples"][sample]])
            expected = pytest.approx(np.nan if text == "NA" else float(text), abs=1e-4, nan_ok=True)
            assert store.beta(*cell).item() == expected
        gene_of = {gene: g for g, gene in enumerate(store.genes["id"])}
        for gene, sample, text in random_cells(DATA / name / parts["expression"], n_rows=200):
            if gene in gene_of:
                value = store.expression_SG[row_of["samples"][sample], gene_of[gene]]
                assert value == pytest.approx(float(text), abs=1e-4)
        with gzip.open(DATA / name / parts["methylation"], "rt") as file:
            own[name] = {line.split("\t", 1)[0] for line in file} - {"sample"}
    lacking = [row_of["cpgs"][cpg] for cpg in own[names[0]] - own[names[1]]]
    of_other = np.flatnonzero(store.samples["cohort"] == names[1])
    assert np.isnan(store.beta(np.array(lacking), of_other)).all()
    assert ["".join(ALPHABET[code] for code in pair) for pair in store.sequence_CL[:, 60:62]] == ["CG"] * 1602


@pytest.mark.real_data
def test_real_upstream(tmp_path):
    folder = require(DATA / "upstream_mini")
    names = {"labels": "ch3", "distances": "d", "expression": "e", "sequences": "probeToOneHotAll"}
    files: dict[str, Any] = {key: folder / f"{name}_sample_mini.csv.gz" for key, name in names.items()}
    upstream(tmp_path / "mini.h5", **files)
    store = Store(tmp_path / "mini.h5")
    assert store.beta_steps_CS.shape == (25, 25)
    assert store.sequence_CL.shape == (25, 800)
    assert (store.sequence_CL[:, 399:401] == [ALPHABET.index("C"), ALPHABET.index("G")]).all()
    with gzip.open(files["sequences"], "rt") as file:
        one_hot = {line.split(",")[0]: line.rstrip("\n").split(",")[1:] for line in file}
    for cpg, code_L in zip(store.cpgs["id"], store.sequence_CL, strict=True):
        for base, code in enumerate(code_L):
            letter = [float(cell) for cell in one_hot[cpg][base * len(ALPHABET) : (base + 1) * len(ALPHABET)]]
            assert letter == [float(other == code) for other in range(len(ALPHABET))]
    with gzip.open(files["distances"], "rt") as file:
        header, *rows = [line.rstrip("\n").split(",") for line in file]
    assert store.genes["id"].tolist() == header[1:]
    assert len(header) == 17_996 + 1
    distances = store.distances
    for c, row in enumerate(rows):
        inverse_G = np.array(row[1:], dtype=float)
        entries = slice(distances.indptr_C[c], distances.indptr_C[c + 1])
        assert (distances.gene_N[entries] == np.flatnonzero(inverse_G)).all()
        assert np.abs(distances.bp_N[entries] - 1 / inverse_G[inverse_G != 0]).max() < 1
    for sample, gene, text in random_cells(files["expression"], ",", n_rows=5):
        value = store.expression_SG[store.samples["id"].tolist().index(sample), store.genes["id"].tolist().index(gene)]
        assert value == pytest.approx(float(text), abs=1e-4)
