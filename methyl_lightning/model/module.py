"""Training: loss, optimiser, logging, and a checkpoint that carries all that prediction needs.

Legend: C CpGs, S samples, G genes, N pairs.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanAbsoluteError, Metric

from methyl_lightning import __version__, networks
from methyl_lightning.data.batches import GridBatch, PairBatch
from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.data.expression import SCALERS
from methyl_lightning.metrics.scores import MIN_CELLS
from methyl_lightning.metrics.streaming import Spearman
from methyl_lightning.model.record import TrainingRecord, record_training

SCHEDULES = ("constant", "cosine")
LOSSES = ("mae", "bce")
LEAST_CHANCE = 1e-6  # of a call, so that its logarithm is finite
WARM_UP = 0.05  # of all steps
SMALLEST = 1e-12  # product of two sums of squares
CHECKPOINT_FORMAT = 3  # raised whenever a former program could not read what is written
OLDEST_FORMAT = 1  # that is still read


class MethylationModule(L.LightningModule):
    """Fits a network of the two-tower contract to beta values by mean absolute error, or to calls by their likelihood.

    Plain arguments only, so that ``load_from_checkpoint(path)`` rebuilds the network with neither Hydra nor the store.

    Parameters
    ----------
    network
        Name of a class in :mod:`methyl_lightning.networks`.
    n_genes, window
        Sizes of the store; the network is given those that its constructor takes.
    learning_rate
        Of Adam.
    expression_scaling
        ``minmax`` (10…100, as upstream), ``zscore`` or ``none``; fitted on training samples.
    schedule
        Of the learning rate: ``constant``, as the paper; or ``cosine``: it rises over the first 5 % of the steps and
        falls to 0 at the last.
    loss
        ``mae``, of beta; or ``bce``, for calls of single cells: the cross entropy of a read's methylation, every read
        counted, with the logistic function behind a network that isn't bounded.
    correlation_weight
        Weight of a second loss: 1 − the correlation over a block's samples, mean over its CpGs.
    **settings
        Further arguments of the network.
    """

    def __init__(
        self,
        network: str,
        n_genes: int,
        window: int,
        learning_rate: float = 1e-3,
        expression_scaling: str = "minmax",
        schedule: str = "constant",
        loss: str = "mae",
        correlation_weight: float = 0.0,
        **settings: Any,
    ):
        super().__init__()
        if network not in networks.__all__:
            raise ValueError(f"network={network!r}: must be a class of methyl_lightning.networks")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate={learning_rate}: must be positive")
        if expression_scaling not in SCALERS:
            raise ValueError(f"expression_scaling={expression_scaling!r}: must be one of {tuple(SCALERS)}")
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule={schedule!r}: must be one of {SCHEDULES}")
        if loss not in LOSSES or (loss != "mae" and getattr(networks, network).closed_form):
            one_of = "mae, as the network is fitted by least squares" if loss in LOSSES else f"one of {LOSSES}"
            raise ValueError(f"loss={loss!r}: must be {one_of}")
        if not correlation_weight >= 0:
            raise ValueError(f"correlation_weight={correlation_weight}: must be at least 0")
        self.save_hyperparameters()
        self.learning_rate, self.schedule = learning_rate, schedule
        self.loss, self.correlation_weight = loss, correlation_weight
        network_class, sizes = getattr(networks, network), {"n_genes": n_genes, "window": window}
        taken = inspect.signature(network_class).parameters.keys() & sizes
        self.network = network_class(**{name: sizes[name] for name in taken}, **settings)
        self.scaler = SCALERS[expression_scaling](n_genes)
        self.provenance: dict[str, Any] = {}
        self._record: TrainingRecord | None = None
        self._take_record: Callable[[], TrainingRecord] | None = None
        self.card: dict[str, Any] = {}
        self.saved_weights: Callable[[], dict[str, Any]] | None = (
            None  # where checkpoints hold other weights than these
        )
        self.score_window = 1  # validations whose mean score is logged
        self._scores: list[float] = []
        # a dict, so that they stay on the CPU (not every device has float64); every rank sees the whole subset
        self._validation: dict[str, Metric] = {
            "val/mae": MeanAbsoluteError(sync_on_compute=False).set_dtype(torch.float64),
            "val/spearman": Spearman(sync_on_compute=False),
        }

    def setup(self, stage: str) -> None:
        """Fit the statistics before the first step; a resumed checkpoint then overwrites them alike."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(datamodule, GridDataModule):
            self.fit_statistics(datamodule)

    def fit_statistics(self, datamodule: GridDataModule) -> None:
        """Fit on training data what is fitted without gradients, and note where the data came from."""
        if self.correlation_weight and datamodule.sampling != "grid":
            raise ValueError(
                f"model.correlation_weight={self.correlation_weight}: needs data.sampling=grid, blocks of whole samples"
            )
        self.scaler.fit(datamodule.train_expression())
        self.network.fit_statistics(
            networks.TrainingData(datamodule.train_distances, partial(self._scaled_view, datamodule))
        )
        self.provenance = datamodule.provenance()
        rows = datamodule.split.view("train_cpg-train_sample")
        self._take_record = partial(record_training, datamodule.store, *rows)

    def _scaled_view(self, datamodule: GridDataModule, most_cells: int) -> networks.TrainingView:
        view = datamodule.training_view(most_cells)
        return view._replace(expression_SG=self.scaler(view.expression_SG))

    def training_record(self) -> TrainingRecord | None:
        """Return what a checkpoint keeps of the training data, None before fit.

        Taken when first asked for, at the first checkpoint: it reads all of the training view, which no step waits for.
        """
        if self._take_record is not None:
            self._record, self._take_record = self._take_record(), None
        return self._record

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add units, assembly and the origin of the data, the CpGs and genes, and what testing has told."""
        if self.saved_weights is not None and "optimizer_states" not in checkpoint:
            checkpoint["state_dict"] = self.saved_weights()
        checkpoint["scores"] = self._scores
        record = self.training_record()
        checkpoint["methyl_lightning"] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "provenance": self.provenance,
            "card": self.card,
            "tables": record.tables() if record else {},
        }
        checkpoint["training_record"] = record.tensors() if record else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        own = checkpoint["methyl_lightning"]
        self.provenance, self.card = own["provenance"], own["card"]
        self._scores = checkpoint.get("scores", [])  # an exported one has none
        if own["tables"]:
            self._record = TrainingRecord.restore(checkpoint["training_record"], own["tables"])
            self._take_record = None

    def forward(self, batch: GridBatch | PairBatch) -> Tensor:
        """Predict beta_hat [C, S], or [N] for single cells, from unscaled expression."""
        if isinstance(batch, PairBatch):
            return self.link(self.network.forward_pairs(batch.cpgs, self.scaler(batch.expression_NG)))
        return self.link(self.network(batch.cpgs, self.scaler(batch.expression_SG)))

    def combine(self, cpgs: Any, samples: Any) -> Tensor:
        """Predict beta_hat [C, S] from what the network has encoded."""
        return self.link(self.network.combine(cpgs, samples))

    def link(self, output: Tensor) -> Tensor:
        """Turn what the network gives into beta."""
        return output.sigmoid() if self.loss == "bce" and not self.network.bounded else output

    def training_step(self, batch: GridBatch | PairBatch, batch_idx: int) -> Tensor:
        """Return the mean loss over the measured cells of a block; without any there is no gradient."""
        _, _, beta, reads = batch
        measured = ~beta.isnan()
        # never None where there are parameters: with several processes all must take part in the step
        output = self(batch)
        predicted, called = output[measured], beta[measured]
        if self.loss == "mae":
            loss = (predicted - called).abs().sum() / measured.sum().clamp(min=1)
        else:
            weight = torch.ones_like(called) if reads is None else reads[measured]
            chance = predicted.float().clamp(LEAST_CHANCE, 1 - LEAST_CHANCE)
            entropy = -(called * chance.log() + (1 - called) * (1 - chance).log())
            loss = (weight * entropy).sum() / weight.sum().clamp(min=1)
        if measured.any():
            self.log(f"train/{self.loss}", loss.detach(), on_step=True, on_epoch=False)
        if self.correlation_weight:
            loss = loss + self.correlation_weight * correlation_loss(output, beta)
        return loss

    def validation_step(self, batch: GridBatch, batch_idx: int) -> None:
        """Score predictions of the fixed validation subset."""
        measured_CS = ~batch.beta_CS.isnan()
        predicted_N, measured_N = (values[measured_CS].cpu().double() for values in (self(batch), batch.beta_CS))
        for metric in self._validation.values():
            metric.update(predicted_N, measured_N)

    def on_validation_epoch_end(self) -> None:
        """Log MAE and Spearman pooled over the subset."""
        values = {name: metric.compute().item() for name, metric in self._validation.items()}
        for metric in self._validation.values():
            metric.reset()
        # sync_dist only makes sure that all ranks take the same decision to stop
        self.log_dict(values, prog_bar=True, sync_dist=True)
        # what checkpoints and early stopping go by: Spearman, or MAE as long as predictions do not differ at all
        spearman = values["val/spearman"]
        score = -values["val/mae"] if math.isnan(spearman) else spearman
        self._scores = [*self._scores, score][-self.score_window :]
        self.log("val/score", sum(self._scores) / len(self._scores), logger=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Take Adam, as the port, and the schedule of its rate."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=True)
        if self.schedule == "constant":
            return optimizer
        scheduler = LambdaLR(optimizer, partial(rate_share, n_steps=self.trainer.max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def rate_share(step: int, n_steps: int) -> float:
    """Tell which share of the learning rate the schedule ``cosine`` gives to a step, counted from 0."""
    n_warm = max(1, round(WARM_UP * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warm) / max(1, n_steps - n_warm))))


def correlation_loss(predicted_CS: Tensor, beta_CS: Tensor) -> Tensor:
    """Return 1 − the correlation over samples, mean over the CpGs that vary in at least three measured cells."""
    measured_CS = ~beta_CS.isnan()
    n_C1 = measured_CS.sum(1, keepdim=True).clamp(min=1)

    def deviations(value_CS: Tensor) -> Tensor:
        value_CS = torch.where(measured_CS, value_CS, 0.0)
        return torch.where(measured_CS, value_CS - value_CS.sum(1, keepdim=True) / n_C1, 0.0)

    left_CS, right_CS = deviations(predicted_CS), deviations(beta_CS)
    size_C = right_CS.square().sum(1)
    counts_C = (n_C1[:, 0] >= MIN_CELLS) & (size_C > 0)
    # a prediction that hardly varies counts as uncorrelated, and its gradient stays finite
    norm_C = (left_CS.square().sum(1) * size_C + SMALLEST).sqrt()
    lost_C = torch.where(counts_C, 1 - (left_CS * right_CS).sum(1) / norm_C, 0.0)
    return lost_C.sum() / counts_C.sum().clamp(min=1)
