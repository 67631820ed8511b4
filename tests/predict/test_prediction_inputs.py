"""What people bring is read, recognised and matched; what cannot be right is refused in one line, nothing written."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import assert_refused, command, files
from scipy import io, sparse

from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import export_folder
from methyl_lightning.predict import predict
from methyl_lightning.predict.aggregation import average_matrix
from methyl_lightning.predict.genes import index_genes, match_genes, read_aliases
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.genes import gene_key

GENES = pd.DataFrame({"id": ["TP53", "ENSG00000141736", "C1orf112"], "symbol": ["TP53", "ERBB2", "C1orf112"]})


@pytest.fixture(scope="module")
def store(workplace: Path) -> Store:
    return Store(workplace / "stores" / "simulated.h5")


@pytest.fixture(scope="module")
def checkpoint(workplace: Path) -> Path:
    return workplace / "run" / "best.ckpt"


@pytest.fixture(scope="module")
def cells(store: Store) -> anndata.AnnData:
    """Make cells with the counts of the store's samples."""
    counts = np.rint(np.exp2(np.array(store.expression_SG)) - 1).astype(np.float32)
    names = store.genes["symbol"].to_numpy(str)
    obs = pd.DataFrame({"kind": ["x", "y"] * 30}, index=map(str, range(60))).iloc[: len(counts)]
    place = np.random.default_rng(0).random((len(counts), 2))
    return anndata.AnnData(
        sparse.csr_matrix(counts), obs=obs.copy(), var=pd.DataFrame(index=names), obsm={"spatial": place}
    )


def write_10x(folder: Path, cells: anndata.AnnData, ids: list[str]) -> None:
    folder.mkdir()
    io.mmwrite(str(folder / "matrix.mtx"), cells.X.T.astype(np.int64))
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        file.write((folder / "matrix.mtx").read_bytes())
    (folder / "matrix.mtx").unlink()
    names = cells.var_names
    with gzip.open(folder / "features.tsv.gz", "wt") as file:
        file.writelines(f"{i}\t{name}\tGene Expression\n" for i, name in zip(ids, names, strict=True))
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as file:
        file.writelines(f"{name}\n" for name in cells.obs_names)


def write_10x_h5(path: Path, cells: anndata.AnnData, ids: list[str]) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(cells.X, name)
        group["shape"] = cells.shape[::-1]
        group["barcodes"] = cells.obs_names.to_numpy("S")
        group["features/id"], group["features/name"] = np.array(ids, "S"), cells.var_names.to_numpy("S")


def test_every_format_gives_the_same(checkpoint: Path, cells: anndata.AnnData, tmp_path: Path) -> None:
    ids = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    expected = predict(checkpoint, cells)
    layered = anndata.AnnData(np.zeros(cells.shape, np.float32), cells.obs, cells.var, layers={"counts": cells.X})
    layered.raw = cells
    layered.write_h5ad(tmp_path / "layers.h5ad")
    by_column = cells.copy()
    by_column.X = cells.X.tocsc()
    by_column.write_h5ad(tmp_path / "columns.h5ad")
    dense = pd.DataFrame(cells.X.toarray(), cells.obs_names, cells.var_names)
    dense.T.to_csv(tmp_path / "xena.tsv", sep="\t", index_label="sample")
    dense.to_csv(tmp_path / "cells.csv.gz", index_label="cell")
    dense.rename_axis("cell").reset_index().to_parquet(tmp_path / "cells.parquet")
    write_10x(tmp_path / "folder", cells, ids)
    write_10x_h5(tmp_path / "cells.h5", cells, ids)
    for name, settings in (
        ("layers.h5ad", {"layer": "counts"}),
        ("layers.h5ad", {"raw": True}),
        ("columns.h5ad", {}),
        ("xena.tsv", {}),
        ("cells.csv.gz", {}),
        ("cells.parquet", {}),
        ("folder", {}),
        ("cells.h5", {}),
    ):
        found = predict(checkpoint, tmp_path / name, **settings)
        assert found.uns["methyl_lightning"]["units"] == "counts", name
        assert found.obs_names.tolist() == cells.obs_names.tolist()
        np.testing.assert_allclose(found.X, expected.X, atol=1e-5, err_msg=name)


