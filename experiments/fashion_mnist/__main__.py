"""Train, dilute the test images, write the table, the CSV and the figures: ``python -m experiments.fashion_mnist``."""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from experiments.fashion_mnist.data import CLASSES, Split, load
from experiments.fashion_mnist.model import LEVELS, SCHEMES, FashionClassifier, accuracy, dilute, train
from methyl_lightning.files import InputError

# means of the 10 repeats printed in the notebook, 60,000 training images, in the order of LEVELS
PUBLISHED = (88.10, 80.34, 75.77, 72.06, 67.21, 60.79, 52.12, 38.37, 22.09, 13.39)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def _whole(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def repeats_table(module: FashionClassifier, split: Split, scheme: str, repeats: int, seed: int) -> pd.DataFrame:
    """Measure each level ``repeats`` times: seed, retention, repeat, kept (of the non-zero pixels), accuracy."""
    rows = []
    for level, retention in enumerate(LEVELS):
        for repeat in range(repeats):
            diluted_NHW = dilute(split.test_NHW, retention, np.random.default_rng([seed, level, repeat]), scheme)
            kept = np.count_nonzero(diluted_NHW) / max(1, np.count_nonzero(split.test_NHW))
            rows.append((seed, retention, repeat, kept, accuracy(module, diluted_NHW, split.test_label_N)))
    return pd.DataFrame(rows, columns=["seed", "retention", "repeat", "kept", "accuracy"])


def summary(table: pd.DataFrame) -> str:
    """Return a Markdown table: the mean over networks, and how far networks, and draws for one network, differ."""
    lines = ["| retention | non-zero pixels kept | accuracy | sd of networks | sd of draws |", "|---|---|---|---|---|"]
    for retention, group in table.groupby("retention", sort=False):
        networks = 100 * group.groupby("seed")["accuracy"].mean()
        draws = 100 * np.sqrt(group.groupby("seed")["accuracy"].var().mean())
        row = (f"{100 * retention:.0f} %", f"{100 * group['kept'].mean():.0f} %", f"{networks.mean():.1f} %")
        lines.append(f"| {' | '.join(row)} | {networks.std() if len(networks) > 1 else np.nan:.1f} | {draws:.1f} |")
    return "\n".join(lines).replace(" nan ", " – ")


def accuracy_figure(table: pd.DataFrame, scheme: str, n_test: int) -> Figure:
    """Draw every network and draw of pixels, and their violins, against retention."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    percents = [100 * table.loc[table["retention"] == level, "accuracy"].to_numpy() for level in LEVELS]
    x = 100 * np.array(LEVELS)
    left.plot(np.repeat(x, [len(p) for p in percents]), np.concatenate(percents), "o", alpha=0.5, label="one draw")
    left.plot(x, [p.mean() for p in percents], "k_", markersize=13, label="mean")
    if scheme == "uniform":
        left.plot(x, PUBLISHED, "D", color="0.4", mfc="none", markersize=5, label="published (60,000 images)")
    for part in right.violinplot(percents, x, widths=7, showmeans=True)["bodies"]:
        part.set(facecolor="C0", alpha=0.4)
    for axes, title in ((left, "every network and draw"), (right, "their distribution (bars: least, mean, greatest)")):
        axes.axhline(100 / len(CLASSES), color="0.6", linestyle=":", label="chance")
        axes.set(xlabel="pixels retained (%)", xticks=x, xlim=(106, 4), ylim=(0, 100), title=title)
        axes.title.set_fontsize(10)
        sns.despine(ax=axes)
    left.set_ylabel(f"accuracy on {n_test:,} test images (%)")
    left.legend(frameon=False, fontsize=8)
    return figure


def strip_figure(split: Split, scheme: str, seed: int) -> Figure:
    """Draw the first test image of the last class at every level, each level anew from the undiluted image."""
    index = np.flatnonzero(split.test_label_N == split.test_label_N.max())[0]
    figure = Figure(figsize=(10.0, 1.5), layout="constrained")
    for level, axes in enumerate(figure.subplots(1, len(LEVELS))):
        diluted_NHW = dilute(split.test_NHW[[index]], LEVELS[level], np.random.default_rng([seed, level, 0]), scheme)
        axes.imshow(diluted_NHW[0], cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], title=f"{100 * LEVELS[level]:.0f} %")
    figure.suptitle(f"{CLASSES[split.test_label_N[index]]}: pixels retained ({scheme})", fontsize=10)
    return figure


def run(args: argparse.Namespace) -> None:
    """Do what the arguments ask; files appear in the output folder only when all are complete."""
    start = time.perf_counter()
    split = load(args.data)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=args.output) as scratch:
            tables = []
            for seed in args.seeds:
                module = train(split.train_NHW, split.train_label_N, args.epochs, seed)
                tables.append(repeats_table(module, split, args.scheme, args.repeats, seed))
            table = pd.concat(tables)
            head = f"{len(split.train_NHW):,} training and {len(split.test_NHW):,} test images, {args.epochs} epochs, "
            text = f"{head}seeds {args.seeds}, {args.scheme} dilution, {args.repeats} repeats\n\n{summary(table)}\n"
            folder = Path(scratch)
            folder.joinpath("table.md").write_text(text)
            table.to_csv(folder / "repeats.csv", index=False, float_format="%.6g")
            accuracy_figure(table, args.scheme, len(split.test_NHW)).savefig(folder / "accuracy.png", dpi=110)
            strip_figure(split, args.scheme, args.seeds[0]).savefig(folder / "strip.png", dpi=110)
            for path in folder.iterdir():
                path.replace(args.output / path.name)
    except OSError as error:
        raise InputError(f"cannot write to --output {args.output}: {error.strerror or error}") from None
    print(f"{text}\nwritten to {args.output} in {time.perf_counter() - start:.0f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and run; what a person can mend ends in one line on standard error and exit status 2."""
    parser = _Parser(prog="python -m experiments.fashion_mnist", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four gzip IDX files")
    parser.add_argument("--output", type=Path, default=Path("outputs/fashion_mnist"), help="default %(default)s")
    parser.add_argument("--epochs", type=_whole, default=10, help="default %(default)s")
    parser.add_argument("--repeats", type=_whole, default=10, help="draws a level, default %(default)s")
    parser.add_argument("--scheme", choices=SCHEMES, default="uniform", help="how pixels are drawn, default uniform")
    parser.add_argument("--seeds", type=_whole, nargs="+", default=[1, 2, 3], help="one network each, default 1 2 3")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", r".*does not have many workers|.*isinstance\(treespec, LeafSpec\)")
    try:
        run(parser.parse_args(argv))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
