"""The card of a checkpoint: what testing has told of it, and the text that a person reads before using it.

Legend: C CpGs, S samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.expression import dilute
from methyl_lightning.data.splits import HEADLINE, TEST_VIEWS, Split
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.names import HEADINGS, MAIN, with_interval
from methyl_lightning.model.conformal import Calibration, calibrate_grid, coverage
from methyl_lightning.model.depth import ExpressionEstimator, estimate_diluted
from methyl_lightning.model.grid import encode_cpgs, keep, predict_expression, predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.model.record import is_log2

CALIBRATION_VIEW, SEEN_VIEW = "val_cpg-val_sample", "train_cpg-val_sample"
# of CpGs that were not trained on, and that were: where their intervals are calibrated, and where that is checked
CALIBRATED = {"unseen": (CALIBRATION_VIEW, HEADLINE), "seen": (SEEN_VIEW, "train_cpg-test_sample")}
SEEN_CPGS = 1_000  # trained on, of those some are enough
DEPTHS = tuple(round(10 ** (half / 2)) for half in range(3, 14))  # molecules, 32 to 3,162,278
OF_BULK = (
    "Trained and tested on bulk samples of the cohort above. Nothing here has been compared with measured methylation "
    "of single cells or of spots; the intervals hold for bulk samples like the cohort's."
)
OF_CELLS = (
    "Trained and tested on single cells of the cohort above: metrics and intervals hold for calls of cells like these, "
    "and an interval is of a call, which is 0 or 1 where one read tells."
)
LIMITS = (
    "The Spearman, pooled over all cells, tells mostly low CpGs from high ones; MAS-PCC, the median over CpGs of the "
    "correlation across samples, says how well samples are told apart at a CpG.",
    "CpGs like those of the cohort's table are meant; others, and other tissues, are extrapolation.",
    "Not for diagnosis.",
)


def _rows(split: Split, view: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a view, of CpGs that were trained on some."""
    cpg_C, sample_S = split.view(view)
    if view.startswith("train_cpg"):
        cpg_C = np.sort(np.random.default_rng(0).permutation(cpg_C)[:SEEN_CPGS])
    return cpg_C, sample_S


def calibrate_module(module: MethylationModule, store: Store, split: Split) -> dict[str, Calibration]:
    """Calibrate the intervals on patients of the validation part (with several processes all must call).

    The same view has chosen the checkpoint among its training steps; whether that matters shows in the coverage of the
    test views, which have chosen nothing.

    Returns
    -------
    dict
        For ``unseen`` CpGs, those of the validation part, and for ``seen`` ones, some that were trained on.
    """
    rows = {name: _rows(split, views[0]) for name, views in CALIBRATED.items()}
    return {name: calibrate_grid(store.beta(*of), predict_grid(module, store, *of)) for name, of in rows.items()}


def calibrate_depths(module: MethylationModule, store: Store, split: Split) -> list[dict[str, Any]]:
    """Calibrate the intervals of thin samples: on validation samples thinned to each depth, checked on test samples.

    Returns
    -------
    list of dict
        For each of a ladder of depths its number of molecules (``depth``), and of unseen CpGs the fields of the
        calibration and the ``coverage`` of the thinned samples of the headline view; the same of ``seen`` CpGs. None
        where the store's units are not log2(x + 1).
    """
    record, units = module.training_record(), store.attributes["units"]
    if record is None or not is_log2(units):
        return []
    estimator = ExpressionEstimator(record, units)
    entries: list[dict[str, Any]] = [{"depth": depth} for depth in DEPTHS]
    for name, views in CALIBRATED.items():
        rows = [_rows(split, view) for view in views]
        measured = [store.beta(*of) for of in rows]
        # one view after the other, as each keeps its encoded CpGs as long as it lasts
        thinned = zip(*(list(_thinned(module, store, estimator, *of)) for of in rows), strict=True)
        for entry, predicted in zip(entries, thinned, strict=True):
            calibration = calibrate_grid(measured[0], predicted[0])
            covered = round(coverage(calibration, measured[1].ravel(), predicted[1].ravel()), 4)
            found = {**calibration._asdict(), "coverage": covered}
            entry |= found if name == "unseen" else {name: found}
    return entries


def _thinned(
    module: MethylationModule, store: Store, estimator: ExpressionEstimator, cpg_C: np.ndarray, sample_S: np.ndarray
) -> Iterator[np.ndarray]:
    """Predict [C, S] from expression thinned to depth after depth."""
    expression_SG = np.array(store.expression_SG[sample_S])
    with keep(encode_cpgs(module, store, chunks(cpg_C, BLOCK[0]))) as cpgs:
        for depth in DEPTHS:
            diluted_SG = dilute(expression_SG, "multinomial", depth, np.random.default_rng(depth))
            yield predict_expression(module, cpgs, estimate_diluted(estimator, diluted_SG, "multinomial", depth))