def test_units_do_not_matter_once_recognised(checkpoint: Path, cells: anndata.AnnData) -> None:
    counts = cells.X.toarray().astype(np.float64)
    share = counts / counts.sum(axis=1, keepdims=True)
    expected = predict(checkpoint, cells, match="quantile")
    noted = {"log1p": {"base": None}}
    by_library = predict(checkpoint, cells, match="library")
    for units, values, uns in (
        ("cpm", share * 1e6, {}),
        ("log1p", np.log1p(share * 1e4), noted),
        ("log2", np.log2(share * 1e6 + 1), {"log1p": {"base": 2}}),
        ("log2", np.log2(counts + 1), {}),
    ):
        data = anndata.AnnData(values.astype(np.float32), cells.obs, cells.var, uns=uns)
        found = predict(checkpoint, data)
        assert found.uns["methyl_lightning"]["units"] == units
        np.testing.assert_allclose(found.X, expected.X, atol=2e-3)
        found = predict(checkpoint, data, match="library")
        np.testing.assert_allclose(found.X, by_library.X, atol=2e-3)


def test_genes_are_matched_by_any_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "genes.tsv").write_text("symbol\tensembl\talias\nERBB2\tENSG00000141736\tHER2|NEU\n")
    aliases = read_aliases(tmp_path / "genes.tsv")
    names = ["other", "neu", "tp53", "ENSG00000141736.12", "HER2", "C1ORF112"]
    match = match_genes("x", names, pd.DataFrame(index=names), GENES, index_genes(GENES, aliases))
    assert match.gene_K.tolist() == [0, 1, 2] and match.coverage == 1 and match.duplicates == 2
    counts = np.array([[100, 1, 20, 4, 8, 3]])
    assert (counts @ match.sum_IK).tolist() == [[20, 13, 3]]
    known = index_genes(GENES, None)
    var = pd.DataFrame({"gene_ids": ["?", "ENSG00000141736.3"]}, index=["a", "b"])
    assert match_genes("x", ["a", "b"], var, GENES, known).gene_K.tolist() == [1]
    with pytest.raises(InputError, match="none of its 1 genes"):
        match_genes("x", ["HER2"], pd.DataFrame(index=["HER2"]), GENES, known)
    for mouse in (["Trp53", "Gapdh", "mt-Nd1", "TP53"], ["ENSMUSG00000059552.14", "ENSMUSG00000064341"]):
        with pytest.raises(InputError, match="named as in mouse"):
            match_genes("x", mouse, pd.DataFrame(index=mouse), GENES, known)
    assert gene_key("ensg00000141736.12") == "ENSG00000141736" and gene_key("FO538757.1") == "FO538757.1"


def test_missing_genes_have_the_training_mean(checkpoint: Path, cells: anndata.AnnData, store: Store) -> None:
    from methyl_lightning.predict.prediction import prepared

    kept = cells[:, 5:].copy()
    with prepared(checkpoint, kept, match="library") as ready:
        read_SG = ready.rows.read(slice(0, 7))
        record = ready.module.training_record()
        assert record is not None
        np.testing.assert_allclose(read_SG[:, :5], np.tile(record.mean_G[:5], (7, 1)))
        total = (np.exp2(read_SG[:, 5:].astype(np.float64)) - 1).sum(axis=1)
        np.testing.assert_allclose(total, record.linear_mean_G[5:].sum(), rtol=1e-4)
    assert ready.uns["methyl_lightning"]["gene_coverage"] == 35 / 40
    with pytest.raises(InputError, match=r"17 of the checkpoint's 40 .* below min_coverage=0.5"):
        predict(checkpoint, cells[:, :17].copy())
    few = predict(checkpoint, cells[:, :17].copy(), min_coverage=0.4)
    assert np.isfinite(few.X).all()


