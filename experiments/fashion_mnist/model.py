"""Network, training, dilution and accuracy. Axis letters: N images, H rows, W columns, P pixels, K classes."""

import sys

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from experiments.fashion_mnist.data import CLASSES

LEVELS = tuple(round(1 - 0.1 * step, 1) for step in range(10))  # 1.0, 0.9 … 0.1
SCHEMES = ("uniform", "intensity")
BATCH_SIZE = 4


class FashionClassifier(L.LightningModule):
    """Three 3 × 3 convolutions (10, 5, 16 filters; pooled after the first and the third), then FC 128-64-10.

    Sizes, SGD 0.001 with momentum 0.9 and batches of 4 as in the notebook of agotliber/CH3_project (see README.md).
    """

    def __init__(self, lr: float = 0.001, momentum: float = 0.9):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            *(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(10, 5, 3), nn.ReLU()),
            *(nn.Conv2d(5, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))),
        )

    def forward(self, images_NHW: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, K)."""
        return self.network(images_NHW.unsqueeze(1))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return the cross entropy of a batch."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=self.hparams["momentum"])


def train(images_NHW: np.ndarray, label_N: np.ndarray, epochs: int, seed: int) -> FashionClassifier:
    """Train in batches of 4 for a fixed number of epochs; nothing is selected on the test images."""
    L.seed_everything(seed, verbose=False)
    dataset = TensorDataset(torch.from_numpy(images_NHW), torch.from_numpy(label_N))
    batches = BatchSampler(RandomSampler(dataset), BATCH_SIZE, drop_last=False)
    module = FashionClassifier()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=epochs, enable_progress_bar=sys.stderr.isatty(), **quiet)
    trainer.fit(module, DataLoader(dataset, sampler=batches, batch_size=None))
    return module.eval()


def dilute(images_NHW: np.ndarray, retention: float, rng: np.random.Generator, scheme: str = "uniform") -> np.ndarray:
    """Keep some pixels of each image at their full value and set the others to 0.

    Parameters
    ----------
    images_NHW
        Intensities, 0 or more.
    retention
        Fraction of the pixels, in (0, 1].
    rng
        Every image has its own draws.
    scheme
        ``uniform`` (the notebook's): each pixel is kept with probability ``retention``.
        ``intensity`` (upstream's mask of genes, on pixels): ``retention`` × H × W draws with replacement,
        p = pixel / sum of the image; what is drawn at least once is kept.
    """
    if not 0 < retention <= 1 or scheme not in SCHEMES:
        raise ValueError(f"retention={retention}, scheme={scheme!r}: retention must be in (0, 1], scheme in {SCHEMES}")
    if scheme == "uniform":
        return np.where(rng.random(images_NHW.shape) < retention, images_NHW, 0)
    pixel_NP = images_NHW.reshape(len(images_NHW), -1).astype(np.float64)
    pixel_NP[pixel_NP.sum(axis=1) == 0] = 1  # a blank image stays blank whatever is drawn
    n_draws = round(retention * pixel_NP.shape[1])
    drawn_NP = rng.multinomial(n_draws, pixel_NP / pixel_NP.sum(axis=1, keepdims=True)) > 0
    return np.where(drawn_NP.reshape(images_NHW.shape), images_NHW, 0)


def accuracy(module: FashionClassifier, images_NHW: np.ndarray, label_N: np.ndarray) -> float:
    """Return the fraction of images whose largest logit is the label's."""
    with torch.inference_mode():
        parts = torch.from_numpy(images_NHW).split(1000)
        predicted_N = torch.cat([module(part.to(module.device)).argmax(dim=1).cpu() for part in parts])
    return float((predicted_N.numpy() == label_N).mean())
