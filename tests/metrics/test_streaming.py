"""Streamed metrics against scipy and the functions on the whole grid. Axis letters: C CpGs, S samples."""

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import grids
from scipy.stats import pearsonr, spearmanr

from methyl_lightning.metrics import scores as metrics
from methyl_lightning.metrics import streaming
from methyl_lightning.metrics.streaming import Blocks, GridSums, RankCounts, Spearman, stream_metrics

NAMES = ("mae", "mse", "pearson", "spearman", "mas_pcc", "mas_pcc_centred", "mac_pcc")


def blocks_of(measured_CS: np.ndarray, predicted_CS: np.ndarray, size: int) -> Blocks:
    return lambda: (
        (measured_CS[first : first + size], predicted_CS[first : first + size])
        for first in range(0, len(measured_CS), size)
    )


def case(kind: str) -> tuple[np.ndarray, np.ndarray]:
    measured_CS, predicted_CS = grids(150, 30, digits=1 if kind == "tied" else 4)
    rng = np.random.default_rng(0)
    if kind == "random":
        predicted_CS = rng.normal(size=predicted_CS.shape)
    elif kind == "narrow":
        predicted_CS = 0.5 + 1e-6 * predicted_CS.astype(float)
    elif kind == "outlier":
        predicted_CS = predicted_CS.copy()
        predicted_CS[3, 3] = 1e4
    measured_CS[40:55] = np.nan  # whole blocks without a cell
    measured_CS[:, 7] = np.nan
    return measured_CS, predicted_CS


@pytest.mark.parametrize("kind", ["planted", "tied", "random", "narrow", "outlier"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_give_what_the_whole_grid_gives(kind: str, size: int) -> None:
    measured_CS, predicted_CS = case(kind)
    found = stream_metrics(blocks_of(measured_CS, predicted_CS, size))
    mask_CS = ~np.isnan(measured_CS)
    x_N, y_N = measured_CS[mask_CS].astype(float), predicted_CS[mask_CS].astype(float)
    assert tuple(found.values) == NAMES
    for name in NAMES:
        expected = getattr(metrics, name)(measured_CS, predicted_CS)
        tolerance = found.spearman_error + 1e-12 if name == "spearman" else 1e-9
        assert found.values[name] == pytest.approx(expected, abs=tolerance, nan_ok=True), name
    assert found.values["spearman"] == pytest.approx(spearmanr(x_N, y_N).statistic, abs=found.spearman_error + 1e-12)
    if kind != "narrow":  # whose spread is noise to all correlations but that of ranks
        assert found.values["pearson"] == pytest.approx(pearsonr(x_N, y_N).statistic, abs=1e-9)
    assert found.spearman_error < (0.05 if kind == "outlier" else 5e-4)
    assert found.spearman_error == 0 or kind in ("random", "narrow", "outlier", "planted")
    np.testing.assert_allclose(found.per_cpg, metrics.pearson_per_cpg(measured_CS, predicted_CS), atol=1e-9)
    np.testing.assert_allclose(found.per_sample, metrics.pearson_per_sample(measured_CS, predicted_CS), atol=1e-9)


def test_the_error_of_coarse_bins_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few bins Spearman is wrong, and by no more than is said."""
    wrong = []
    for n_bins in (3, 5, 17, 100):
        monkeypatch.setattr(streaming, "N_BINS", n_bins)
        for kind in ("planted", "random", "outlier"):
            measured_CS, predicted_CS = case(kind)
            found = stream_metrics(blocks_of(measured_CS, predicted_CS, 50))
            error = abs(found.values["spearman"] - metrics.spearman(measured_CS, predicted_CS))
            assert error <= found.spearman_error
            wrong.append(error)
    assert max(wrong) > 0.01


def test_constant_sides_have_no_correlation() -> None:
    measured_CS, predicted_CS = case("planted")
    for pair in (
        (measured_CS, np.full_like(predicted_CS, 0.3)),
        (np.where(np.isnan(measured_CS), np.nan, 0.5), predicted_CS),
    ):
        found = stream_metrics(blocks_of(*pair, 20))
        assert all(math.isnan(found.values[name]) for name in NAMES[2:])
        assert found.values["mae"] == pytest.approx(metrics.mae(*pair), rel=1e-12)


def test_wrong_blocks_are_named() -> None:
    measured_CS, predicted_CS = case("planted")
    with pytest.raises(ValueError, match=r"predicted_CS has shape"):
        stream_metrics(lambda: [(measured_CS, predicted_CS[:, :3])])
    with pytest.raises(ValueError, match=r"predicted_CS .* not finite"):
        stream_metrics(lambda: [(measured_CS, np.full_like(predicted_CS, np.inf))])
    with pytest.raises(ValueError, match=r"measured_CS holds no measured cell"):
        stream_metrics(lambda: [(measured_CS * np.nan, predicted_CS)])


def test_memory_does_not_grow_with_the_grid() -> None:
    def blocks(n_blocks: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for seed in range(n_blocks):
            rng = np.random.default_rng(seed)
            measured_CS = rng.random((100, 200), dtype=np.float32).round(4)
            yield measured_CS, measured_CS + rng.normal(size=(100, 200)).astype(np.float32)

    peaks = []
    for n_blocks in (2, 20):
        tracemalloc.start()
        stream_metrics(lambda n_blocks=n_blocks: blocks(n_blocks))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20  # 18 more blocks hold 2.7 MiB each in float64


def test_what_two_processes_keep_adds_up() -> None:
    measured_CS, predicted_CS = case("planted")
    whole = stream_metrics(blocks_of(measured_CS, predicted_CS, 1000))
    halves = [(slice(0, 70), GridSums(30)), (slice(70, None), GridSums(30))]
    for rows, sums in halves:
        sums.update(measured_CS[rows], predicted_CS[rows])
    halves[1][1].merge_state(halves[0][1])
    sums = halves[1][1]
    values, per_cpg_C, per_sample_S = sums.compute()
    for name, value in values.items():
        assert value == pytest.approx(whole.values[name], abs=1e-12), name
    np.testing.assert_allclose(per_cpg_C, whole.per_cpg, atol=1e-12)
    np.testing.assert_allclose(per_sample_S, whole.per_sample, atol=1e-12)
    both = [RankCounts(sums.low, sums.high) for _ in range(2)]
    for (rows, _), counts in zip(halves, both, strict=True):
        counts.update(measured_CS[rows], predicted_CS[rows])
    both[1].merge_state(both[0])
    assert both[1].compute()[2] == whole.spearman_error


def test_kept_cells_give_the_exact_correlation_however_they_come() -> None:
    measured_CS, predicted_CS = case("tied")
    mask_CS = ~np.isnan(measured_CS)
    cells = [torch.from_numpy(grid_CS[mask_CS]) for grid_CS in (predicted_CS, measured_CS)]
    parts = [Spearman(), Spearman()]
    for first in range(0, len(cells[0]), 500):
        parts[first >= 1000].update(*(cells_N[first : first + 500] for cells_N in cells))
    parts[0].merge_state(parts[1])
    assert parts[0].compute() == metrics.spearman(measured_CS, predicted_CS)
    parts[0].reset()
    parts[0].update(cells[0], torch.full_like(cells[1], 0.5))
    assert parts[0].compute().isnan()
