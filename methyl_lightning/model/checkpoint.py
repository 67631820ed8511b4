"""Checkpoints as prediction uses them: loaded without the store, completed after testing, exported and read back."""

import hashlib
import json
import struct
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from methyl_lightning import __version__
from methyl_lightning.data.splits import TEST_VIEWS
from methyl_lightning.files import InputError, replacing, replacing_folder
from methyl_lightning.metrics.schema import ViewMetrics
from methyl_lightning.model.module import CHECKPOINT_FORMAT, OLDEST_FORMAT, MethylationModule

# what zipfile and torch raise where bytes are not what they should be
BROKEN = (
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError),
    *(NotImplementedError, MemoryError, UnpicklingError, BadZipFile, struct.error, zlib.error),
)
WEIGHTS, CARD = "model.safetensors", "card.json"  # of an exported folder
DIGEST = "sha256"  # in the card: of the weights' file and of all other words
RECORD, STATE = "training_record", "state_dict"


class CalibrationWords(BaseModel):
    """The calibration of a card."""

    level: float
    edges: list[float]
    low: list[float]
    high: list[float]
    cells: int


class DepthWords(CalibrationWords):
    """The calibration of samples of one depth."""

    depth: float
    coverage: float


class CardWords(BaseModel):
    """What a card holds where its checkpoint has been tested; one of an older version knows no depths."""

    metrics: dict[str, ViewMetrics]
    calibration: CalibrationWords
    coverage: dict[str, float]
    depths: list[DepthWords] = Field(default_factory=list)


class ProvenanceWords(BaseModel):
    """What a checkpoint says of its data."""

    assembly: str
    units: str
    window: int
    cohort: list[str]
    source: dict[str, Any]
    sizes: dict[str, dict[str, int]]


class StreamedCheckpoints(TorchCheckpointIO):
    """Writes a trainer's checkpoints straight into their file; Lightning's own way holds all bytes in memory first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a file that takes the place of a former one only when it is whole."""
        _write(checkpoint, Path(path))


def load_checkpoint(path: str | Path) -> MethylationModule:
    """Rebuild a trained module, on the CPU and in evaluation mode, from a checkpoint or an exported folder.

    Raises
    ------
    InputError
        If there is none, it is damaged, or a newer version of this program wrote it.
    """
    path = Path(path)
    content = _read_folder(path) if path.is_dir() else _read_file(path)
    try:
        module = MethylationModule(**content["hyper_parameters"])
        module.on_load_checkpoint(content)
        _check_words(module)
        module.load_state_dict(content[STATE])
    except BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a whole checkpoint ({reason}); take another one of the run") from error
    return module.eval()


def on_fastest_device(module: MethylationModule) -> MethylationModule:
    """Move a module to the GPU, where there is one."""
    return module.to("cuda" if torch.cuda.is_available() else "cpu")


def _check_words(module: MethylationModule) -> None:
    """Refuse words of a checkpoint that lack something, or are of another type."""
    for name, words, kind in (("provenance", module.provenance, ProvenanceWords), ("card", module.card, CardWords)):
        if words != {} or kind is not CardWords:  # without a card it has not been tested
            try:
                kind.model_validate_json(json.dumps(words), strict=True)
            except ValidationError as error:
                wrong = error.errors()[0]
                raise ValueError(f"{'.'.join(map(str, (name, *wrong['loc'])))}: {wrong['msg'].lower()}") from error
    if module.card and not set(TEST_VIEWS) <= set(module.card["metrics"]):
        raise ValueError("card.metrics: a test view is missing")


def read_resumable(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that training can go on from.

    Raises
    ------
    InputError
        If there is none, it is damaged, or it holds no state of the optimiser, as best.ckpt.
    """
    content = _read_file(Path(path))
    if "optimizer_states" not in content:
        raise InputError(f"{path}: holds weights alone; training goes on from last.ckpt of the same folder")
    return content


def complete_checkpoint(path: Path, card: dict[str, Any]) -> None:
    """Write what testing has told into a checkpoint; nothing else of it changes."""
    content = _read_file(path)
    content["methyl_lightning"]["card"] = card
    _write(content, path)


def _write(content: dict[str, Any], path: Path) -> None:
    with replacing(path, "checkpoint") as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # as torch calls what a disk refuses
            raise OSError("the disk did not take all of it; make room there") from error


def export_folder(path: str | Path, folder: str | Path) -> None:
    """Write a checkpoint as ``model.safetensors`` (all numbers) and ``card.json`` (all words) into a new folder.

    Raises
    ------
    InputError
        If the folder exists, or the checkpoint cannot be read.
    """
    content, folder = _read_file(Path(path)), Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already; name a new folder to export into")
    tensors = {f"{part}.{name}": value for part in (RECORD, STATE) for name, value in content[part].items()}
    words = {"hyper_parameters": dict(content["hyper_parameters"]), **content["methyl_lightning"]}
    with replacing_folder(folder, "checkpoint") as temporary:
        # a file holds each tensor once and in order
        save_file({name: value.clone().contiguous() for name, value in tensors.items()}, temporary / WEIGHTS)
        (temporary / CARD).write_text(json.dumps(words | {DIGEST: _digest(temporary / WEIGHTS, words)}, indent=1))


def _check_format(path: Path, own: dict[str, Any]) -> None:
    if own.get("format", 0) > CHECKPOINT_FORMAT:
        raise InputError(
            f"{path}: written by methyl_lightning {own['version']} (checkpoint format {own['format']}), this is "
            f"{__version__} (format {CHECKPOINT_FORMAT}); install the newer version"
        )
    if own.get("format", 0) < OLDEST_FORMAT:
        raise InputError(f"{path}: written by an unreleased version of methyl_lightning; train again")


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; training writes best.ckpt into its run folder")
    try:
        damaged = _damaged_part(path)
        content = {} if damaged else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        own = content.get("methyl_lightning")
    except BROKEN as error:
        raise InputError(f"{path}: truncated or not a checkpoint; take another one of the run") from error
    if damaged:
        raise InputError(f"{path}: damaged, the checksum of {damaged} differs; take another one of the run, or a copy")
    if not isinstance(own, dict):
        raise InputError(f"{path}: not a checkpoint of methyl_lightning; take best.ckpt or last.ckpt of a run")
    _check_format(path, own)
    return content


def _damaged_part(path: Path) -> str | None:
    """Name the first part of a checkpoint that is not what was written; torch itself looks at no checksum."""
    with ZipFile(path) as file:
        return file.testzip()


def _read_folder(folder: Path) -> dict[str, Any]:
    try:
        words = json.loads((folder / CARD).read_text())
        _check_format(folder, words)
        if words.pop(DIGEST) != _digest(folder / WEIGHTS, words):
            raise InputError(f"{folder}: damaged, {WEIGHTS} and {CARD} are not what was exported; export it again")
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder}: no exported checkpoint ({CARD} and {WEIGHTS}): {error}; export it again"
        ) from error
    content: dict[str, Any] = {"hyper_parameters": words.pop("hyper_parameters"), "methyl_lightning": words}
    for part in (RECORD, STATE):
        content[part] = {
            name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")
        }
    return content


def _digest(weights: Path, words: dict[str, Any]) -> str:
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(words, sort_keys=True).encode())
    return digest.hexdigest()