def test_shallow_samples_are_taken_together(checkpoint: Path, cells: anndata.AnnData) -> None:
    with open_expression(cells, None, False, set()) as expression:
        for way in ("spatial", "expression"):
            average = average_matrix(expression, "counts", way, None, 3)
            assert average.shape == (cells.n_obs, cells.n_obs) and (average.diagonal() == 0.25).all()
            np.testing.assert_allclose(average.sum(axis=1), 1)
            assert (np.diff(average.indptr) == 4).all()
        place = cells.obsm["spatial"]
        nearest = np.argsort(np.linalg.norm(place - place[7], axis=1))[:4]
        average = average_matrix(expression, "counts", "spatial", None, 3)
        assert set(average[7].indices) == set(nearest)
        doubled = expression._replace(obsm={"spatial": np.zeros_like(place)})
        assert (average_matrix(doubled, "counts", "spatial", None, 2).diagonal() > 0).all()
    for match, share in (("quantile", 1), ("depth", 4)):  # by depth, together they have all their molecules
        together = predict(checkpoint, cells, match=match, aggregate="spatial", k=3)
        by_hand = anndata.AnnData(share * average @ cells.X, cells.obs, cells.var)
        np.testing.assert_allclose(together.X, predict(checkpoint, by_hand, match=match, units="counts").X, atol=1e-5)
    labels = predict(checkpoint, cells, aggregate="label", label="kind")
    assert labels.obs_names.tolist() == ["x", "y"] and labels.obs["n_samples"].tolist() == [22, 21]
    sums = np.stack([cells.X[start::2].toarray().sum(axis=0) for start in (0, 1)])
    pseudobulk = anndata.AnnData(sums, var=cells.var)
    np.testing.assert_allclose(labels.X, predict(checkpoint, pseudobulk).X, atol=1e-5)


