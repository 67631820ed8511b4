"""The Fashion-MNIST experiment on tiny files of its own. Axis letters: N images, H rows, W columns."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.fashion_mnist.__main__ import main
from experiments.fashion_mnist.data import load, read_idx
from experiments.fashion_mnist.model import LEVELS, dilute
from methyl_lightning.files import InputError

RESULTS = {"accuracy.png", "repeats.csv", "strip.png", "table.md"}


def idx(values: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, values.ndim)) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


def images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make images whose class is the height of a bright band."""
    label_N = np.arange(n) % 10
    images_NHW = np.random.default_rng(seed).integers(1, 60, (n, 28, 28))
    for image_HW, label in zip(images_NHW, label_N, strict=True):
        image_HW[2 * label + 4 : 2 * label + 8] += 180
    return images_NHW.astype(np.uint8), label_N.astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    for start, (images_NHW, label_N) in zip(("train", "t10k"), (images(40), images(20, seed=1)), strict=True):
        folder.joinpath(f"{start}-images-idx3-ubyte.gz").write_bytes(idx(images_NHW))
        folder.joinpath(f"{start}-labels-idx1-ubyte.gz").write_bytes(idx(label_N))
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run, expect exit status 2 and one line; return it."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("scheme", ["uniform", "intensity"])
@pytest.mark.parametrize("retention", [0.1, 0.5, 1.0])
def test_dilution_keeps_full_values_or_zero(scheme: str, retention: float) -> None:
    images_NHW = images(200)[0] / np.float32(255)
    diluted_NHW = dilute(images_NHW, retention, np.random.default_rng(0), scheme)
    kept_NHW = diluted_NHW != 0
    assert (diluted_NHW[kept_NHW] == images_NHW[kept_NHW]).all()
    if scheme == "uniform":
        assert kept_NHW.mean() == pytest.approx(retention, abs=0.005)
    else:
        assert kept_NHW.sum(axis=(1, 2)).max() <= round(784 * retention)
        p_NHW = images_NHW.astype(float) / images_NHW.sum(axis=(1, 2), dtype=float, keepdims=True)
        expected = (1 - (1 - p_NHW) ** round(784 * retention)).mean()
        assert kept_NHW.mean() == pytest.approx(expected, abs=0.005)


def test_images_are_diluted_apart_and_the_whole_and_the_blank_stay() -> None:
    images_NHW = np.stack([np.ones((28, 28)), np.ones((28, 28)), np.zeros((28, 28))])
    for scheme in ("uniform", "intensity"):
        diluted_NHW = dilute(images_NHW, 0.5, np.random.default_rng(0), scheme)
        assert (diluted_NHW[0] != diluted_NHW[1]).any()
        assert not diluted_NHW[2].any()
    assert (dilute(images_NHW, 1.0, np.random.default_rng(0)) == images_NHW).all()
    with pytest.raises(ValueError, match="retention=0"):
        dilute(images_NHW, 0, np.random.default_rng(0))


def test_idx_round_trip(folder: Path) -> None:
    np.testing.assert_array_equal(read_idx(folder / "train-images-idx3-ubyte.gz"), images(40)[0])
    split = load(folder)
    np.testing.assert_array_equal(split.test_label_N, images(20, seed=1)[1])
    np.testing.assert_allclose(split.test_NHW * 255, images(20, seed=1)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not gzip", "not a whole gzip"),
        (idx(np.zeros((9, 28, 28)))[:-12], "not a whole gzip"),
        (gzip.compress(b""), "not an IDX file"),
        (gzip.compress(b"\x00\x00\x08\x03\x00"), "not an IDX file"),
        (gzip.compress(gzip.decompress(idx(np.zeros((9, 28, 28))))[:-1]), "7055 bytes of data"),
        (idx(np.zeros((20, 28, 27))), r"\(20, 28, 27\)"),
        (idx(np.zeros((19, 28, 28))), "one label"),
    ],
    ids=["text", "cut", "empty", "header only", "a byte short", "27 columns", "19 images"],
)
def test_damaged_idx_is_named(folder: Path, content: bytes, says: str) -> None:
    folder.joinpath("t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=says) as error:
        load(folder)
    assert "t10k" in str(error.value)


def test_bad_input_is_one_line_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "is missing" in refused(capsys, "--data", tmp_path / "nowhere", "--output", out)
    assert "--epochs" in refused(capsys, "--data", folder, "--output", out, "--epochs", "0")
    assert not out.exists()
    file = folder / "train-labels-idx1-ubyte.gz"
    assert "cannot write" in refused(capsys, "--data", folder, "--output", file, "--epochs", "1")
    file.unlink()
    assert "train-labels-idx1-ubyte.gz is missing" in refused(capsys, "--data", folder, "--output", out)


def test_end_to_end_is_repeatable(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seeds in (("a", "12"), ("b", "12"), ("c", "3")):
        short = ["--epochs", "1", "--repeats", "2", "--seeds", *seeds]
        main(["--data", str(folder), "--output", str(tmp_path / name), *short])
        assert {path.name for path in (tmp_path / name).iterdir()} == RESULTS
    table = pd.read_csv(tmp_path / "a" / "repeats.csv")
    assert table["retention"].unique().tolist() == list(LEVELS)
    assert len(table) == 2 * 2 * len(LEVELS)
    assert (table.loc[table["retention"] == 1, "kept"] == 1).all()
    assert "| 100 % | 100 % |" in capsys.readouterr().out
    text = {name: (tmp_path / name / "repeats.csv").read_text() for name in "abc"}
    assert text["a"] == text["b"] != text["c"]
