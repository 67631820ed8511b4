"""The card of a checkpoint: what testing has told of it, and the text that a person reads before using it.

Legend: C CpGs, S samples.
"""

from typing import Any

import numpy as np

from methyl_lightning.data.splits import TEST_VIEWS, Split
from methyl_lightning.data.store import Store
from methyl_lightning.metrics.names import HEADINGS, MAIN, with_interval
from methyl_lightning.model.conformal import Calibration, calibrate, coverage
from methyl_lightning.model.grid import predict_grid
from methyl_lightning.model.module import MethylationModule

CALIBRATION_VIEW = "val_cpg-val_sample"
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


def make_card(
    calibration: Calibration, metrics: dict[str, Any], views: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
    """Put together what testing has told, as plain JSON values.

    Parameters
    ----------
    calibration
        Of :func:`calibrate_module`.
    metrics
        Content of ``metrics.json``.
    views
        Measured and predicted beta of each test view, arrays of one shape.
    """
    covered = {name: coverage(calibration, measured, predicted) for name, (measured, predicted) in views.items()}
    return {
        "metrics": metrics,
        "calibration": {**calibration._asdict(), "view": CALIBRATION_VIEW},
        "coverage": {name: round(share, 4) for name, share in covered.items() if np.isfinite(share)},
    }


def calibration_of(module: MethylationModule) -> Calibration | None:
    """Return the calibration that the checkpoint carries, or None where it was never tested."""
    fields = module.card.get("calibration")
    return None if fields is None else Calibration(*(fields[name] for name in Calibration._fields))


def coverage_line(card: dict[str, Any]) -> str:
    """Say in one line what share of the measured test cells lies inside the intervals."""
    level, cells = card["calibration"]["level"], card["calibration"]["cells"]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in card["coverage"].items())
    return f"{level:.0%} intervals, calibrated on {cells:,} cells of {CALIBRATION_VIEW}, cover: {shares}"


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
    return "\n".join([*lines, "limits of use", *(f"  {limit}" for limit in LIMITS)])


def _view_lines(view: str, scores: dict[str, Any]) -> list[str]:
    lines = [f"metrics on {view} ({scores['n_cpgs']:,} CpGs × {scores['n_samples']:,} samples), 95 % interval"]
    return lines + [f"  {HEADINGS[key]}: {with_interval(scores[key], *scores[f'{key}_ci95'])}" for key in MAIN]