def refused(folder: Path, *overrides: str) -> str:
    """Run the command: one line says what is wrong, and no file is new or changed."""
    before = {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
    result = command("predict", overrides, folder)
    assert_refused(result)
    assert {name: (folder / name).stat().st_mtime_ns for name in files(folder)} == before
    return result.err


@pytest.fixture
def place(checkpoint: Path, cells: anndata.AnnData, tmp_path: Path) -> Path:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    shutil.copy(checkpoint, tmp_path / "best.ckpt")
    return tmp_path


def test_bad_inputs_are_named(place: Path, cells: anndata.AnnData, store: Store) -> None:
    good = ["checkpoint=best.ckpt", "expression=cells.h5ad", "output=out.h5ad"]

    def altered(name: str, change: Any) -> list[str]:
        data = cells.copy()
        data = change(data) or data
        data.write_h5ad(place / name)
        return ["checkpoint=best.ckpt", f"expression={name}", "output=out.h5ad"]

    def value(number: float) -> Any:
        def change(data: anndata.AnnData) -> None:
            data.X = data.X.toarray()
            data.X[3, 2] = number

        return change

    (place / "text.h5ad").write_text("no HDF5")
    with h5py.File(place / "other.h5ad", "w") as file:
        file["x"] = 1
    for name in ("text", "other"):
        assert "not an AnnData file" in refused(place, good[0], f"expression={name}.h5ad", good[2])
    mouse = altered("mouse.h5ad", lambda data: data.var.__setitem__("x", 0) or rename(data, "Gene{}a"))
    assert "named as in mouse (Gene0a" in refused(place, *mouse)
    assert "none of its 40 genes" in refused(place, *altered("no.h5ad", lambda data: rename(data, "NO{}")))
    cell = f"'3', gene '{cells.var_names[2]}'"
    assert cell in (said := refused(place, *altered("nan.h5ad", value(np.nan)))) and "not a finite number" in said
    assert cell in (said := refused(place, *altered("minus.h5ad", value(-1)))) and "raw=true or layer=" in said
    assert "no layer 'x'" in refused(place, *good, "layer=x")
    assert "no .raw" in refused(place, *good, "raw=true")
    assert "no column 'x' in obs (there are: kind)" in refused(place, *good, "aggregate=label", "label=x")
    assert "k=99" in refused(place, *good, "aggregate=spatial", "k=99")
    assert "units=rpkm: must be one of counts, cpm" in refused(place, *good, "units=rpkm")
    assert "'cg_no'" in refused(place, *good, f"cpgs={written(place / 'ids.txt', 'cg_no')}")
    assert "expression=: is not given" in refused(place, "checkpoint=best.ckpt")
    (place / "out.h5ad").write_text("precious")
    assert "out.h5ad: exists already" in refused(place, *good)
    assert (place / "out.h5ad").read_text() == "precious"


def rename(data: anndata.AnnData, form: str) -> None:
    data.var_names = [form.format(i) for i in range(data.n_vars)]


def written(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    return path


def test_positions_that_cannot_be_right_are_named(place: Path, store: Store) -> None:
    good = ["checkpoint=best.ckpt", "expression=cells.h5ad", "output=out.h5ad"]
    bases = ("A" * 98 + "CG") * 20
    written(place / "genome.fa", f">chr1\n{bases}")

    def bed(*places: int) -> str:
        lines = "\n".join(f"chr1\t{p}\t{p + 2}" for p in places)
        return f"cpgs={written(place / 'cpgs.bed', lines)}"

    on = [98 + 100 * i for i in range(19)]
    genome = "genome=genome.fa"
    assert "give genome=FASTA" in refused(place, *good, bed(*on))
    assert "chr1:500 at chr1:500 stands on AA, not CG" in refused(place, *good, bed(*on, 500), genome)
    assert "they look 1-based: subtract 1" in refused(place, *good, bed(*(p + 1 for p in on)), genome)
    assert "another assembly than the checkpoint's simulated" in refused(
        place, *good, bed(*(p + 40 for p in on)), genome
    )
    written(place / "chr2.fa", f">chr2\n{bases}")
    assert "no position (chr1:98, …) has bases in chr2.fa" in refused(place, *good, bed(*on), "genome=chr2.fa")
    assert "no such genome" in refused(place, *good, bed(*on), "genome=no.fa")
    assert "occurs twice" in refused(place, *good, bed(98, 98), genome)
    written(place / "off.fa", f">x\n{'A' * 120}")
    assert "the centre of the window of 'x' is not CG" in refused(place, *good, "cpgs=off.fa")


@pytest.mark.parametrize("strands", [True, False], ids=["named", "told by the genome"])
@pytest.mark.parametrize("kind", ["BED", "coverage"])
def test_both_strands_of_a_cpg_are_one(
    checkpoint: Path, cells: anndata.AnnData, tmp_path: Path, strands: bool, kind: str
) -> None:
    on = [98 + 100 * i for i in range(20)]
    genome = written(tmp_path / "genome.fa", f">chr1\n{('A' * 98 + 'CG') * 20}")
    plain = written(tmp_path / "plain.bed", "\n".join(f"chr1\t{p}\t{p + 1}" for p in on))
    calls = [(p + k, "+-"[k]) for p in on for k in (0, 1)][1:]  # of the first CpG strand - alone
    lines = [f"chr1\t{p}\t{p + 1}\t.\t9\t{strand if strands else '.'}" for p, strand in calls]
    if kind == "coverage":
        lines = [f"chr1\t{p + 1}\t{p + 1}\t80\t8\t2" for p, _ in calls]
    both = written(tmp_path / "both.bed", "\n".join(lines))
    expected, found = (predict(checkpoint, cells, path, genome=genome) for path in (plain, both))
    assert found.var_names.tolist() == expected.var_names.tolist() == [f"chr1:{p}" for p in on]
    np.testing.assert_array_equal(found.X, expected.X)
    (note,) = (note for note in found.uns["methyl_lightning"]["notes"] if "strand" in note)
    assert "20 of 39 positions are on strand -" in note and "both strands of 19 CpGs were joined" in note


def test_names_that_are_numbers_and_the_home_folder(place: Path, cells: anndata.AnnData) -> None:
    kinds = cells.obs["kind"].tolist()
    columns = {"0.5": kinds, "1": kinds, "true": kinds, "1e3": kinds}
    data = anndata.AnnData(
        cells.X, pd.DataFrame(columns, index=cells.obs_names), cells.var, layers={"1": cells.X, "2.50": cells.X}
    )
    data.write_h5ad(place / "numbers.h5ad")
    (place / "home").mkdir()
    (place / "numbers.h5ad").rename(place / "home" / "2024.h5ad")
    for k, settings in enumerate(
        [
            ["groupby=0.5"],
            ["groupby=1"],
            ["groupby=true"],
            ["groupby=1e3"],
            ["layer=1"],
            ["layer=2.50"],
            ["aggregate=label", "label=1"],
        ]
    ):
        overrides = ["checkpoint=best.ckpt", "expression=~/2024.h5ad", f"output=~/{k}.h5ad", *settings]
        result = command("predict", overrides, place, HOME=str(place / "home"))
        assert result.status == 0, result.err
        if settings[0].startswith("groupby"):
            assert "means of 2 groups" in result.out
    assert anndata.read_h5ad(place / "home" / "6.h5ad").obs_names.tolist() == ["x", "y"]
    write_10x(place / "2024", cells, [f"ENSG{i:011d}" for i in range(cells.n_vars)])
    result = command("predict", ["checkpoint=best.ckpt", "expression=2024", "output=2024.h5ad"], place)
    assert result.status == 0, result.err
    assert anndata.read_h5ad(place / "2024.h5ad").obs_names.tolist() == cells.obs_names.tolist()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("groupby=[x]", "groupby=[x]: Hydra reads brackets otherwise; quote the value: 'groupby=\"[x]\"'"),
        ("cpgs={a:b}", "cpgs={a:b}: Hydra reads brackets otherwise; quote the value: 'cpgs=\"{a:b}\"'"),
        ("expression=[a].h5ad", "Hydra reads some characters otherwise; quote the value: 'expression=\"[a].h5ad\"'"),
        ("expression={a}.h5ad", "Hydra reads some characters otherwise; quote the value: 'expression=\"{a}.h5ad\"'"),
        ('expression="~a.h5ad"', "~a.h5ad: no such expression file; check expression="),
        ("min_coverage=half", "min_coverage=half: input should be a valid number"),
        ("k=many", "k=many: input should be a valid integer"),
        ("intervals=maybe", "intervals=maybe: input should be a valid boolean"),
        ("expression=1", "1: no such expression file"),
    ],
)
def test_settings_of_another_type_are_named(place: Path, setting: str, words: str) -> None:
    result = command("predict", ["checkpoint=best.ckpt", "expression=x.h5ad", "output=o.h5ad", setting], place)
    assert_refused(result, words)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_without_coordinates_are_named(checkpoint: Path, cells: anndata.AnnData, value: float) -> None:
    data = cells.copy()
    data.obsm["spatial"][3:5, 1] = value
    with pytest.raises(InputError, match=r"no coordinates of 2 of 43 samples \('3', …\); remove these samples"):
        predict(checkpoint, data, aggregate="spatial", k=3)
    assert np.isfinite(predict(checkpoint, data, aggregate="expression", k=3).X).all()
    for places, words in (
        (np.zeros((43, 0)), r"no obsm\['spatial'\]"),
        (np.full((43, 2), "left"), "no coordinates of 43 of 43 samples"),
    ):
        data.obsm["spatial"] = places
        with pytest.raises(InputError, match=words):
            predict(checkpoint, data, aggregate="spatial", k=3)


