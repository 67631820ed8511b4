"""Distances: their weights at the borders, their rows, and what lies near a CpG."""

import numpy as np
import pandas as pd
import pytest
import torch

from methyl_lightning.data.distances import gene_distances, gene_position, nearest_gene, within
from methyl_lightning.data.store import Distances
from methyl_lightning.networks.levy_jurgenson import distance_weights

BUCKETS = {0: 1, 1: 1, 1999: 1, 2000: 0.5, 3999: 0.5, 4000: 0.25, 17_999: 0.5**8, 18_000: 0.5**9, 19_999: 0.5**9}
NOTHING = {20_000: 0, 20_001: 0, 100_000: 0, 2_000_000_000: 0}
WINDOW = {0: 1, 1: 1, 1999: 1, 2000: 1, 2001: 0, 4000: 0, 100_000: 0}
# CpG 0: none; CpG 1: −2000 and 10 001; CpG 2: 2001; CpG 3: none; CpG 4: 0
EXAMPLE = Distances(np.array([0, 0, 2, 3, 3, 4]), np.array([7, 3, 3, 5]), np.array([-2000, 10_001, 2001, 0]))


@pytest.mark.parametrize(("weighting", "expected"), [("buckets", BUCKETS | NOTHING), ("window", WINDOW)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_at_the_borders(weighting: str, expected: dict[int, float], dtype: torch.dtype) -> None:
    bp_N = torch.tensor(list(expected), dtype=torch.int32)
    weight_N = distance_weights(bp_N, weighting, dtype)
    assert weight_N.dtype == dtype
    assert weight_N.tolist() == list(expected.values())
    minus_N = distance_weights(-bp_N[1:], weighting, dtype)
    assert minus_N.tolist() == [-weight for weight in list(expected.values())[1:]]


def test_unknown_weighting_is_named() -> None:
    with pytest.raises(ValueError, match=r"weighting='linear': must be one of \('window', 'buckets'\)"):
        distance_weights(torch.zeros(1, dtype=torch.int32), "linear", torch.float32)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, [False, False, False, False, True]),
        (1999, [False, False, False, False, True]),
        (2000, [False, True, False, False, True]),
        (2001, [False, True, True, False, True]),
        (100_000, [False, True, True, False, True]),
    ],
)
def test_within(limit: int, expected: list[bool]) -> None:
    assert within(EXAMPLE, limit).tolist() == expected


def test_rows_keep_the_order_asked_for() -> None:
    rows = EXAMPLE.rows(np.array([4, 0, 1, 4, 3, 2]))
    assert rows.indptr_C.tolist() == [0, 1, 1, 3, 4, 4, 5]
    assert rows.gene_N.tolist() == [5, 7, 3, 5, 3]
    assert rows.bp_N.tolist() == [0, -2000, 10_001, 0, 2001]
    assert EXAMPLE.rows(np.array([], dtype=int)).indptr_C.tolist() == [0]
    assert EXAMPLE.rows(np.array([3, 0])).indptr_C.tolist() == [0, 0, 0]


def random_tables(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build CpGs and genes on three chromosomes, in no order, some without coordinates, many at the same base."""
    rng = np.random.default_rng(seed)
    chromosomes = np.array(["chr1", "chr10", "chr2"], dtype=object)
    start = rng.integers(0, 60, 80) * 10
    cpgs = pd.DataFrame({"chrom": rng.choice(chromosomes, 70), "position": rng.integers(0, 60, 70) * 10})
    genes = pd.DataFrame(
        {
            "chrom": rng.choice(chromosomes[:2], 80),
            "start": start,
            "end": start + rng.integers(1, 30, 80),
            "strand": rng.choice(np.array(["+", "-"], dtype=object), 80),
        }
    )
    cpgs.loc[[5, 60], "position"] = -1
    genes.loc[[0, 33], ["start", "end"]] = -1
    return cpgs, genes


@pytest.mark.parametrize("anchor", ["tss", "start"])
@pytest.mark.parametrize("limit", [0, 100, 10_000])
def test_distances_equal_a_naive_loop(anchor: str, limit: int) -> None:
    cpgs, genes = random_tables()
    expected: list[set[tuple[int, int]]] = []
    for chrom, position in cpgs.itertuples(index=False):
        near = set()
        for g, gene in genes.iterrows():
            at = gene["end"] - 1 if anchor == "tss" and gene["strand"] == "-" else gene["start"]
            if position >= 0 and gene["start"] >= 0 and gene["chrom"] == chrom and abs(at - position) <= limit:
                near.add((g, at - position))
        expected.append(near)
    distances = gene_distances(cpgs, genes, limit, anchor)
    assert len(distances.indptr_C) == 71
    entries = list(zip(distances.gene_N.tolist(), distances.bp_N.tolist(), strict=True))
    found = [entries[low:high] for low, high in zip(distances.indptr_C[:-1], distances.indptr_C[1:], strict=True)]
    assert [set(row) for row in found] == expected
    assert all(len(row) == len(set(row)) for row in found)
    assert sum(map(len, found)) > 0
    gene_C, bp_C = nearest_gene(distances)
    for row, gene, bp in zip(found, gene_C, bp_C, strict=True):
        assert (gene, bp) in row if row else (gene, bp) == (-1, 0)
        assert all(abs(bp) <= abs(other) for _, other in row)


def test_gene_position_by_strand() -> None:
    genes = pd.DataFrame({"start": [10, 10, -1, -1], "end": [21, 21, -1, -1], "strand": ["+", "-", "+", "-"]})
    assert gene_position(genes, "tss").tolist() == [10, 20, -1, -1]
    assert gene_position(genes, "start").tolist() == [10, 10, -1, -1]
    with pytest.raises(ValueError, match="anchor='end': must be 'tss' or 'start'"):
        gene_position(genes, "end")
