"""Curves of several runs are drawn together and set in one table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.dilution.curves import draw, read_curve, table
from methyl_lightning.dilution.run import SCORES
from methyl_lightning.files import InputError


def write(folder: Path, shift: float) -> None:
    rows = [
        {"test": "diluted", "match": match, "retention": level, "repeat": repeat, "genes": 5.0}
        | dict.fromkeys(SCORES, shift + 10 / level + 0.01 * repeat)
        for match in ("scaler", "depth")
        for level in (100.0, 1000.0)
        for repeat in (0, 1)
    ]
    for test in ("undiluted", "mean expression"):
        rows.append({"test": test, "match": "none", "retention": np.nan, "repeat": 0} | dict.fromkeys(SCORES, shift))
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "dilution.csv", index=False)


def test_curves_of_runs_stand_side_by_side(tmp_path: Path) -> None:
    for name, shift in (("a", 0.1), ("b", 0.2)):
        write(tmp_path / name, shift)
    curves = [read_curve(f"{label}={tmp_path / label}:{way}") for label, way in (("a", "depth"), ("b", "scaler"))]
    lines = table(curves).splitlines()
    assert lines[0] == "| draws | a | b |"
    assert lines[2] == "| 100 | 0.205 / 0.205 | 0.305 / 0.305 |"
    assert lines[-1] == "| no expression | 0.100 / 0.100 | 0.200 / 0.200 |"
    figure = draw(curves, 0.15)
    errors, _ = figure.axes[0].get_legend_handles_labels()
    assert len(errors) == 5 and figure.axes[1].get_ylabel() == "MAS-PCC"


@pytest.mark.parametrize(("text", "said"), [("a", "not LABEL=FOLDER"), ("x=nowhere:depth", "no such file")])
def test_what_cannot_be_read_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_curve(text)
