"""MAS-PCC of every model of some runs, as it is and without what all CpGs of a sample share.

usage: python experiments/baselines/without_shift.py RUN_FOLDER [RUN_FOLDER ...]

A sum of one value a CpG and one a sample is removed from measured and from predicted beta; what is left is what a model
knows of a CpG's differences between samples beyond one shift a sample. Legend: C CpGs, S samples.
"""

import sys
from pathlib import Path

import anndata
import numpy as np
from omegaconf import OmegaConf

from methyl_lightning.metrics.bootstrap import evaluate_grid

VIEWS = ("test_cpg-test_sample", "train_cpg-test_sample")


def without_shift(beta_CS: np.ndarray, known_CS: np.ndarray) -> np.ndarray:
    """Remove the best sum of one value a CpG and one a sample, over the measured cells, by turns."""
    left_CS = np.where(known_CS, beta_CS.astype(np.float64), np.nan)
    for _ in range(10):
        left_CS -= np.nanmean(left_CS, axis=1, keepdims=True)
        left_CS -= np.nanmean(left_CS, axis=0)
    return np.where(known_CS, left_CS, 0)


def main(folders: list[Path]) -> None:
    """Print one row a model and view: MAS-PCC with its 95 % interval over patients, and the same without the shift."""
    print("| cohort | view | model | MAS-PCC | without the sample's shift |\n| --- | --- | --- | --- | --- |")
    for folder in folders:
        cfg = OmegaConf.load(folder / "config.yaml")
        models = {cfg.model.network: folder} | {path.name: path for path in sorted(folder.glob("references/*"))}
        for view in VIEWS:
            for name, path in models.items():
                if not (path / f"predictions_{view}.h5ad").is_file():
                    continue  # the ceiling of a simulated cohort
                data = anndata.read_h5ad(path / f"predictions_{view}.h5ad")
                predicted_CS, measured_CS = np.asarray(data.X).T, np.asarray(data.layers["measured"]).T
                known_CS, patient_S = np.isfinite(measured_CS), data.obs["patient"].to_numpy(str)
                cells = []
                left_CS = np.where(known_CS, without_shift(measured_CS, known_CS), np.nan)
                for measured, predicted in (
                    (measured_CS, predicted_CS),
                    (left_CS, without_shift(predicted_CS, known_CS)),
                ):
                    value, low, high = evaluate_grid(measured, predicted, patient_S)["mas_pcc"]
                    flat = np.std(predicted - predicted.mean(1, keepdims=True)) < 1e-5  # what is left is rounding
                    cells.append("–" if flat else f"{value:.3f} ({low:.3f}–{high:.3f})")
                print("|", " | ".join([cfg.data.name, view, name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
