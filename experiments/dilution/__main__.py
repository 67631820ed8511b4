"""Ways to the training's scale, side by side: ``python -m experiments.dilution RUN/best.ckpt …``.

Test patients, thinned to so many molecules, or genes by ``mask``; a table as Markdown on standard output.

Legend: C CpGs, S samples, G genes.
"""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import t as student_t

from methyl_lightning.data.datamodule import BLOCK, chunks
from methyl_lightning.data.expression import dilute
from methyl_lightning.evaluate.evaluation import load_run
from methyl_lightning.metrics.scores import mae, mas_pcc
from methyl_lightning.model.card import calibrations_by_depth
from methyl_lightning.model.conformal import coverage
from methyl_lightning.model.depth import MASK, MOLECULES, ExpressionEstimator, estimate_diluted
from methyl_lightning.model.grid import encode_cpgs, keep, predict_expression
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.predict.scale import TrainingScale, to_training_scale

VIEWS = {"seen CpGs": "train_cpg-test_sample", "unseen CpGs": "test_cpg-test_sample"}
DRAWS = {"multinomial": (100, 300, 1_000, 3_000, 10_000, 100_000), "mask": (100, 300)}  # molecules, or genes
REPEATS = 5
WAYS = ("library", "quantile", "depth")


def main(checkpoints: list[str]) -> None:
    """Print a row for each checkpoint, view and depth."""
    header = ["run", "view", "draws", *(f"{way}: MAS-PCC / MAE" for way in WAYS)]
    header += ["depth: MAE above no expression", "intervals by depth cover"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for checkpoint in checkpoints:
        for name, view in VIEWS.items():
            for row in compare(Path(checkpoint), view):
                print(f"| {Path(checkpoint).parent.name} | {name} | {' | '.join(row)} |", flush=True)


class _Predictor(NamedTuple):
    """Predicts a view, whose CpGs are encoded once, and scores it."""

    module: MethylationModule
    cpgs: list[Any]
    measured_CS: np.ndarray

    def __call__(self, expression_SG: np.ndarray) -> np.ndarray:
        return predict_expression(self.module, self.cpgs, expression_SG)

    def scores(self, predicted: list[np.ndarray]) -> str:
        """Write MAS-PCC and MAE, means over the draws."""
        pairs = [(mas_pcc(self.measured_CS, beta_CS), mae(self.measured_CS, beta_CS)) for beta_CS in predicted]
        correlation, error = np.mean(pairs, axis=0)
        return f"{'–' if math.isnan(correlation) else f'{correlation:.3f}'} / {error:.3f}"

    def above(self, predicted: list[np.ndarray], without_CS: np.ndarray) -> str:
        """Write by how much the error exceeds that without expression, with its 95 % interval over patients."""
        errors = [np.nanmean(np.abs(self.measured_CS - beta_CS), axis=0) for beta_CS in (*predicted, without_CS)]
        more_S = np.mean(errors[:-1], axis=0) - errors[-1]
        margin = student_t.ppf(0.975, len(more_S) - 1) * more_S.std(ddof=1) / math.sqrt(len(more_S))
        return f"{more_S.mean():+.4f} ({more_S.mean() - margin:+.4f} to {more_S.mean() + margin:+.4f})"


def compare(checkpoint: Path, view: str) -> list[list[str]]:
    """Score the view at each depth in each way, means over the draws; then without thinning and without expression."""
    module, store, split, _ = load_run(checkpoint)
    record, units = module.training_record(), store.attributes["units"]
    assert record is not None
    cpg_C, sample_S = split.view(view)
    full_SG = np.array(store.expression_SG[sample_S])
    scale = TrainingScale.of_genes(units, record.linear_mean_G, record.quantile_QG)
    calibrations = calibrations_by_depth(module, view.startswith("train_cpg"))
    rows = []
    with keep(encode_cpgs(module, store, chunks(cpg_C, BLOCK[0]))) as cpgs:
        predict = _Predictor(module, cpgs, store.beta(cpg_C, sample_S))
        without_CS = predict(np.tile(record.mean_G, (len(full_SG), 1)))
        for method, depths in DRAWS.items():
            estimator = ExpressionEstimator(record, units, draws=MASK if method == MASK else MOLECULES)
            for depth in depths:
                found: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
                for repeat in range(REPEATS):
                    diluted_SG = dilute(full_SG, method, depth, np.random.default_rng([depth, repeat]))
                    found["depth"].append(predict(estimate_diluted(estimator, diluted_SG, method, depth)))
                    linear_SG = sparse.csr_matrix(np.exp2(diluted_SG.astype(np.float64)) - 1)
                    for way in ("library", "quantile") if method != MASK else ():
                        found[way].append(predict(to_training_scale(linear_SG, scale, way)))
                covered = "–"
                if calibrations and method != MASK:
                    nearest = min(calibrations, key=lambda known: abs(math.log(known / depth)))
                    of_all = [coverage(calibrations[nearest], predict.measured_CS, beta) for beta in found["depth"]]
                    covered = f"{np.mean(of_all):.1%}"
                ways = [predict.scores(found[way]) if found[way] else "–" for way in WAYS]
                draws = f"{depth:,} {'genes' if method == MASK else 'molecules'}"
                rows.append([draws, *ways, predict.above(found["depth"], without_CS), covered])
        undiluted, none = predict.scores([predict(full_SG)]), predict.scores([without_CS])
    return [*rows, ["undiluted", *[undiluted] * len(WAYS), "", ""], ["no expression", *[none] * len(WAYS), "", ""]]


if __name__ == "__main__":
    main(sys.argv[1:])
