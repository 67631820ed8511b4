"""A checkpoint is what was written, or one line; no bit of it changes unseen."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import assert_refused, command

from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import CARD, WEIGHTS, export_folder, load_checkpoint, read_resumable
from methyl_lightning.model.module import CHECKPOINT_FORMAT


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in load_checkpoint(path).state_dict().items()}


def flips(size: int, n: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    return [(int(at), int(bit)) for at, bit in zip(rng.integers(0, size, n), rng.integers(0, 8, n), strict=True)]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_flipped_bit_is_refused_or_changes_nothing(workplace: Path, tmp_path: Path, name: str) -> None:
    content, had = (workplace / "run" / name).read_bytes(), weights(workplace / "run" / name)
    path, refused = tmp_path / name, 0
    for at, bit in flips(len(content), 40):
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        try:
            has = weights(path)
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert all(torch.equal(value, has[key]) for key, value in had.items())
    assert refused > 30  # the rest is padding between the parts


@pytest.mark.parametrize("name", [WEIGHTS, CARD])
def test_a_flipped_bit_of_an_export_is_refused(workplace: Path, tmp_path: Path, name: str) -> None:
    export_folder(workplace / "run" / "best.ckpt", tmp_path / "export")
    path = tmp_path / "export" / name
    content, refused = path.read_bytes(), 0
    for at, bit in flips(len(content), 20):
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        try:
            load_checkpoint(tmp_path / "export")
        except InputError as error:
            refused += 1
            assert "export it again" in str(error) or "newer version" in str(error) or "unreleased" in str(error)
    assert refused >= 18  # whitespace of the card says nothing
    path.write_bytes(content)
    assert load_checkpoint(tmp_path / "export").card


def test_what_is_no_whole_checkpoint_is_one_line(workplace: Path, tmp_path: Path) -> None:
    content = torch.load(workplace / "run" / "best.ckpt", weights_only=True)
    own = content["methyl_lightning"]
    broken = {
        "weights": {**content, "state_dict": {}},
        "hyper": {name: value for name, value in content.items() if name != "hyper_parameters"},
        "sizes": {**content, "hyper_parameters": {**content["hyper_parameters"], "n_genes": 10**14}},
        "card": {**content, "methyl_lightning": {"format": CHECKPOINT_FORMAT, "version": "0.1.0"}},
        "half a card": {**content, "methyl_lightning": {**own, "card": {"metrics": own["card"]["metrics"]}}},
        "no card": {**content, "methyl_lightning": {**own, "card": "x"}},
        "no units": {**content, "methyl_lightning": {**own, "provenance": {**own["provenance"], "units": None}}},
        "other": {"state_dict": content["state_dict"]},
        "list": [1, 2],
    }
    for name, changed in broken.items():
        torch.save(changed, tmp_path / f"{name}.ckpt")
        result = command("predict", [f"describe='{name}.ckpt'"], tmp_path)
        assert_refused(result, f"{name}.ckpt: ", "take ")


def test_training_does_not_go_on_from_a_damaged_checkpoint(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "run", tmp_path / "run", ignore=shutil.ignore_patterns("*.h5ad", "references"))
    path = tmp_path / "run" / "last.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged, the checksum of"):
        read_resumable(path)
    assert_refused(command("train", ["ckpt_path=run/last.ckpt"], tmp_path), "run/last.ckpt: damaged")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())
