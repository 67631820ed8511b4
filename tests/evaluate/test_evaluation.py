"""A test of a run writes whole predictions, or says in one line why not."""

import errno
import os
from pathlib import Path

import pytest
from conftest import assert_refused, command, files


def test_predictions_without_room_are_one_line(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    checkpoint, store = workplace / "run" / "best.ckpt", workplace / "stores" / "simulated.h5"
    result = command("evaluate", [f"checkpoint={checkpoint}", f"store={store}", "hydra.run.dir=again"], tmp_path)
    assert_refused(
        result, "predictions not written ([Errno 28] No space left on device); the former one, if any, stands"
    )
    assert "metrics.json" in files(tmp_path / "again")
    assert not [name for name in files(tmp_path / "again") if name.endswith((".h5ad", ".part"))]
