"""Predict single cells of another tissue: what comes out far from the training's samples.

Legend: N cells, C CpGs.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.spatial import checks
from experiments.spatial.inputs import Run
from methyl_lightning.predict import predict

CELL_TYPE, MOLECULES = "bulk_labels", "n_counts"


def cell_rows(run: Run, path: Path) -> dict[str, float]:
    """Predict cells from ``.raw`` of a file with columns ``bulk_labels`` and ``n_counts``; return what was found."""
    settings = {"raw": True, "match": "quantile", "min_coverage": 0, "intervals": False}
    cells = predict(run.checkpoint, path, run.cpgs.index.tolist(), **settings)
    beta_NC = np.asarray(cells.X, dtype=np.float64)
    varies_C = beta_NC.std(axis=0) > 1e-5
    beta_NC = beta_NC[:, varies_C]
    centred_NC = beta_NC - beta_NC.mean(axis=0)
    of_type_NC = pd.DataFrame(centred_NC).groupby(cells.obs[CELL_TYPE].to_numpy(str)).transform("mean").to_numpy()
    bulk_C = np.nanmean(run.beta_CS, axis=1)[varies_C]
    return {
        "cells": len(beta_NC),
        "gene_coverage": cells.uns["methyl_lightning"]["gene_coverage"],
        "sd_between_cells": float(np.median(beta_NC.std(axis=0))),
        "r2_molecules": checks.explained(beta_NC.mean(axis=1), np.log10(cells.obs[MOLECULES].to_numpy(np.float64))),
        "share_between_types": float((of_type_NC**2).sum() / (centred_NC**2).sum()),
        "one_number": checks.one_number_share(beta_NC),
        "mean_cohort_r": float(np.corrcoef(beta_NC.mean(axis=0), bulk_C)[0, 1]),
    }
