"""Checkpoints → tables, figures and sentences about genes, motifs and near genes.

Legend: C CpGs, S samples, G genes, L bases, A letters ACGT.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from methyl_lightning.data.splits import Split
from methyl_lightning.data.store import Store
from methyl_lightning.evaluate.evaluation import load_run, save_figure
from methyl_lightning.files import InputError, replacing
from methyl_lightning.interpret import cis, figures, recovery
from methyl_lightning.interpret.genes import class_table, contrast_table, enrichment, gene_table, read_gmt, stability
from methyl_lightning.interpret.motifs import (
    Filter,
    density,
    filter_table,
    match,
    motif_stability,
    read_collection,
    write_meme,
)
from methyl_lightning.interpret.mutagenesis import LETTERS, UNKNOWN, Track
from methyl_lightning.interpret.reading import Read, Reader
from methyl_lightning.interpret.selection import Chosen, Settings, choose
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.report.runs import SAID

TOP_FILTERS = 10
UNCONTROLLED = (
    "What is said of planted things holds against chance alone: no control was trained on permuted labels. "
    "The table in experiments/interpretation has one, over seeds, and some methods that beat chance don't beat it."
)


class Trained(NamedTuple):
    """A trained network, and what it was trained on."""

    name: str
    module: MethylationModule
    store: Store
    split: Split


class Interpretation(NamedTuple):
    """Sentences, tables and what draws the figures by name, and the filters of the first checkpoint."""

    sentences: list[str]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Callable[[], Figure]]
    filters: list[Filter]
    background_A: np.ndarray


def load_trained(checkpoint: Path, store: str | None = None, split_file: str | None = None) -> Trained:
    """Load a checkpoint with its store and split."""
    return Trained(str(checkpoint), *load_run(checkpoint, store, split_file)[:3])


def interpret_networks(trained: Sequence[Trained], settings: Settings) -> Interpretation:
    """Interpret networks of one cohort together.

    Raises
    ------
    InputError
        If one cannot be interpreted, they differ in their genes, or a name or file is not known.
    """
    sets = None if settings.gene_sets is None else read_gmt(Path(settings.gene_sets))
    collection = None if settings.motifs is None else read_collection(Path(settings.motifs))
    store = trained[0].store
    for one in trained[1:]:
        if not one.store.genes["symbol"].equals(store.genes["symbol"]):
            raise InputError(f"{one.name}: has other genes than {trained[0].name}; name checkpoints of one cohort")
    chosen = choose(store, trained[0].split, settings)
    readers = [Reader(one.module, chosen, one.split, settings) for one in trained]
    first, found = readers[0], [reader.read() for reader in readers]
    for one, read in zip(trained, found, strict=True):
        if read.effects.attention.keys() != found[0].effects.attention.keys():
            raise InputError(f"{one.name}: has not the attention that {trained[0].name} has; interpret them apart")
    made = _genes(found, chosen, settings)
    _cis(made, found, chosen, settings)
    if sets is not None:
        made.tables["enrichment"] = enrichment(made.tables["genes"]["symbol"].tolist(), sets, settings.top)
    if settings.knock_out:
        made.tables["knocked_out_set"] = first.knocked_out_set()
    _motifs(made, first, found, chosen, settings)
    if collection is not None and found[0].filters:
        made.tables["matches"] = match(found[0].filters, collection)
    if (truth := recovery.read_truth(store)) is not None:
        _recover(made, truth, first, found, chosen, settings)
    return made._replace(filters=found[0].filters)


def _genes(found: list[Read], chosen: Chosen, settings: Settings) -> Interpretation:
    effects, genes = [one.effects for one in found], chosen.store.genes
    table = gene_table(genes, effects, chosen.groups, settings.seed)
    stable = stability(effects, settings.top)
    tables = {
        "genes": table,
        "genes_by_class": class_table(genes, effects, chosen.groups, table.index[: settings.top]),
        "stability": stable,
    }
    if effects[0].attention:
        tables["attention_changes"] = contrast_table(genes, effects, chosen.groups, settings.top, settings.seed)
    knockout, n_genes, seconds = effects[0].knockout, len(genes), max(found[0].seconds, 1e-9)
    size = f"{n_genes:,} genes × {len(chosen.cpg_C):,} CpGs × {len(chosen.sample_S):,} samples"
    sentences = [
        f"Knock-out: {size} in {seconds:,.{0 if seconds > 10 else 2}f} s, {n_genes / seconds:,.0f} genes a second; "
        f"{int(knockout.exact_G.sum()):,} genes exactly, the others to first order."
    ]
    exact_G = knockout.exact_G
    if exact_G.sum() > 2 and not np.allclose(knockout.first_order_G, knockout.change_SG.mean(axis=0)):
        rho = spearmanr(knockout.first_order_G[exact_G], knockout.change_SG.mean(axis=0)[exact_G]).statistic
        sentences.append(
            f"First order orders the genes that were knocked out exactly with a rank correlation of {rho:.2f}."
        )
    for name in [name for name in stable["measure"] if name.startswith("attention_")]:
        said = name.replace("_", " of ").capitalize()
        if np.ptp(table[name]) == 0:
            sentences.append(f"{said} is the same for all genes, as no CpG that is looked at has a sequence.")
            continue
        rho = spearmanr(table[name], table["knock_out"]).statistic
        sentences.append(
            f"{said} and knock-out order genes with a rank correlation of {rho:.2f}"
            + ("." if rho >= 0.5 else ": what the network attends to is not what moves its predictions.")
        )
    if not effects[0].attention:
        sentences.append("The network has no attention on genes; slopes on its components give the knock-out exactly.")
    for row in stable.dropna().itertuples():
        sentences.append(
            f"Over {row.checkpoints} checkpoints {str(row.measure).replace('_', ' ')} has a rank correlation of "
            f"{row.rank_correlation:.2f}, and {row.shared_top:.0%} of the top {settings.top} in common "
            f"({row.by_chance:.0%} by chance)."
        )
    return Interpretation(sentences, tables, {"genes": partial(figures.genes, table)}, [], np.full(len(LETTERS), 0.25))


def _mean_effect(found: list[Read]) -> np.ndarray:
    return np.mean([one.effects.knockout.effect_CG for one in found], axis=0)


def _cis(made: Interpretation, found: list[Read], chosen: Chosen, settings: Settings) -> None:
    effect_CG = _mean_effect(found)
    table = cis.by_distance(chosen.store.distances, chosen.cpg_C, effect_CG, settings.seed)
    if len(table):
        made.tables["cis"], made.figures["cis"] = table, partial(figures.cis_by_distance, table)
    if settings.cis is not None:
        placed = cis.cis_map(chosen.store, settings.cis, chosen.cpg_C, effect_CG)
        made.tables["cis_map"], made.figures["cis_map"] = placed, partial(figures.cis_map, placed, settings.cis)


def _motifs(made: Interpretation, first: Reader, found: list[Read], chosen: Chosen, settings: Settings) -> None:
    """Add density, filters, windows and insertions; the density is said before all else."""
    if not len(first.known_C):
        made.sentences.append("No CpG has a sequence: there are no motifs to tell of.")
        return
    at_C = np.isin(chosen.cpg_C, first.known_C)
    density_C, predicted_C = density(first.sequences()), first.mean_beta()[at_C]
    rho = [
        spearmanr(density_C, mean_C, nan_policy="omit").statistic
        for mean_C in (predicted_C, chosen.groups.mean_C[at_C])
    ]
    made.sentences.insert(
        0,
        f"CpG density of the window has a rank correlation of {rho[0]:.2f} with predicted and {rho[1]:.2f} with "
        f"measured mean beta, over {len(density_C):,} windows: a motif that holds CG, or goes with the density, may be "
        "nothing else.",
    )
    letters = first.sequences().flatten().bincount(minlength=UNKNOWN + 1)[:UNKNOWN].numpy()
    made.background_A[:] = letters / letters.sum()
    filters = found[0].filters
    if filters:
        made.tables["filters"], made.figures["filters"] = filter_table(filters), partial(figures.logos, filters)
        if len(found) > 1:
            real, mixed = motif_stability([one.filters for one in found], TOP_FILTERS, settings.seed)
            made.sentences.append(
                f"The top {TOP_FILTERS} filters of a checkpoint are like the nearest of another by {real:.2f}, "
                f"shuffled ones by {mixed:.2f} (1: the same motif)."
            )
    if found[0].tracks:
        made.tables["mutagenesis"] = _track_table(found[0].tracks, chosen)
        c = chosen.mutated_C[0]
        name, sequence_L = chosen.store.cpgs["id"].iloc[c], chosen.store.sequence_CL[c]
        made.figures["mutagenesis"] = partial(figures.track, found[0].tracks[0], sequence_L, name)
        pairs = [
            np.corrcoef(one.importance(), other.importance())[0, 1]
            for read in found[1:]
            for one, other in zip(found[0].tracks, read.tracks, strict=True)
        ]
        if pairs:
            made.sentences.append(
                f"Mutagenesis of the same window by two checkpoints correlates with {np.nanmean(pairs):.2f} on average."
            )
    motifs = settings.insert or list(dict.fromkeys(one.consensus for one in filters[:TOP_FILTERS]))
    if motifs:
        rng = np.random.default_rng([settings.seed, 10])
        shuffled = ["".join(rng.permutation(list(motif))) for motif in motifs]
        columns = ("change", "interaction", "shuffled_change", "shuffled_interaction")
        values = dict(zip(columns, [*first.insert(motifs), *first.insert(shuffled)], strict=True))
        made.tables["insertions"] = pd.DataFrame({"motif": motifs, **values})


def _track_table(tracks: list[Track], chosen: Chosen) -> pd.DataFrame:
    """Lay out a row a base: its letter, its effect on each strand and together."""
    parts = []
    for c, track in zip(chosen.mutated_C, tracks, strict=True):
        sequence_L = chosen.store.sequence_CL[c]
        plus_L, minus_L = -track.change_XLA.sum(axis=2) / (len(LETTERS) - 1)
        columns = {"base": np.array(list(LETTERS + "N"))[sequence_L], "plus": plus_L, "minus": minus_L}
        place_L = np.arange(len(sequence_L)) - (len(sequence_L) // 2 - 1)
        own = {"effect": track.importance(), "interaction": track.importance("interaction")}
        parts.append(pd.DataFrame({"cpg": chosen.store.cpgs["id"].iloc[c], "place": place_L, **columns, **own}))
    return pd.concat(parts, ignore_index=True)


def _recover(
    made: Interpretation,
    truth: recovery.Truth,
    first: Reader,
    found: list[Read],
    chosen: Chosen,
    settings: Settings,
) -> None:
    """Hold every method against what was planted."""
    measures = [one.effects.measures() for one in found]
    means = {name: np.mean([one[name] for one in measures], axis=0) for name in measures[0]}
    rows = recovery.recover_genes(truth, means)
    rows += recovery.recover_effects(truth, chosen.store, chosen.cpg_C, _mean_effect(found))
    rows += recovery.recover_sites(truth, chosen.store, chosen.mutated_C, found[0].tracks)
    motifs = [*truth.motif_D, *recovery.decoys(truth, settings.seed)]
    change, interaction = np.abs(first.insert(motifs))
    methods = {"insertion (change)": change, "insertion (interaction)": interaction}
    if found[0].filters:
        methods["filters"] = recovery.likeness(motifs, found[0].filters)
    rows += recovery.recover_motifs(truth, motifs, methods)
    table = recovery.recovery_table(rows)
    made.tables["recovery"] = table
    made.sentences.extend(
        f"Planted {row.planted}, {str(row.method).replace('_', ' ')}: {row.verdict} (AUROC {row.auroc:.2f}, "
        f"p {row.p:.2g}; {row.precision:.0%} of the first {row.n} are planted)."
        for row in table.itertuples()
    )
    made.sentences.append(UNCONTROLLED)


def write_interpretation(made: Interpretation, folder: Path, names: Sequence[str]) -> None:
    """Write tables, figures, motifs and what they say into a folder."""
    for name, table in made.tables.items():
        with replacing(folder / f"{name}.csv", "table") as path:
            table.to_csv(path, index=False)
    for name, draw in made.figures.items():
        save_figure(draw(), folder / f"{name}.png")
    if made.filters:
        with replacing(folder / "filters.meme", "motifs") as path:
            write_meme(path, made.filters, made.background_A)
    said = {"checkpoints": list(names), "sentences": made.sentences}
    with replacing(folder / SAID, "summary") as path:
        path.write_text(json.dumps(said, indent=1))