def test_means_of_groups_are_read_back(checkpoint: Path, cells: anndata.AnnData, store: Store, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    overrides = [f"checkpoint={checkpoint}", "expression=cells.h5ad"]
    result = command("predict", [*overrides, "output=out.h5ad", "groupby=kind"], tmp_path)
    assert result.status == 0, result.err
    again = predict(checkpoint, cells, tmp_path / "out_by_kind" / "means.tsv")
    assert again.var_names.tolist() == store.cpgs["id"].tolist()
    np.testing.assert_array_equal(again.X, anndata.read_h5ad(tmp_path / "out.h5ad").X)


def test_checkpoints_that_cannot_be_read_are_named(place: Path) -> None:
    rest = ["expression=cells.h5ad", "output=out.h5ad"]
    content = torch.load(place / "best.ckpt", weights_only=True)
    content["methyl_lightning"] |= {"format": 99, "version": "9.1"}
    torch.save(content, place / "newer.ckpt")
    assert "newer.ckpt: written by methyl_lightning 9.1 (checkpoint format 99)" in refused(
        place, "checkpoint=newer.ckpt", *rest
    )
    (place / "half.ckpt").write_bytes((place / "best.ckpt").read_bytes()[:5000])
    assert "truncated or not a checkpoint" in refused(place, "checkpoint=half.ckpt", *rest)
    assert "no such checkpoint" in refused(place, "checkpoint=none.ckpt", *rest)
    export_folder(place / "best.ckpt", place / "folder")
    card = json.loads((place / "folder" / "card.json").read_text())
    (place / "folder" / "card.json").write_text(json.dumps(card | {"format": 99, "version": "9.1"}))
    assert "folder: written by methyl_lightning 9.1" in refused(place, "checkpoint=folder", *rest)
    (place / "folder" / "card.json").unlink()
    assert "no exported checkpoint" in refused(place, "describe=folder")
