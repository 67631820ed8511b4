"""Figures show every cell, wherever a prediction lies."""

import numpy as np
import pytest

from methyl_lightning.evaluate.figures import predicted_against_measured


@pytest.mark.parametrize("value", [-7.0, 0.5, 7.0])
def test_predictions_out_of_range_are_drawn_at_its_end(value: float) -> None:
    measured_CS = np.array([[0.0, 0.5], [np.nan, 1.0]], dtype=np.float32)
    figure = predicted_against_measured(measured_CS, np.full((2, 2), value, dtype=np.float32), "all alike")
    figure.canvas.draw()
    (image,) = figure.axes[0].collections
    assert image.get_array().sum() == 3
