"""Tables of genes: intervals, comparisons between groups, stability and enrichment, against counts by hand."""

from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from methyl_lightning.files import InputError
from methyl_lightning.interpret.genes import (
    GeneEffects,
    Groups,
    class_table,
    contrast_table,
    cpg_classes,
    enrichment,
    gene_table,
    read_gmt,
    stability,
)
from methyl_lightning.interpret.knockout import Knockout

N_CPGS, N_SAMPLES, N_GENES = 30, 40, 12


@pytest.fixture
def groups() -> Groups:
    mean_C = np.repeat([0.1, 0.9], 15)
    island_C = np.repeat(["Island", "OpenSea", ""], 10)
    patient_S = np.array([f"P{s // 2}" for s in range(N_SAMPLES)])
    return Groups(patient_S, np.repeat(["A", "B"], 20), mean_C, cpg_classes(island_C, mean_C))


def effects(seed: int, groups: Groups) -> GeneEffects:
    """Gene 3 is knocked out hardest; group B attends to gene 4, methylated CpGs to gene 5."""
    rng = np.random.default_rng(seed)
    change_SG = rng.uniform(0.9, 1.1, (N_SAMPLES, N_GENES)) * np.where(np.arange(N_GENES) == 3, 2, 1)
    expression_SG = rng.uniform(0.9, 1.1, (N_SAMPLES, N_GENES))
    expression_SG[groups.group_S == "B", 4] += 0.5
    distance_CG = rng.uniform(0.9, 1.1, (N_CPGS, N_GENES))
    distance_CG[groups.mean_C > 0.5, 5] += 0.5
    effect_CG = np.where(np.arange(N_CPGS)[:, None] < 10, -1.0, 1.0) * np.ones(N_GENES)
    change_BG = groups.class_shares() @ np.abs(effect_CG)
    knockout = Knockout(change_SG, change_BG, effect_CG, np.full(N_GENES, True), change_SG.mean(axis=0))
    return GeneEffects({"expression": expression_SG, "distance": distance_CG}, knockout)


GENES = pd.DataFrame({"symbol": [f"G{g}" for g in range(N_GENES)], "chrom": "chr1", "start": range(N_GENES)})


def test_genes_are_ordered_by_knock_out_within_their_intervals(groups: Groups) -> None:
    table = gene_table(GENES, [effects(0, groups), effects(1, groups)], groups, seed=0)
    assert table["symbol"].iloc[0] == "G3" and table["exact"].all()
    for name in ("knock_out", "attention_expression", "attention_distance"):
        assert (table[f"{name}_low"] < table[name]).all() and (table[name] < table[f"{name}_high"]).all()
    assert table["direction"].iloc[0] == pytest.approx(1 / 3)  # −1 on 10 CpGs, 1 on 20
    assert table["best_rank"].iloc[0] == table["worst_rank"].iloc[0] == 1
    assert (table["best_rank"] <= table["worst_rank"]).all() and (table["best_rank"] < table["worst_rank"]).any()


def test_classes_are_told_apart(groups: Groups) -> None:
    table = class_table(GENES, [effects(0, groups)], groups, pd.Index([3]))
    by_class = table.set_index("cpgs")
    assert by_class["direction"].to_dict() == pytest.approx(
        {"Island": -1, "OpenSea": 1, "methylated": 1, "unmethylated": -1 / 3}
    )
    assert by_class["n_cpgs"].to_dict() == {"Island": 10, "OpenSea": 10, "methylated": 15, "unmethylated": 15}


def test_groups_are_compared(groups: Groups) -> None:
    table = contrast_table(GENES, [effects(0, groups)], groups, 3, seed=0)
    first = table.groupby(["branch", "comparison"]).first()
    assert first["symbol"].to_dict() == {
        ("distance", "methylated − unmethylated"): "G5",
        ("expression", "A − others"): "G4",
        ("expression", "B − others"): "G4",
    }
    assert first.loc[("expression", "B − others"), "change"] == pytest.approx(0.5, abs=0.05)
    assert first.loc[("expression", "B − others"), "low"] > 0.4
    assert first.loc[("expression", "A − others"), "high"] < -0.4


def test_stability_of_equal_and_of_other_checkpoints(groups: Groups) -> None:
    one, other = effects(0, groups), effects(1, groups)
    same = stability([one, one], 4)
    assert same["rank_correlation"].tolist() == pytest.approx([1] * 3) and (same["shared_top"] == 1).all()
    assert same["by_chance"].tolist() == pytest.approx([4 / N_GENES] * 3) and same["measure"][0] == "knock_out"
    assert (stability([one, other], 4)["rank_correlation"] < 0.9).all()
    assert stability([one], 4)["rank_correlation"].isna().all()
    alike = one._replace(attention={"distance": np.full((N_CPGS, N_GENES), 1 / N_GENES)})
    assert (
        stability([alike, alike], 4).set_index("measure").loc["attention_distance", "shared_top":].isna()["shared_top"]
    )


def test_enrichment_equals_counting(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_text("first\thttp\tG0\tG1\tG9\tUNKNOWN\nlast\t\tG10\tG11\nnone\tx\tUNKNOWN\n")
    table = enrichment([f"G{g}" for g in range(12)], read_gmt(path), 4)
    assert table["set"].tolist() == ["first", "last"] and table["top_genes"].tolist() == ["G0 G1", ""]
    p = sum(comb(4, k) * comb(8, 3 - k) for k in (2, 3)) / comb(12, 3)
    assert table["p"].tolist() == pytest.approx([p, 1.0]) and table["q"].tolist() == pytest.approx([2 * p, 1.0])
    assert table["expected"].tolist() == pytest.approx([1.0, 2 / 3])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"one two three\n", "line 1 has no name, description and genes"),
        (b"\n", "holds no gene set"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_what_are_no_gene_sets_is_refused(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_gmt(path)
