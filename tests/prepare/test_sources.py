"""Raw tables → store: a cohort small enough to check by hand, every bad input, and the public cohorts."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_tables import SAMPLES, TABLES, edit, make_cohort, write_cohort, write_table

from methyl_lightning.data.store import ALPHABET, Store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.upstream import upstream

ONE_HOT = {letter: [str(int(letter == other)) for other in ALPHABET] for letter in ALPHABET}
CSV = {
    "labels": [["Probe", "s_1", "s_2"], ["cg_1", "0.1", "0.2"], ["cg_2", "0.3", "NA"]],
    "distances": [["Probe", "B", "A"], ["cg_2", "0.0", "-0.001"], ["cg_1", repr(1 / 3), repr(1 / 200_000_123)]],
    "expression": [["Unnamed: 0", "A", "B"], ["s_2", "3", "4"], ["s_1", "1", "2"]],
    "sequences": [
        ["Probe", *(str(k) for k in range(20))],
        ["cg_1", *(cell for letter in "TCGN" for cell in ONE_HOT[letter])],
        ["cg_2", *(cell for letter in "ACGT" for cell in ONE_HOT[letter])],
    ],
}


@pytest.fixture
def cohort(tmp_path: Path) -> dict[str, Path]:
    return write_cohort(tmp_path)


@pytest.fixture
def csv_files(tmp_path: Path) -> dict[str, Path]:
    return {name: write_table(tmp_path / f"{name}.csv", rows, ",") for name, rows in CSV.items()}


def assert_refused(files: dict[str, Path], name: str, *words: str, **options: Any) -> None:
    """Expect a message of one line with the file and the words, and a folder that holds what it held before."""
    folder = files[name].parent
    before = sorted(folder.iterdir())
    with pytest.raises(InputError) as refusal:
        if "labels" in files:
            upstream(folder / "cohort.h5", **{**files, **options})
        else:
            make_cohort(files, **options)
    message = str(refusal.value)
    assert "\n" not in message
    for word in (files[name].name, *words):
        assert word in message
    assert sorted(folder.iterdir()) == before


def test_cohort_round_trip(cohort):
    store = make_cohort(cohort)
    assert store.samples["id"].tolist() == SAMPLES
    assert store.samples["patient"].tolist() == ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-BB-0002", "TCGA-CC-0003"]
    assert store.samples["tissue_type"].tolist() == ["Primary Tumor", "Solid Tissue Normal", "Metastatic", "02"]
    assert set(store.samples["cohort"]) == {"TINY"}
    beta_CS = store.beta(np.arange(3), np.arange(4))
    expected_CS = [[0.1, 0.2, np.nan, 0.4], [0, 1, 0.25, 0.75], [0.5, 0.5, 0.5, np.nan]]
    np.testing.assert_allclose(beta_CS, expected_CS, atol=1e-6)
    assert store.expression_SG.tolist() == [[1, 5, 0], [2, 6, 0], [3, 7, 0.5], [4, 8, 0]]
    assert store.attributes["units"] == "log2(norm+1)"
    assert store.attributes["assembly"] == "hg19"


def test_cohort_positions_and_distances(cohort):
    store = make_cohort(cohort)
    assert store.cpgs["id"].tolist() == ["cg1", "cg2", "cg3"]
    assert store.cpgs["chrom"].tolist() == ["chr1", "", ""]
    assert store.cpgs["position"].tolist() == [1000, -1, -1]
    genes = store.genes.set_index("id")
    assert list(genes.loc["PLUS"]) == ["PLUS", "chr1", 1500, 2500, "+"]
    assert list(genes.loc["ENSG00000000002.7"]) == ["MINUS", "chr1", 100, 700, "-"]
    assert list(genes.loc["NOWHERE"]) == ["NOWHERE", "", -1, -1, ""]
    distances = store.distances
    assert distances.indptr_C.tolist() == [0, 2, 2, 2]
    assert dict(zip(distances.gene_N.tolist(), distances.bp_N.tolist(), strict=True)) == {0: 500, 1: -301}
    by_start = make_cohort(cohort, anchor="start", limit_bp=600).distances
    assert (by_start.gene_N.tolist(), by_start.bp_N.tolist()) == ([0], [500])


def test_probe_map_from_zero(cohort):
    assert make_cohort(cohort, probe_map_base=0).cpgs["position"].tolist() == [1001, -1, -1]


@pytest.mark.parametrize(("window", "first"), [(10, "ACGTCGAACC"), (6, "GTCGAA"), (2, "CG")])
def test_sequences_are_cut_around_the_cg(cohort, window, first):
    store = make_cohort(cohort, window=window)
    assert "".join(ALPHABET[code] for code in store.sequence_CL[0]) == first
    assert (store.sequence_CL[:, window // 2 - 1] == ALPHABET.index("C")).all()
    assert store.sequence_CL[2, window // 2 + 1 :].tolist() == [4] * (window // 2 - 1)
    assert not list(cohort["sequences"].parent.glob("*.fai"))


def test_some_probes_may_lack_a_sequence_where_that_is_said(cohort, caplog):
    full = make_cohort(cohort)
    expected_CL = np.array(full.sequence_CL)
    assert [set(row) == {ALPHABET.index("N")} for row in expected_CL] == [False] * 3
    edit(cohort["sequences"], ">cg2", ">cg9")
    with caplog.at_level("INFO"):
        store = make_cohort(cohort, partial_sequences=True)
    expected_CL[1] = ALPHABET.index("N")
    np.testing.assert_array_equal(store.sequence_CL, expected_CL)
    assert "sequences.fa: has a sequence of 2 of 3 CpGs, the others are N" in caplog.text


def test_genes_without_a_name_are_left_out(cohort, caplog):
    names = make_cohort(cohort).genes["symbol"].tolist()
    with cohort["expression"].open("a") as file:
        file.writelines(f"{name}\t1\t2\t3\t4\t5\n" for name in ("", "", "NA"))
    with caplog.at_level("INFO"):
        store = make_cohort(cohort)
    assert store.genes["symbol"].tolist() == names and len(names) == 3
    assert "3 of 6 rows are none and left out: 3 without a name" in caplog.text


def test_without_sequences_all_bases_are_n(cohort):
    store = make_cohort(cohort, sequences=None)
    assert store.sequence_CL.shape == (3, 6)
    assert (store.sequence_CL == ALPHABET.index("N")).all()


def test_gzip_is_read_like_text(cohort):
    plain = make_cohort(cohort)
    betas, sequences = np.array(plain.beta_steps_CS), np.array(plain.sequence_CL)
    for name, path in list(cohort.items()):
        cohort[name] = path.with_name(path.name + ".gz")
        cohort[name].write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    store = make_cohort(cohort)
    assert (store.beta_steps_CS == betas).all()
    assert (store.sequence_CL == sequences).all()


def test_quotes_and_line_ends_of_other_programs(cohort):
    content = cohort["expression"].read_text()
    quoted = content.replace("PLUS", '"PLUS"').replace("TCGA.AA.0001.01", '"TCGA.AA.0001.01"')
    cohort["expression"].write_bytes(quoted.replace("\n", "\r\n").encode())
    assert make_cohort(cohort).genes["id"].tolist() == ["PLUS", "ENSG00000000002.7", "NOWHERE"]


def test_provenance(cohort):
    record = make_cohort(cohort).attributes["provenance"]
    assert record["source"] == "tcga"
    assert record["settings"]["methylation"] == str(cohort["methylation"])
    assert record["settings"]["limit_bp"] == 100_000
    first = cohort["methylation"].read_bytes()
    checksum = hashlib.sha256(first).hexdigest()
    assert record["inputs"][0] == {"file": "methylation.tsv", "bytes": len(first), "sha256": checksum}
    assert len(record["inputs"]) == 5
    counts = {
        "cpgs": 3,
        "samples": 4,
        "genes": 3,
        "genes_without_coordinates": 1,
        "missing_share": pytest.approx(2 / 12),
    }
    assert record["counts"] == counts


EDITS = {
    "column that is no barcode": ("methylation", "TCGA-ZZ-9999-01", "Annotation", "'Annotation'"),
    "barcode without a sample code": ("expression", "TCGA.YY.8888.01", "TCGA-YY-8888-1", "'TCGA-YY-8888-1'"),
    "same barcode with dots": ("methylation", "TCGA-ZZ-9999-01", "TCGA.AA.0001.01", "'TCGA-AA-0001-01'", "twice"),
    "same column": ("methylation", "TCGA-ZZ-9999-01", "TCGA-AA-0001-01", "'TCGA-AA-0001-01'", "twice"),
    "beta above 1": ("methylation", "0.75", "1.75", "'cg2'", "'TCGA-CC-0003-02'", "1.75"),
    "beta below 0": ("methylation", "0.75", "-0.75", "'cg2'", "'TCGA-CC-0003-02'", "-0.75"),
    "infinite beta": ("methylation", "0.75", "inf", "'cg2'", "'TCGA-CC-0003-02'", "inf"),
    "text for beta": ("methylation", "0.75", "n.a.", "'cg2'", "'TCGA-CC-0003-02'", "'n.a.'"),
    "text for expression": ("expression", "0.5", "low", "'NOWHERE'", "'TCGA.BB.0002.06'", "'low'"),
    "missing expression": ("expression", "0.5", "NA", "'NOWHERE'", "'TCGA.BB.0002.06'"),
    "probe twice": ("methylation", "cg3", "cg2", "probe 'cg2'", "twice"),
    "gene twice": ("expression", "NOWHERE", "PLUS", "gene 'PLUS'", "twice"),
    "probe twice in the map": ("probe_map", "cg2", "cg1", "probe 'cg1'", "twice"),
    "row too short": ("methylation", "\t0.25\t0.75\t0.9", "\t0.25", "'cg2'", "4 cells", "6"),
    "row too long": ("expression", "0.5", "0.5\t1", "'NOWHERE'", "7 cells", "6"),
    "map without positions": ("probe_map", "chromStart", "start", "'chromStart'"),
    "text for a position": ("probe_map", "1001", "1e3x", "'cg1'", "'chromStart'", "'1e3x'"),
    "text for a gene start": ("genes", "101", "p13", "'MINUS'", "'start'", "'p13'"),
    "strand by number": ("genes", "\t-\t", "\t-1\t", "'MINUS'", "'-1'"),
    "genes without strand": ("genes", "strand", "sense", "'strand'"),
    "no sequence": ("sequences", ">cg2", ">cg9", "'cg2'"),
    "short sequence": ("sequences", "aattcgttaa", "ttcg", "'cg2'", "4 bases", "6"),
    "odd sequence": ("sequences", "aattcgttaa", "aattcgtta", "'cg2'", "9 bases"),
    "sequence twice": ("sequences", ">cg2", ">cg1", "cg1"),
}


@pytest.mark.parametrize(("name", "old", "new", "words"), [(*e[:3], e[3:]) for e in EDITS.values()], ids=EDITS)
def test_bad_cell_is_refused(cohort, name, old, new, words):
    edit(cohort[name], old, new)
    assert_refused(cohort, name, *words)


@pytest.mark.parametrize("name", [*TABLES, "sequences"])
@pytest.mark.parametrize("damage", ["missing", "empty", "header only", "not gzip", "truncated gzip", "hidden gzip"])
def test_bad_file_is_refused(cohort, name, damage):
    path = cohort[name]
    content = path.read_bytes()
    if damage == "hidden gzip":
        path.write_bytes(gzip.compress(content))
    elif "gzip" in damage:
        path.unlink()
        cohort[name] = path = path.with_name(path.name + ".gz")
        path.write_bytes(content if damage == "not gzip" else gzip.compress(content)[:-12])
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content.splitlines(keepends=True)[0] if damage == "header only" else b"")
    assert_refused(cohort, name)


def test_commas_instead_of_tabs_are_refused(cohort):
    write_table(cohort["methylation"], TABLES["methylation"], ",")
    assert_refused(cohort, "methylation", r"'\t' between cells")


def test_shifted_beta_is_named(cohort):
    shifted = [["sample", *SAMPLES], ["cg1", "-0.4", "-0.3", "NA", "-0.1"], ["cg2", "-0.5", "0.5", "-0.25", "0.25"]]
    write_table(cohort["methylation"], shifted)
    assert_refused(cohort, "methylation", "add 0.5", "-0.5")


def test_no_shared_sample(cohort):
    write_table(cohort["expression"], [["sample", "TCGA-YY-8888-01"], ["PLUS", "1"]])
    assert_refused(cohort, "expression", "methylation.tsv", "TCGA-AA-0001-01")


def test_no_shared_gene(cohort):
    write_table(cohort["expression"], [["sample", *SAMPLES], ["4609", "1", "2", "3", "4"]])
    assert_refused(cohort, "genes", "'4609'")


@pytest.mark.parametrize("options", [{"window": 7}, {"window": 0}, {"probe_map_base": 2}])
def test_bad_setting_is_refused(cohort, options):
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"{name}={value}"):
        make_cohort(cohort, **options)


def test_upstream_round_trip(tmp_path, csv_files):
    upstream(tmp_path / "mini.h5", **csv_files)
    store = Store(tmp_path / "mini.h5")
    assert store.cpgs["id"].tolist() == ["cg_1", "cg_2"]
    assert store.cpgs["position"].tolist() == [-1, -1]
    assert store.genes["id"].tolist() == ["A", "B"]
    assert store.samples["patient"].tolist() == ["s_1", "s_2"]
    assert store.expression_SG.tolist() == [[1, 2], [3, 4]]
    np.testing.assert_allclose(store.beta(np.arange(2), np.arange(2)), [[0.1, 0.2], [0.3, np.nan]], atol=1e-6)
    assert ["".join(ALPHABET[code] for code in codes) for codes in store.sequence_CL] == ["TCGN", "ACGT"]
    assert store.distances.indptr_C.tolist() == [0, 2, 3]
    assert store.distances.gene_N.tolist() == [0, 1, 0]
    assert store.distances.bp_N.tolist() == [200_000_123, 3, -1000]
    assert store.attributes["provenance"]["counts"]["genes_without_coordinates"] == 2


UPSTREAM_EDITS = {
    "CpG without distances": ("distances", "cg_2", "cg_9", "'cg_2'"),
    "gene without distances": ("distances", "B", "C", "'B'"),
    "distance in base pairs": ("distances", "-0.001", "-1000", "'cg_2'", "'A'", "-1000"),
    "distance beyond any chromosome": ("distances", "-0.001", "-1e-12", "'cg_2'", "'A'"),
    "sample without expression": ("expression", "s_2", "s_9", "'s_2'"),
    "text for expression": ("expression", "3", "x", "'s_2'", "'A'", "'x'"),
    "CpG without sequence": ("sequences", "cg_1", "cg_9", "'cg_1'"),
    "two letters at a base": ("sequences", "cg_2,1,0", "cg_2,1,1", "'cg_2'", "base 0"),
    "half a letter at a base": ("sequences", "cg_2,1,0", "cg_2,.5,.5", "'cg_2'", "base 0"),
    "no CG in the centre": ("sequences", "cg_2,1,0,0,0,0,0,1,0", "cg_2,1,0,0,0,0,0,0,1", "'cg_2'", "CG"),
    "CpG twice": ("labels", "cg_2", "cg_1", "'cg_1'", "twice"),
    "beta above 1": ("labels", "0.3", "3", "'cg_2'", "'s_1'"),
}


@pytest.mark.parametrize(
    ("name", "old", "new", "words"), [(*e[:3], e[3:]) for e in UPSTREAM_EDITS.values()], ids=UPSTREAM_EDITS
)
def test_bad_upstream_file_is_refused(csv_files, name, old, new, words):
    edit(csv_files[name], old, new)
    assert_refused(csv_files, name, *words)


def test_one_hot_of_another_width_is_refused(csv_files):
    write_table(csv_files["sequences"], [["Probe", "0", "1"], ["cg_1", "0", "1"], ["cg_2", "0", "1"]], ",")
    assert_refused(csv_files, "sequences", "2 one-hot columns")


@pytest.mark.parametrize("name", CSV)
def test_missing_upstream_file_is_refused(csv_files, name):
    csv_files[name].unlink()
    assert_refused(csv_files, name)
