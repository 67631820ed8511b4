"""A trainer for experiments that score their networks themselves: so many steps, and nothing said, watched or saved."""

from typing import Any

import lightning as L


def quiet_trainer(max_steps: int, **more: Any) -> L.Trainer:
    """Return a trainer that neither validates nor writes; ``more`` goes to it."""
    return L.Trainer(
        max_steps=max_steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **more,
    )
