"""Expression in, methylation out: equal to the network's own predictions, whatever the order, the file or the block."""

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import command, files, largest_file, process

import methyl_lightning
from methyl_lightning import predict as package
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.data.store import ALPHABET, Store
from methyl_lightning.files import InputError
from methyl_lightning.model import grid
from methyl_lightning.model.card import describe
from methyl_lightning.model.checkpoint import export_folder, load_checkpoint
from methyl_lightning.model.conformal import interval
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.predict import prediction
from methyl_lightning.predict.output import predict_to_file
from methyl_lightning.predict.prediction import prepared

matplotlib.use("Agg")
MODELS = ("best.ckpt", "references/bilinear_ridge/best.ckpt")


@pytest.fixture(scope="module")
def store(workplace: Path) -> Store:
    return Store(workplace / "stores" / "simulated.h5")


@pytest.fixture(scope="module")
def checkpoint(workplace: Path) -> Path:
    return workplace / "run" / "best.ckpt"


def section(store: Store, n: int | None = None) -> anndata.AnnData:
    """Make a section whose spots are the store's samples, with coordinates and labels."""
    samples = store.samples["id"].tolist()[:n]
    place = np.stack(np.unravel_index(np.arange(len(samples)), (7, 7)), axis=1).astype(float)
    obs = pd.DataFrame({"label": [("in situ", "a/b", "fat")[i % 3] for i in range(len(samples))]}, index=samples)
    return anndata.AnnData(
        np.array(store.expression_SG[: len(samples)]),
        obs=obs.astype({"label": "category"}),
        var=pd.DataFrame(index=store.genes["symbol"].to_numpy(str)),
        obsm={"spatial": place},
        uns={"label_colors": np.array(["red", "green", "blue"])},
    )


OWN: dict[str, Any] = {"units": "log2", "match": "none"}  # values that are on the training's scale already


@pytest.mark.parametrize("model", MODELS)
def test_prediction_equals_the_grid(workplace: Path, store: Store, model: str) -> None:
    every = np.arange(len(store.cpgs)), np.arange(len(store.samples))
    module = load_checkpoint(workplace / "run" / model)
    expected_SC = predict_grid(module, store, *every).T.clip(0, 1)
    data = package.predict(workplace / "run" / model, section(store), **OWN)
    np.testing.assert_allclose(data.X, expected_SC, atol=2e-5)
    assert data.obs_names.tolist() == store.samples["id"].tolist()
    assert data.var_names.tolist() == store.cpgs["id"].tolist()
    assert data.var["position"].tolist() == store.cpgs["position"].tolist()


def test_order_of_genes_samples_and_cpgs_does_not_matter(checkpoint: Path, store: Store) -> None:
    rng, data = np.random.default_rng(0), section(store)
    whole = package.predict(checkpoint, data, **OWN)
    s, g, c = (rng.permutation(n) for n in (*data.shape, len(store.cpgs)))
    ids = store.cpgs["id"].to_numpy(str)[c[:50]].tolist()
    mixed = package.predict(checkpoint, data[s][:, g].copy(), ids, **OWN)
    np.testing.assert_allclose(mixed.X, whole[s, ids].X, atol=1e-6)
    assert mixed.var_names.tolist() == ids and (mixed.obs == whole.obs.iloc[s]).all().all()


