"""The card of a checkpoint: what testing has told of it, and the text that a person reads before using it.

Legend: C CpGs, S samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.expression import dilute
from methyl_lightning.data.splits import HEADLINE, TEST_VIEWS, Split
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.names import HEADINGS, MAIN, with_interval
from methyl_lightning.model.conformal import Calibration, calibrate, coverage
from methyl_lightning.model.depth import ExpressionEstimator, estimate_diluted
from methyl_lightning.model.grid import encode_cpgs, keep, predict_blocks, predict_grid
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.model.record import is_log2

CALIBRATION_VIEW = "val_cpg-val_sample"
DEPTHS = tuple(round(10 ** (half / 2)) for half in range(3, 14))  # molecules, 32 to 3,162,278
LIMITS = (
    "Trained and tested on bulk samples of the cohort above. Nothing here has been compared with measured methylation "
    "of single cells or of spots; the intervals hold for bulk samples like the cohort's.",
    "The Spearman, pooled over all cells, tells mostly low CpGs from high ones; MAS-PCC, the median over CpGs of the "
    "correlation across samples, says how well samples are told apart at a CpG.",
    "CpGs like those of the cohort's table are meant; others, and other tissues, are extrapolation.",
    "Not for diagnosis.",
)


def calibrate_module(module: MethylationModule, store: Store, split: Split) -> Calibration:
    """Calibrate the intervals on CpGs and patients of the validation part (with several processes all must call).

    The same view has chosen the checkpoint among its training steps; whether that matters shows in the coverage of the
    test views, which have chosen nothing.
    """
    view = split.view(CALIBRATION_VIEW)
    return calibrate(store.beta(*view).ravel(), predict_grid(module, store, *view).ravel())


def calibrate_depths(module: MethylationModule, store: Store, split: Split) -> list[dict[str, Any]]:
    """Calibrate the intervals of thin samples: on validation samples thinned to each depth, checked on test samples.

    Returns
    -------
    list of dict
        For each of a ladder of depths its number of molecules (``depth``), the fields of the calibration, and the
        ``coverage`` of the thinned samples of the headline view; none where the store's units are not log2(x + 1).
    """
    record, units = module.training_record(), store.attributes["units"]
    if record is None or not is_log2(units):
        return []
    estimator = ExpressionEstimator(record, units)
    measured = [store.beta(*split.view(view)) for view in (CALIBRATION_VIEW, HEADLINE)]
    thinned = [_thinned(module, store, estimator, *split.view(view)) for view in (CALIBRATION_VIEW, HEADLINE)]
    entries = []
    for depth, *predicted in zip(DEPTHS, *thinned, strict=True):
        calibration = calibrate(measured[0].ravel(), predicted[0].ravel())
        covered = coverage(calibration, measured[1].ravel(), predicted[1].ravel())
        entries.append({"depth": depth, **calibration._asdict(), "coverage": round(covered, 4)})
    return entries


def _thinned(
    module: MethylationModule, store: Store, estimator: ExpressionEstimator, cpg_C: np.ndarray, sample_S: np.ndarray
) -> Iterator[np.ndarray]:
    """Predict [C, S] from expression thinned to depth after depth."""
    expression_SG = np.array(store.expression_SG[sample_S])
    with keep(encode_cpgs(module, store, chunks(cpg_C, BLOCK[0]))) as cpgs:
        for depth in DEPTHS:
            diluted_SG = dilute(expression_SG, "multinomial", depth, np.random.default_rng(depth))
            estimated_SG = torch.from_numpy(estimate_diluted(estimator, diluted_SG, "multinomial", depth))
            scaled = module.scaler(estimated_SG.to(module.device)).split(BLOCK[1])
            yield np.concatenate([beta_CS for _, beta_CS in predict_blocks(module, cpgs, scaled)])


def make_card(
    calibration: Calibration,
    depths: list[dict[str, Any]],
    metrics: dict[str, Any],
    views: dict[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """Put together what testing has told, as plain JSON values.

    Parameters
    ----------
    calibration
        Of :func:`calibrate_module`.
    depths
        Of :func:`calibrate_depths`.
    metrics
        Content of ``metrics.json``.
    views
        Measured and predicted beta of each test view, arrays of one shape.
    """
    covered = {name: coverage(calibration, measured, predicted) for name, (measured, predicted) in views.items()}
    return {
        "metrics": metrics,
        "calibration": {**calibration._asdict(), "view": CALIBRATION_VIEW},
        "depths": depths,
        "coverage": {name: round(share, 4) for name, share in covered.items() if np.isfinite(share)},
    }


def calibration_of(module: MethylationModule) -> Calibration | None:
    """Return the calibration that the checkpoint carries, or None where it was never tested."""
    fields = module.card.get("calibration")
    return None if fields is None else Calibration(*(fields[name] for name in Calibration._fields))


def calibrations_by_depth(module: MethylationModule) -> dict[float, Calibration]:
    """Return the calibrations of thin samples that the checkpoint carries, by their molecules in ascending order."""
    entries = module.card.get("depths", [])
    return {entry["depth"]: Calibration(*(entry[name] for name in Calibration._fields)) for entry in entries}


def coverage_line(card: dict[str, Any]) -> str:
    """Say in one line what share of the measured test cells lies inside the intervals."""
    level, cells = card["calibration"]["level"], card["calibration"]["cells"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in card["coverage"].items())
    return f"{level:.0%} intervals, calibrated on {cells:,} cells of {CALIBRATION_VIEW}, cover: {shares}"


def depth_line(card: dict[str, Any]) -> str:
    """Say in one line what the intervals of thin samples cover on test patients thinned to each depth."""
    shares = ", ".join(f"{entry['depth']:,} {entry['coverage']:.1%}" for entry in card["depths"])
    return (
        f"intervals of thin samples, calibrated by depth, cover of test patients thinned to so many molecules: {shares}"
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
    return "\n".join([*lines, "limits of use", *(f"  {limit}" for limit in LIMITS)])


def _view_lines(view: str, scores: dict[str, Any]) -> list[str]:
    lines = [f"metrics on {view} ({scores['n_cpgs']:,} CpGs × {scores['n_samples']:,} samples), 95 % interval"]
    return lines + [f"  {HEADINGS[key]}: {with_interval(scores[key], *scores[f'{key}_ci95'])}" for key in MAIN]
