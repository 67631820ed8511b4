"""The spatial experiment on a simulated run and a section made from its cohort.

Axis letters: N spots, C CpGs, G genes.
"""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import spearmanr

from experiments.spatial import __main__ as script
from experiments.spatial import checks, cis, figures, inputs, sections
from experiments.spatial.__main__ import main
from experiments.spatial.diluted_bulk import AS_SPOTS, UNDILUTED, thin
from methyl_lightning.data.store import Store
from methyl_lightning.dilution.run import AS_IS, DILUTED, SCORES
from methyl_lightning.model.grid import cpg_table
from methyl_lightning.predict import predict

GRID = np.stack(np.meshgrid(np.arange(8.0), np.arange(6.0)), axis=-1).reshape(-1, 2)  # 48 places


def made_section(store: Store, seed: int = 0) -> anndata.AnnData:
    """Draw spots of 300 to 3,000 molecules from random samples; the last spot has a single one."""
    rng = np.random.default_rng(seed)
    sample_N = rng.integers(0, len(store.samples), len(GRID))
    molecules_N = rng.integers(300, 3000, len(GRID))
    molecules_N[-1] = 1
    counts_NG = thin(np.exp2(store.expression_SG[sample_N].astype(np.float64)) - 1, molecules_N, rng)
    labels = ["invasive cancer"] * 25 + ["connective tissue"] * 18 + ["undetermined"] * 5
    obs = pd.DataFrame({inputs.LABEL: labels}, index=[f"spot{n}" for n in range(len(GRID))])
    return anndata.AnnData(counts_NG, obs, pd.DataFrame(index=store.genes["symbol"].tolist()), obsm={"spatial": GRID})


