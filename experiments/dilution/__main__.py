"""Ways to the training's scale, side by side: ``python -m experiments.dilution RUN/best.ckpt …``.

Test patients on CpGs that were trained on, thinned to so many molecules; a table as Markdown on standard output.

Legend: C CpGs, S samples, G genes.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.expression import dilute
from methyl_lightning.evaluate.evaluation import load_run
from methyl_lightning.metrics.scores import mae, mas_pcc
from methyl_lightning.model.card import calibrations_by_depth
from methyl_lightning.model.conformal import coverage
from methyl_lightning.model.depth import ExpressionEstimator
from methyl_lightning.model.grid import encode_cpgs, keep, predict_blocks
from methyl_lightning.predict.scale import TrainingScale, to_training_scale

VIEWS = {"seen CpGs": "train_cpg-test_sample", "unseen CpGs": "test_cpg-test_sample"}
DEPTHS, REPEATS = (100, 300, 1_000, 3_000, 10_000, 100_000), 5
WAYS = ("library", "quantile", "depth")


def main(checkpoints: list[str]) -> None:
    """Print a row for each checkpoint, view and depth."""
    header = ["run", "view", "molecules", *(f"{way}: MAS-PCC / MAE" for way in WAYS), "intervals by depth cover"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for checkpoint in checkpoints:
        for name, view in VIEWS.items():
            for row in compare(Path(checkpoint), view):
                print(f"| {Path(checkpoint).parent.name} | {name} | {' | '.join(row)} |", flush=True)


def compare(checkpoint: Path, view: str) -> list[list[str]]:
    """Score the view at each depth in each way, means over the draws; then without thinning and without expression."""
    module, store, split, _ = load_run(checkpoint)
    record, units = module.training_record(), store.attributes["units"]
    assert record is not None
    cpg_C, sample_S = split.view(view)
    measured_CS, full_SG = store.beta(cpg_C, sample_S), np.array(store.expression_SG[sample_S])
    estimator = ExpressionEstimator(record, units)
    scale = TrainingScale.of_genes(units, record.linear_mean_G, record.quantile_QG)
    calibrations = calibrations_by_depth(module)
    rows = []
    with keep(encode_cpgs(module, store, chunks(cpg_C, BLOCK[0]))) as cpgs:

        def predict(expression_SG: np.ndarray) -> np.ndarray:
            scaled = module.scaler(torch.from_numpy(expression_SG)).split(BLOCK[1])
            return np.concatenate([beta_CS for _, beta_CS in predict_blocks(module, cpgs, scaled)])

        def score(predicted: list[np.ndarray]) -> str:
            scores = [(mas_pcc(measured_CS, beta_CS), mae(measured_CS, beta_CS)) for beta_CS in predicted]
            correlation, error = np.mean(scores, axis=0)
            return f"{'–' if math.isnan(correlation) else f'{correlation:.3f}'} / {error:.3f}"

        for depth in DEPTHS:
            found: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
            for repeat in range(REPEATS):
                diluted_SG = dilute(full_SG, "multinomial", depth, np.random.default_rng([depth, repeat]))
                linear_SG = np.exp2(diluted_SG.astype(np.float64)) - 1
                count_SG = np.rint(linear_SG * (depth / linear_SG.sum(axis=1, keepdims=True)))
                found["depth"].append(predict(estimator.estimate(count_SG)))
                for way in ("library", "quantile"):
                    found[way].append(predict(to_training_scale(sparse.csr_matrix(count_SG), scale, way)))
            nearest = min(calibrations, key=lambda known: abs(math.log(known / depth)))
            covered = [coverage(calibrations[nearest], measured_CS, beta_CS) for beta_CS in found["depth"]]
            rows.append([f"{depth:,}", *(score(found[way]) for way in WAYS), f"{np.mean(covered):.1%}"])
        undiluted, none = score([predict(full_SG)]), score([predict(np.tile(record.mean_G, (len(full_SG), 1)))])
    return [*rows, ["undiluted", *[undiluted] * len(WAYS), ""], ["no expression", *[none] * len(WAYS), ""]]


if __name__ == "__main__":
    main(sys.argv[1:])