def test_blocks_do_not_matter_and_each_row_is_encoded_once(
    checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = section(store)
    whole = package.predict(checkpoint, data, **OWN)
    for name, size in (("CPG_BLOCK", 7), ("SAMPLE_BLOCK", 16), ("CELLS_AT_ONCE", 1)):
        monkeypatch.setattr(prediction, name, size)
    monkeypatch.setattr(grid, "ENCODED_BYTES", 3000)
    seen: dict[str, int] = {"cpgs": 0, "samples": 0}
    with prepared(checkpoint, data, **OWN) as ready:
        network = ready.module.network
        encode_cpgs, encode_samples = network.encode_cpgs, network.encode_samples

        def count_cpgs(cpgs: Any) -> Any:
            seen["cpgs"] += len(cpgs.key_C)
            return encode_cpgs(cpgs)

        def count_samples(rows: torch.Tensor) -> Any:
            seen["samples"] += len(rows)
            return encode_samples(rows)

        monkeypatch.setattr(network, "encode_cpgs", count_cpgs)
        monkeypatch.setattr(network, "encode_samples", count_samples)
        blocks = list(ready.blocks())
    assert seen == {"cpgs": len(store.cpgs), "samples": len(data)}
    assert [rows.stop - rows.start for rows, _ in blocks] == [16, 16, len(data) - 32]
    np.testing.assert_allclose(np.concatenate([beta for _, beta in blocks]), whole.X, atol=1e-6)
    predict_to_file(tmp_path / "out.h5ad", checkpoint, data, **OWN)
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    for name in (None, "lower", "upper"):
        np.testing.assert_allclose(written.X if name is None else written.layers[name], _layer(whole, name), atol=1e-6)


def _layer(data: anndata.AnnData, name: str | None) -> np.ndarray:
    return data.X if name is None else data.layers[name]


def test_intervals_hold_their_prediction_and_cover_the_test(workplace: Path, checkpoint: Path, store: Store) -> None:
    module = load_checkpoint(checkpoint)
    data = package.predict(checkpoint, section(store), **OWN)
    lower, upper = data.layers["lower"], data.layers["upper"]
    assert (lower >= 0).all() and (upper <= 1).all() and (lower <= data.X).all() and (upper >= data.X).all()
    for view in TEST_VIEWS:
        calibration = prediction.calibration_of(module, view.startswith("train_cpg"))
        assert calibration is not None and calibration.level == 0.9
        read = anndata.read_h5ad(workplace / "run" / f"predictions_{view}.h5ad")
        low, high = interval(calibration, read.X)
        measured = read.layers["measured"]
        known = np.isfinite(measured)
        inside = ((measured >= low - 5e-5) & (measured <= high + 5e-5))[known].mean()
        assert module.card["coverage"][view] == pytest.approx(inside, abs=1e-4)
    assert module.card["metrics"] == json.loads((workplace / "run" / "metrics.json").read_text())
    assert "90% intervals, calibrated on" in (workplace / "train.out").read_text()


def test_output_opens_in_scanpy_and_a_section_is_drawn(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    section(store).write_h5ad(tmp_path / "section.h5ad")
    overrides = ["expression=section.h5ad", "output=methylation.h5ad", "groupby=label", f"checkpoint={checkpoint}"]
    result = command("predict", [*overrides, "units=log2", "match=none"], tmp_path)
    assert result.status == 0, result.err
    for words in ("40 of the checkpoint's 40 (100.0%)", "units: log2 (as told)", "cover: test_cpg-train_sample"):
        assert words in result.out
    with h5py.File(tmp_path / "methylation.h5ad") as file:
        assert "raw" not in file  # none of it, which a former anndata cannot read
    data = scanpy.read_h5ad(tmp_path / "methylation.h5ad")
    assert (
        data.obsm["spatial"].shape == (len(data), 2)
        and data.obs["label"].tolist() == section(store).obs["label"].tolist()
    )
    figure = scanpy.pl.embedding(
        data, basis="spatial", color=[data.var_names[3], "label"], show=False, return_fig=True, sort_order=False
    )
    figure.savefig(tmp_path / "section.png")
    points = figure.axes[0].collections[0]
    np.testing.assert_allclose(points.get_array(), data.X[:, 3], atol=1e-6)
    np.testing.assert_allclose(points.get_offsets(), data.obsm["spatial"])
    facts = data.uns["methyl_lightning"]
    assert facts["gene_coverage"] == 1 and facts["assembly"] == "simulated" and "torch" in facts["versions"]
    genes = store.genes.set_index("symbol")
    for cpg in data.var.itertuples():
        if cpg.nearest_gene:
            gene = genes.loc[cpg.nearest_gene]
            tss = gene["start"] if gene["strand"] == "+" else gene["end"] - 1
            assert (gene["chrom"], tss - cpg.position) == (cpg.chrom, cpg.nearest_bp)


def test_groups_are_means_ready_for_a_genome_browser(checkpoint: Path, store: Store, tmp_path: Path) -> None:
    data = section(store)
    data.X[5] = 0  # nothing is expressed: NaN, and left out of the means
    with pytest.raises(InputError, match="no such column"):
        predict_to_file(tmp_path / "out.parquet", checkpoint, data, groupby="nolabel", units="log2", skip_empty=True)
    notes = predict_to_file(tmp_path / "out.parquet", checkpoint, data, groupby="label", units="log2", skip_empty=True)
    table = pd.read_parquet(tmp_path / "out.parquet").set_index("sample")
    assert table.index.tolist() == data.obs_names.tolist() and table.columns.tolist() == store.cpgs["id"].tolist()
    assert table.iloc[5].isna().all() and table.drop(index=table.index[5]).notna().all().all()
    assert len(notes) == 2
    folder = tmp_path / "out_by_label"
    assert files(folder) == {"means.tsv", "a_b.bedGraph", "fat.bedGraph", "in_situ.bedGraph"}
    means = pd.read_csv(folder / "means.tsv", sep="\t", index_col="cpg")
    expected = table.groupby(data.obs["label"].to_numpy(str)).mean()
    np.testing.assert_allclose(means[["a/b", "fat", "in situ"]].T, expected, atol=1e-5)
    bed = pd.read_csv(folder / "in_situ.bedGraph", sep="\t", header=None)
    assert bed.equals(bed.sort_values([0, 1])) and not bed.duplicated([0, 1]).any()
    assert (bed[2] == bed[1] + 1).all() and len(bed) == len(store.cpgs.drop_duplicates(["chrom", "position"]))


@pytest.mark.parametrize("name", ["out.h5ad", "out.parquet"])
@pytest.mark.parametrize("n_bytes", [5_000, 50_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    checkpoint: Path, store: Store, tmp_path: Path, name: str, n_bytes: int
) -> None:
    refused = rf"{name}: predictions not written \(.*File too large.*\); the former one, if any, stands$"
    with largest_file(n_bytes), pytest.raises(InputError, match=refused):
        predict_to_file(tmp_path / name, checkpoint, section(store), groupby="label", **OWN)
    assert not files(tmp_path)


def test_exported_folder_predicts_alike_and_refuses_to_overwrite(workplace: Path, store: Store, tmp_path: Path) -> None:
    for model in MODELS:
        path, folder = workplace / "run" / model, tmp_path / Path(model).parent.name / "export"
        export_folder(path, folder)
        assert files(folder) == {"model.safetensors", "card.json"}
        ours, theirs = (package.predict(one, section(store, 5), **OWN) for one in (path, folder))
        np.testing.assert_array_equal(ours.X, theirs.X)
        np.testing.assert_array_equal(ours.layers["lower"], theirs.layers["lower"])
        pd.testing.assert_frame_equal(ours.var, theirs.var)
        with pytest.raises(InputError, match="exists already"):
            export_folder(path, folder)


def test_checkpoint_needs_no_store(checkpoint: Path, store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    data = section(store, 6)
    monkeypatch.setattr(Store, "__init__", lambda *args: pytest.fail("the store was opened"))
    found = package.predict(tmp_path / "alone.ckpt", data, **OWN)
    assert found.shape == (6, 120) and np.isfinite(found.X).all()


def test_card_is_printed(workplace: Path) -> None:
    result = command("predict", ["describe=run/best.ckpt"], workplace)
    assert result.status == 0, result.err
    metrics = json.loads((workplace / "run" / "metrics.json").read_text())["test_cpg-test_sample"]
    low, high = metrics["mae_ci95"]
    assert f"MAE: {metrics['mae']:.3f} ({low:.3f}–{high:.3f})" in result.out
    for words in ("LevyJurgenson", "log2(norm+1), 40 genes", "limits of use", "Not for diagnosis", "window of 100"):
        assert words in result.out
    module = load_checkpoint(workplace / "run" / "best.ckpt")
    del module.card["depths"]  # as in the former format
    assert "limits of use" in describe(module)


def test_the_python_call_and_the_command_stand_in_one_package() -> None:
    assert package.predict is prediction.predict
    assert importlib.import_module("methyl_lightning.predict.__main__").predict is not prediction.predict
    assert package.predict is prediction.predict


def test_importing_the_package_imports_nothing_heavy() -> None:
    folder = Path(methyl_lightning.__file__).parent.parent
    light = "import sys, methyl_lightning; assert not {'torch', 'anndata', 'pandas'} & set(sys.modules)"
    done = process(["-c", light], folder, PYTHONPATH=str(folder))
    assert done.status == 0, done.err


def fasta(path: Path, sequence: str, chrom: str = "chr1") -> Path:
    path.write_text(f">{chrom}\n{sequence}\n")
    return path


@pytest.fixture
def genome(tmp_path: Path) -> tuple[Path, list[int]]:
    """Write a genome with CG at known places, and nowhere else."""
    rng = np.random.default_rng(3)
    bases = np.array(list("ACT"))[rng.integers(0, 3, 3000)]
    places = [300, 700, 1501, 2222]
    for place in places:
        bases[place : place + 2] = ["C", "G"]
    return fasta(tmp_path / "genome.fa", "".join(bases)), places


def test_positions_are_read_from_the_genome(
    checkpoint: Path, store: Store, tmp_path: Path, genome: tuple[Path, list[int]]
) -> None:
    path, places = genome
    data = section(store, 8)
    (tmp_path / "cpgs.bed").write_text("".join(f"chr1\t{place}\t{place + 2}\n" for place in places))
    from_bed = package.predict(checkpoint, data, tmp_path / "cpgs.bed", genome=path, **OWN)
    assert from_bed.var_names.tolist() == [f"chr1:{place}" for place in places]
    (tmp_path / "cpgs.tsv").write_text("id\tchrom\tposition\n" + "".join(f"x{p}\t1\t{p}\n" for p in places[::-1]))
    from_tsv = package.predict(checkpoint, data, tmp_path / "cpgs.tsv", genome=path, **OWN)
    np.testing.assert_allclose(from_tsv.X[:, ::-1], from_bed.X, atol=1e-6)
    assert from_tsv.var_names.tolist() == [f"x{place}" for place in places[::-1]]
    frame = pd.DataFrame({"chrom": "chr1", "position": places})
    from_frame = package.predict(checkpoint, data, frame, genome=path, **OWN)
    np.testing.assert_array_equal(from_frame.X, from_bed.X)
    bases = path.read_text().split()[1]
    windows = "".join(f">w{p} chr1:{p}\n{bases[p - 49 : p + 51]}\n" for p in places)
    (tmp_path / "windows.fa").write_text(windows)
    from_windows = package.predict(checkpoint, data, tmp_path / "windows.fa", **OWN)
    np.testing.assert_allclose(from_windows.X, from_bed.X, atol=1e-6)


def test_windows_and_positions_of_the_training_give_its_predictions(
    workplace: Path, checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    data = section(store, 8)
    cpgs = store.cpgs.iloc[:20]
    letters = np.array(list(ALPHABET))
    lines = [
        f">{cpg.id}x {cpg.chrom}:{cpg.position}\n{''.join(letters[row])}\n"
        for cpg, row in zip(cpgs.itertuples(), store.sequence_CL, strict=False)
    ]
    (tmp_path / "windows.fa").write_text("".join(lines))
    known = package.predict(checkpoint, data, cpgs["id"].tolist(), **OWN)
    found = package.predict(checkpoint, data, tmp_path / "windows.fa", **OWN)
    np.testing.assert_allclose(found.X, known.X, atol=1e-6)
    assert found.var["nearest_bp"].tolist() == known.var["nearest_bp"].tolist()
    np.testing.assert_array_equal(found.var["training_mean"], known.var["training_mean"])
    (tmp_path / "ids.txt").write_text("id\tgene\n" + "\tTP53\n".join(cpgs["id"]) + "\n")
    listed = package.predict(checkpoint, data, tmp_path / "ids.txt", **OWN)
    np.testing.assert_array_equal(listed.X, known.X)
    of_store = package.predict(checkpoint, data, store.path, **OWN)
    np.testing.assert_allclose(of_store.X[:, :20], known.X, atol=1e-6)
