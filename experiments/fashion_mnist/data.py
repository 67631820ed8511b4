"""IDX files → images and labels. Axis letters: N images, H rows, W columns."""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from methyl_lightning.files import InputError

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Split(NamedTuple):
    """Training and test images, float32 in 0–1, with int64 labels 0–9."""

    train_NHW: np.ndarray
    train_label_N: np.ndarray
    test_NHW: np.ndarray
    test_label_N: np.ndarray


def load(folder: Path) -> Split:
    """Read a folder with the four gzip IDX files, as Debian's package dataset-fashion-mnist lays them out."""
    parts = [_images(folder, name) for name in ("train", "t10k")]
    return Split(*parts[0], *parts[1])


def read_idx(path: Path) -> np.ndarray:
    """Read a gzip IDX file of unsigned bytes: 0 0 8, the number n of axes, n big-endian sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing; it comes with Debian's package dataset-fashion-mnist") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file: {error}") from None
    start = 4 + 4 * content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 4
    if not 8 <= start <= len(content):
        raise InputError(f"{path} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    values = np.frombuffer(content, np.uint8, offset=start)
    if len(values) != np.prod(shape):
        raise InputError(f"{path}: {len(values)} bytes of data, but the header says {' × '.join(map(str, shape))}")
    return values.reshape(shape)


def _images(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (read_idx(folder / f"{name}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    name = f"{folder}/{name}-*"
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise InputError(f"{name}: images {images.shape}; needs (N, 28, 28)")
    if len(images) == 0 or labels.shape != images.shape[:1] or labels.max() >= len(CLASSES):
        raise InputError(f"{name}: needs one label, 0 to 9, for each of {len(images)} images, and at least one image")
    return images.astype(np.float32) / 255, labels.astype(np.int64)
