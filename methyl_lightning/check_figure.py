"""One page that shows what a store holds."""

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from methyl_lightning.check import N_BINS, Contents
from methyl_lightning.store import Store

SIZE = (9.0, 6.6)


def store_page(store: Store, contents: Contents) -> Figure:
    """Draw the distributions of beta, expression and nearest gene, and how much is missing.

    Parameters
    ----------
    store
        For the expression and the title.
    contents
        Of :func:`methyl_lightning.check.read_contents`.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    (beta, expression), (distance, missing) = figure.subplots(2, 2)
    edges = np.linspace(0, 1, N_BINS + 1)
    for cohort, count_B in contents.beta_counts.items():
        beta.stairs(count_B / max(count_B.sum(), 1) * N_BINS, edges, label=cohort, linewidth=1.3)
    beta.set(xlabel="beta", ylabel="density", xlim=(0, 1))
    beta.legend(frameon=False)
    expression.hist(np.asarray(store.expression_SG).ravel(), bins=100, color="0.5")
    expression.set(xlabel=f"expression, {store.attributes['units']}", ylabel="values", yscale="log")
    _draw_distances(distance, contents.nearest_bp_C)
    for name, share in (("CpG", contents.missing_C), ("sample", contents.missing_S)):
        missing.plot(np.linspace(0, 1, len(share)), np.sort(share), label=f"of a {name}", linewidth=1.3)
    missing.set(xlabel="share of CpGs, of samples", ylabel="share missing", xlim=(0, 1), ylim=(0, None))
    missing.legend(frameon=False)
    sns.despine(figure)
    shape = f"{len(store.cpgs):,} CpGs × {len(store.samples):,} samples, {len(store.genes):,} genes"
    figure.suptitle(f"{store.path.name}: {shape}, {store.attributes['assembly']}", fontsize="medium")
    return figure


def _draw_distances(axes: Axes, nearest_bp_C: np.ndarray) -> None:
    axes.hist(nearest_bp_C / 1000, bins=100, color="0.5")
    axes.axvline(0, color="C3", linewidth=0.8)
    axes.set(xlabel="nearest gene − CpG (kb)", ylabel="CpGs", yscale="log")
    if not len(nearest_bp_C):
        axes.text(0.5, 0.5, "no gene near any CpG", ha="center", va="center", transform=axes.transAxes)
