"""Numbers and calibration as a report writes them."""

import anndata
import numpy as np
import pytest

from methyl_lightning.report.tables import (
    calibration,
    calibration_error,
    number,
    p_value,
)


def test_numbers_are_written_as_people_read_them() -> None:
    assert [number(value) for value in (-0.12345, 0.0, None, float("nan"))] == ["−0.123", "0.000", "–", "–"]
    assert [p_value(p) for p in (0.0001, 0.0123, 1.0, float("nan"))] == ["p < 0.001", "p 0.012", "p 1.000", "–"]


def test_calibration_is_a_plain_loop_s() -> None:
    predicted_SC = np.array([[-0.2, 0.0, 0.05], [0.1, 0.95, 1.0], [1.3, 0.15, 0.5]])
    measured_SC = np.array([[0.1, 0.2, np.nan], [0.3, 0.9, 0.8], [1.0, 0.0, 0.4]])
    bins = calibration(anndata.AnnData(X=predicted_SC, layers={"measured": measured_SC}))
    expected: dict[tuple[float, float], list[float]] = {}
    for predicted, measured in zip(predicted_SC.flat, measured_SC.flat, strict=True):
        if np.isnan(measured):
            continue
        tenth = min(int(predicted * 10), 9)
        edges = (tenth / 10, (tenth + 1) / 10)
        edges = (-np.inf, 0.0) if predicted < 0 else (1.0, np.inf) if predicted > 1 else edges
        expected.setdefault(edges, []).append(measured)
    found = {(row.low, row.high): (row.n, row.measured) for row in bins.itertuples()}
    assert found == {edges: (len(values), pytest.approx(np.mean(values))) for edges, values in expected.items()}
    assert bins["n"].sum() == 8 and bins["low"].is_monotonic_increasing
    distance = (bins["predicted"] - bins["measured"]).abs()
    assert calibration_error(bins) == pytest.approx((distance * bins["n"]).sum() / 8)
