"""IDX files or an .npz → images and labels. Axis letters: N images, H rows, W columns."""

import gzip
import hashlib
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from methyl_lightning.files import InputError

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
# MD5 as stated in the README of zalandoresearch/fashion-mnist
MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


class Split(NamedTuple):
    """Training and test images, float32 in 0–1, with int64 labels 0–9."""

    train_NHW: np.ndarray
    train_label_N: np.ndarray
    test_NHW: np.ndarray
    test_label_N: np.ndarray


def load(path: Path, seed: int) -> Split:
    """Read a folder with the four gzip IDX files, or an .npz that is split 80/20 within each class.

    Parameters
    ----------
    path
        The folder, or an .npz with ``images`` (N, 28, 28) and ``row_label`` (N,), uint8.
    seed
        Of the .npz split; the IDX files come split.
    """
    if path.suffix != ".npz":
        train_NHW, train_label_N, test_NHW, test_label_N = (read_idx(path / name) for name in MD5)
        train = _checked(train_NHW, train_label_N, f"{path}/train-*")
        return Split(*train, *_checked(test_NHW, test_label_N, f"{path}/t10k-*"))
    try:
        with np.load(path) as arrays:
            images_NHW, label_N = _checked(arrays["images"], arrays["row_label"], str(path))
    except KeyError:
        raise InputError(f"{path} needs the arrays images and row_label") from None
    except InputError:
        raise
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read {path} as .npz: {error}") from None
    rng = np.random.default_rng(seed)
    is_test_N = np.zeros(len(label_N), dtype=bool)
    for label in np.unique(label_N):
        members = rng.permutation(np.flatnonzero(label_N == label))
        if len(members) < 5:
            raise InputError(f"{path}: {len(members)} images of class {label}; the 80/20 split needs at least 5")
        is_test_N[members[: round(0.2 * len(members))]] = True
    return Split(images_NHW[~is_test_N], label_N[~is_test_N], images_NHW[is_test_N], label_N[is_test_N])


def read_idx(path: Path) -> np.ndarray:
    """Read a gzip IDX file of unsigned bytes: 0 0 8, the number n of axes, n big-endian sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing; --data FOLDER --download fetches it, --data also takes .npz") from None
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


def download(folder: Path) -> None:
    """Fetch the IDX files that the folder lacks; each of the four must match its MD5 before it is kept."""
    for name, expected in MD5.items():
        path = folder / name
        try:
            fetched = None if path.exists() else urllib.request.urlopen(f"{URL}/{name}", timeout=30).read()
            found = hashlib.md5(path.read_bytes() if fetched is None else fetched, usedforsecurity=False).hexdigest()
            if found != expected:
                raise InputError(f"{path}: MD5 {found}, but the dataset's README states {expected}")
            if fetched is not None:
                folder.mkdir(parents=True, exist_ok=True)
                part = folder / f"{name}.part"
                part.write_bytes(fetched)
                part.replace(path)
        except OSError as error:  # urllib's errors are OSErrors
            raise InputError(f"cannot fetch {URL}/{name} into {folder}: {error}") from None


def _checked(images: np.ndarray, labels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28) or labels.dtype != np.uint8:
        raise InputError(
            f"{name}: images {images.dtype} {images.shape}, labels {labels.dtype}; needs uint8 (N, 28, 28)"
        )
    if len(images) == 0 or labels.shape != images.shape[:1] or labels.max() >= len(CLASSES):
        raise InputError(f"{name}: needs one label, 0 to 9, for each of {len(images)} images, and at least one image")
    return images.astype(np.float32) / 255, labels.astype(np.int64)