def make_card(
    calibrations: dict[str, Calibration],
    depths: list[dict[str, Any]],
    metrics: dict[str, Any],
    views: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Put together what testing has told, as plain JSON values.

    Parameters
    ----------
    calibrations
        Of :func:`calibrate_module`.
    depths
        Of :func:`calibrate_depths`.
    metrics
        Content of ``metrics.json``.
    views
        Measured and predicted beta of each test view, arrays of one shape.
    """
    covered = {
        name: coverage(calibrations["seen" if name.startswith("train_cpg") else "unseen"], *grids)
        for name, grids in views.items()
    }
    fields = {name: {**one._asdict(), "view": CALIBRATED[name][0]} for name, one in calibrations.items()}
    return {
        "metrics": metrics,
        "calibration": {**fields["unseen"], "seen": fields["seen"]},
        "depths": depths,
        "coverage": {name: round(share, 4) for name, share in covered.items() if np.isfinite(share)},
    }


def _of_fields(entry: dict[str, Any], seen: bool) -> Calibration:
    fields = entry.get("seen", entry) if seen else entry  # in a card of an older version both have the same
    return Calibration(*(fields[name] for name in Calibration._fields))


def calibration_of(module: MethylationModule, seen: bool = False) -> Calibration | None:
    """Return the calibration for CpGs that were trained on or not, or None where the checkpoint was never tested."""
    fields = module.card.get("calibration")
    return None if fields is None else _of_fields(fields, seen)


def calibrations_by_depth(module: MethylationModule, seen: bool = False) -> dict[float, Calibration]:
    """Return the calibrations of thin samples that the checkpoint carries, by their molecules in ascending order."""
    return {entry["depth"]: _of_fields(entry, seen) for entry in module.card.get("depths", [])}


def coverage_line(card: dict[str, Any]) -> str:
    """Say in one line what share of the measured test cells lies inside the intervals."""
    level, cells = card["calibration"]["level"], card["calibration"]["cells"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in card["coverage"].items())
    return f"{level:.0%} intervals, calibrated on {cells:,} cells of {CALIBRATION_VIEW}, cover: {shares}"


def depth_line(card: dict[str, Any]) -> str:
    """Say in one line what the intervals of thin samples cover on test patients thinned to each depth."""
    shares = {
        cpgs: ", ".join(f"{entry['depth']:,} {entry['coverage']:.1%}" for entry in entries)
        for cpgs, entries in (
            ("unseen", card["depths"]),
            ("seen", [{"depth": entry["depth"], **entry["seen"]} for entry in card["depths"] if "seen" in entry]),
        )
        if entries
    }
    of_cpgs = "; ".join(f"{cpgs} CpGs: {text}" for cpgs, text in shares.items())
    return (
        "intervals of thin samples, calibrated by depth, cover of test patients thinned to so many molecules: "
        f"{of_cpgs}"
    )


def describe(module: MethylationModule) -> str:
    """Write the card: network, data, metrics with intervals, coverage, limits of use."""
    data, record = module.provenance, module.training_record()
    settings = {name: value for name, value in module.hparams.items() if name != "network"}
    lines = [
        f"network     {module.hparams['network']} ({', '.join(f'{name}={value}' for name, value in settings.items())})",
        f"cohort      {', '.join(data['cohort'])}, source {data['source']['source']}, assembly {data['assembly']}",
        f"expression  {data['units']}, {module.hparams['n_genes']:,} genes",
        f"sequence    window of {data['window']} bases",
    ]
    if record is not None:
        measured = int(np.isfinite(record.cpgs["training_mean"]).sum())
        lines.append(f"CpGs        {len(record.cpgs):,} in the checkpoint, {measured:,} of them trained on")
    for axis, parts in data["sizes"].items():
        lines.append(f"{axis + 's':<12}" + ", ".join(f"{n:,} {part}" for part, n in parts.items()))
    lines += [
        f"input       {item['file']}, {item['bytes']:,} bytes, sha256 {item['sha256'][:12]}…"
        for item in data["source"].get("inputs", ())
    ]
    if not module.card:
        lines.append("metrics     none: this checkpoint has not been tested")
    else:
        for view in reversed(TEST_VIEWS):
            lines += _view_lines(view, module.card["metrics"][view])
        lines.append(coverage_line(module.card))
        if module.card.get("depths"):  # not of the former format
            lines.append(depth_line(module.card))
    limits = (OF_CELLS if data["source"]["source"] == "single_cell" else OF_BULK, *LIMITS)
    return "\n".join([*lines, "limits of use", *(f"  {limit}" for limit in limits)])


def _view_lines(view: str, scores: dict[str, Any]) -> list[str]:
    lines = [f"metrics on {view} ({scores['n_cpgs']:,} CpGs × {scores['n_samples']:,} samples), 95 % interval"]
    return lines + [f"  {HEADINGS[key]}: {with_interval(scores[key], *scores[f'{key}_ci95'])}" for key in MAIN]
