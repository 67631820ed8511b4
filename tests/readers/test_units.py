"""Units are told by values; a note about one matrix says nothing of another."""

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.units import check_values, lowest_value, recognise, to_linear

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(0.5, 12, size=(20, 200))).astype(np.float32)
SHARE = COUNTS / COUNTS.sum(axis=1, keepdims=True)
NORMALISED = SHARE * 400  # up to 32 in most samples: could be logarithms by their size
LOGARITHM = np.log1p(SHARE * 1e4)


def annotated(values: np.ndarray, **parts: Any) -> anndata.AnnData:
    return anndata.AnnData(values.astype(np.float32), uns={"log1p": {"base": None}}, **parts)


def units_of(data: anndata.AnnData, layer: str | None = None, raw: bool = False) -> str:
    with open_expression(data, layer, raw, ()) as expression:
        units = recognise(expression).units
        check_values(expression, units)
        return units


def test_the_note_about_x_is_about_x_alone() -> None:
    data = annotated(LOGARITHM, layers={"counts": COUNTS, "scaled": LOGARITHM - 1, "log2": np.log2(COUNTS + 1)})
    data.raw = anndata.AnnData(COUNTS)
    assert units_of(data) == "log1p"
    assert units_of(data, layer="counts") == units_of(data, raw=True) == "counts"
    assert units_of(data, layer="log2") == "log2"
    with pytest.raises(InputError, match=r"gene '\d+' is .*, it is below 0"):
        units_of(data, layer="scaled")


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_the_note_is_checked_against_the_values(form: Any) -> None:
    def noted(values: np.ndarray) -> str:
        return units_of(anndata.AnnData(form(values.astype(np.float32)), uns={"log1p": {}}))

    assert noted(LOGARITHM) == "log1p"
    assert noted(COUNTS) == "counts"  # X was set back
    assert noted(SHARE * 1e6) == "cpm"
    small = NORMALISED[NORMALISED.max(axis=1) < 30]
    assert len(small) > 5 and noted(small) == "cpm"  # normalised, the logarithm never taken


def test_a_note_in_a_file_is_about_its_x(tmp_path: Any) -> None:
    data = annotated(LOGARITHM, layers={"counts": sparse.csr_matrix(COUNTS)})
    data.raw = anndata.AnnData(sparse.csr_matrix(COUNTS))
    data.write_h5ad(tmp_path / "x.h5ad")
    for layer, raw, units in ((None, False, "log1p"), ("counts", False, "counts"), (None, True, "counts")):
        with open_expression(tmp_path / "x.h5ad", layer, raw, ()) as expression:
            assert recognise(expression).units == units


def test_what_is_told_is_checked_too() -> None:
    with open_expression(annotated(COUNTS), None, False, ()) as expression:
        check_values(expression, "counts")
        for units in ("log1p", "log2"):
            with pytest.raises(InputError, match=f"it is no {units}, of which none is above"):
                check_values(expression, units)


@pytest.mark.parametrize(("offset", "base"), [(0.001, 2), (0.01, 2), (1e-9, 2), (0.001, np.e)])
def test_logarithms_of_x_plus_something(offset: float, base: float) -> None:
    tpm = SHARE * 1e6
    values = np.round(np.log(tpm + offset) / np.log(base), 4)
    with open_expression(anndata.AnnData(values), None, False, ()) as expression:
        units = recognise(expression).units
        assert units == f"{'log2' if base == 2 else 'ln'}(x+{offset:g})"
        check_values(expression, units)
        np.testing.assert_allclose(to_linear(values, units), tpm, rtol=2e-4, atol=1e-3 * offset + 1e-3)
        assert lowest_value(units) == pytest.approx(values.min(), abs=1e-4)


@pytest.mark.parametrize("centred", [LOGARITHM - LOGARITHM.mean(axis=0), (COUNTS - 3) / 7])
def test_centred_values_are_refused(centred: np.ndarray) -> None:
    data = anndata.AnnData(centred, var=pd.DataFrame(index=[f"g{i}" for i in range(200)]))
    with open_expression(data, None, False, ()) as expression, pytest.raises(InputError, match=r"'g\d+' is .* below 0"):
        recognise(expression)


def test_what_rounding_left_below_nothing_is_nothing() -> None:
    values = LOGARITHM.astype(np.float64)
    values[values == 0] = -1e-9
    with open_expression(anndata.AnnData(values), None, False, ()) as expression:
        units = recognise(expression).units
        assert units == "log1p"
        check_values(expression, units)
        assert to_linear(values, units).min() >= 0


@pytest.mark.parametrize("note", [{"base": 10}, {"base": "10"}, {"base": np.float64(10)}])
def test_decimal_logarithms_are_undone(note: dict[str, Any]) -> None:
    values = np.log10(SHARE * 1e6 + 1)
    with open_expression(anndata.AnnData(values, uns={"log1p": note}), None, False, ()) as expression:
        units = recognise(expression).units
        assert units == "log10(x+1)"
        check_values(expression, units)
        np.testing.assert_allclose(to_linear(values, units), SHARE * 1e6, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("note", ["yes", {"base": "e"}, {"base": [2]}, None, {}])
def test_notes_of_other_programs_are_no_error(note: Any) -> None:
    with open_expression(anndata.AnnData(LOGARITHM, uns={"log1p": note}), None, False, ()) as expression:
        assert recognise(expression).units == "log1p"


def test_values_decide_against_a_wrong_note() -> None:
    assert units_of(annotated(np.log2(COUNTS + 1))) == "log2"
    assert units_of(annotated(np.log10(COUNTS + 1))) == "log10(x+1)"


@pytest.mark.parametrize(
    "values",
    [
        COUNTS * np.float32(0.999999),
        COUNTS + RNG.normal(size=COUNTS.shape) * 1e-6,  # a program that computed with float32
        np.where(RNG.random(COUNTS.shape) < 0.3, COUNTS * 0.9, COUNTS),  # RSEM, alevin: reads shared by genes
    ],
)
def test_counts_need_not_be_whole_to_the_last_digit(values: np.ndarray) -> None:
    assert COUNTS.max() > 32
    assert units_of(annotated(np.abs(values))) == "counts"
    assert units_of(annotated(np.abs(values) * 0.37)) == "cpm"