@pytest.fixture
def place(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where the store is, with a section, cells, a dilution table, and genes of the cohort as markers."""
    monkeypatch.chdir(workplace)
    store = Store("stores/simulated.h5")
    genes = store.genes["symbol"].tolist()
    table = cpg_table(store.cpgs, store.genes, store.distances)
    near = table.loc[table["nearest_gene"].isin(genes) & (table["nearest_bp"].abs() < 1000), "nearest_gene"]
    monkeypatch.setattr(inputs, "SUBTYPE_GENES", frozenset(near.iloc[:3]))
    monkeypatch.setattr(script, "ALL_LEVELS", (AS_SPOTS, 1_000_000, UNDILUTED))
    monkeypatch.setattr(checks, "PERMUTATIONS", 20)
    monkeypatch.setattr(sections, "STROMA", tuple(genes[:3]))
    monkeypatch.setattr(sections, "OESTROGEN", genes[4])
    made_section(store).write_h5ad(tmp_path / "P1.h5ad")
    cells = made_section(store, 5)[:-1].copy()
    cells.obs["bulk_labels"], cells.obs["n_counts"] = ["T", "B"] * 23 + ["B"], cells.X.sum(axis=1)
    cells.raw = cells
    cells.write_h5ad(tmp_path / "cells.h5ad")
    levels = {"retention": [10.0, 100.0], "genes": [5.0, 30.0]}
    repeats = pd.DataFrame({"test": DILUTED, "match": "scaler", **levels, **dict.fromkeys(SCORES, 0.1)})
    undiluted = pd.DataFrame([{"test": "undiluted", "match": AS_IS, "genes": 40.0, **dict.fromkeys(SCORES, 0.2)}])
    pd.concat([repeats, repeats, undiluted]).to_csv(tmp_path / "dilution.csv", index=False)
    return tmp_path


def test_script_runs_end_to_end(workplace: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--cells", str(place / "cells.h5ad"), "--dilution", str(place / "dilution.csv")]
    main(["run", "--sections", str(place / "P1.h5ad"), *given, "--output", str(place / "out")])
    assert "written to" in capsys.readouterr().out
    drawn = {"tissue_run", "tissue_run_neighbours", "labels", "molecules", "neighbours", "relations", "dilution"}
    tables = {"sections", "labels", "thinned_bulk", "cells", "coverage"}
    names = {f"{name}.png" for name in drawn} | {f"{name}.csv" for name in tables}
    assert {path.name for path in (place / "out").iterdir()} == names
    for name in drawn:
        with Image.open(place / "out" / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 50, name  # not an empty canvas

    run = inputs.open_run(Path("run"))
    data, left_out = inputs.read_section(place / "P1.h5ad", run.expression_SG.columns)
    beta = predict(run.checkpoint, data, run.cpgs.index.tolist(), match="depth", intervals=False)
    found = pd.read_csv(place / "out" / "sections.csv").set_index("quantity")["depth"]
    assert left_out == 1 and found["spots"] == 47 and found["spots_left_out"] == 1
    fitted = np.polyfit(np.log10(data.obs["counts"]), (mean_N := beta.X.mean(axis=1)), 1)
    residual_N = mean_N - np.polyval(fitted, np.log10(data.obs["counts"]))
    assert found["r2_molecules"] == pytest.approx(1 - residual_N.var() / mean_N.var(), abs=2e-3)
    label_N = data.obs[inputs.LABEL].to_numpy(str)
    labels = pd.read_csv(place / "out" / "labels.csv").set_index(["label", "cpg"])
    cpg = run.subtype_cpgs().index[0]
    expected = beta.to_df().loc[label_N == "connective tissue", cpg].mean()
    assert labels.loc[("connective tissue", cpg), "mean"] == pytest.approx(expected, rel=5e-3)
    thinned = pd.read_csv(place / "out" / "thinned_bulk.csv").query("cpgs == 'unseen'")
    undiluted = thinned[thinned["molecules"] == "undiluted"]["mae"].item()
    assert thinned["covered"].between(0.3, 1).all()
    assert undiluted == pytest.approx(thinned[thinned["molecules"] == "1000000"]["mae"].min(), abs=0.02)


@pytest.mark.parametrize(
    ("change", "word"),
    [("run", "config.yaml"), ("section", "spatial"), ("dilution", "dilution.csv")],
)
def test_bad_input_ends_in_one_line(place: Path, capsys: pytest.CaptureFixture[str], change: str, word: str) -> None:
    store = Store("stores/simulated.h5")
    bare = made_section(store)
    del bare.obsm["spatial"]
    bare.write_h5ad(place / "bare.h5ad")
    section = place / ("bare.h5ad" if change == "section" else "P1.h5ad")
    table = place / ("P1.h5ad" if change == "dilution" else "dilution.csv")
    folder = "stores" if change == "run" else "run"
    with pytest.raises(SystemExit) as stop:
        main([folder, "--sections", str(section), "--dilution", str(table), "--output", str(place / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and word in error
    assert not (place / "out").exists() or not list((place / "out").iterdir())


def test_morans_i_of_known_patterns() -> None:
    weight_NN = checks.neighbours(np.stack(np.meshgrid(range(20), range(20)), -1).reshape(-1, 2).astype(float))
    x_N, y_N = np.arange(400) % 20, np.arange(400) // 20
    noise_N = np.random.default_rng(0).normal(size=400)
    values_NC = np.stack([(x_N + y_N) % 2, x_N, noise_N, np.ones(400)], axis=1).astype(float)
    board, slope, noise, constant = checks.morans_i(values_NC, weight_NN)
    assert board < -0.85 and slope > 0.9 and abs(noise) < 0.12 and np.isnan(constant)
    null = checks.permuted_morans_i(values_NC[:, :3], weight_NN, np.random.default_rng(0))
    assert null.shape == (checks.PERMUTATIONS, 3) and np.abs(np.quantile(null, [0.025, 0.975])).max() < 0.13


def test_what_goes_with_one_number_is_found_and_removed() -> None:
    rng = np.random.default_rng(0)
    depth_N, own_NC = rng.normal(size=200), rng.normal(size=(200, 30))
    planted_NC = 3 + depth_N[:, None] * rng.normal(size=30)
    assert checks.one_number_share(planted_NC) == pytest.approx(1)
    assert checks.one_number_share(own_NC) < 0.12
    assert checks.explained(planted_NC[:, 0], depth_N) == pytest.approx(1)
    left_NC = checks.without(planted_NC + own_NC, depth_N)
    assert max(checks.explained(column, depth_N) for column in left_NC.T) < 1e-12
    assert np.corrcoef(left_NC[:, 0], own_NC[:, 0])[0, 1] > 0.98


def test_agreement_counts_signs_against_chance() -> None:
    one_C = np.array([1.0, 2, 3, -1, np.nan, 0])
    found = checks.agreement(one_C, np.array([2.0, 1, -1, -3, 1, 1]))
    assert found["n"] == 4 and found["same_sign"] == 0.75
    assert found["same_sign_chance"] == pytest.approx(0.75 * 0.5 + 0.25 * 0.5)
    beta_CS = np.array([[0.0, 0, 0, 1, 1, 1], [0.5, 0.5, np.nan, 0.2, 0.2, 0.2]])
    np.testing.assert_allclose(checks.tertile_difference(beta_CS, np.arange(6)), [1, -0.3], atol=1e-6)


def test_cis_relations_are_those_that_are_planted(place: Path) -> None:
    run = inputs.open_run(Path("run"))
    expression = run.expression_SG.iloc[:30]
    own_NC = cis.own_gene(expression, run.cpgs)
    beta_NC = np.nan_to_num(-own_NC)
    rho_C = cis.predicted_relation(run, beta_NC, expression, np.ones(30))
    promoter_C = run.cpgs["promoter"].to_numpy() & np.isfinite(rho_C)
    assert promoter_C.sum() > 3 and np.isnan(rho_C[~run.cpgs["promoter"].to_numpy()]).all()
    np.testing.assert_allclose(rho_C[promoter_C], -1)
    c = int(np.flatnonzero(promoter_C)[0])
    gene = run.cpgs["nearest_gene"].iloc[c]
    expected = spearmanr(run.beta_CS[c], run.expression_SG[gene], nan_policy="omit")[0]
    assert cis.cohort_relation(run)[c] == pytest.approx(expected)


def test_retention_is_that_of_as_many_genes() -> None:
    table = pd.DataFrame({"test": DILUTED, "genes": [10.0, 1000.0], "retention": [100.0, 10_000.0]})
    np.testing.assert_allclose(figures.equivalent_retention(np.array([10, 100, 2000]), table), [100, 1000, 10_000])
