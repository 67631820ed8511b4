"""Seconds from the start of Python to the end of the first training step, and peak memory, as one JSON line.

The peak is that of training and of writing a checkpoint.

Arguments: store, block, and when the process was asked for.
"""

import json
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L

from methyl_lightning.data.datamodule import GridDataModule
from methyl_lightning.model.checkpoint import StreamedCheckpoints
from methyl_lightning.model.module import MethylationModule

STEPS = 3


class FirstStep(L.Callback):
    """Notes when the first step is done."""

    seconds = 0.0

    def on_train_batch_end(self, *args: object) -> None:
        """Stop the clock once."""
        self.seconds = self.seconds or time.time() - float(sys.argv[3])


if __name__ == "__main__":
    datamodule = GridDataModule(sys.argv[1], block=int(sys.argv[2]))
    L.seed_everything(0, verbose=False)
    module = MethylationModule("LevyJurgenson", len(datamodule.store.genes), datamodule.store.window)
    first = FirstStep()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        limit_val_batches=0,
        callbacks=[first],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[StreamedCheckpoints()],
    )
    trainer.fit(module, datamodule)
    with TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "last.ckpt")
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"start_seconds": first.seconds, "peak_rss_gb": peak_gb, "n_parameters": n_parameters}))
