"""Predict a section with a run and ask of the predictions what can be asked.

Legend: N spots, C CpGs, S samples of the cohort, P permutations.
"""

from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd

from experiments.spatial import checks, cis
from experiments.spatial.inputs import LABEL, MAIN, MATCHES, TUMOUR_LABELS, UNLABELLED, K, Run, log_expression
from methyl_lightning.predict import predict

SETTINGS: dict[str, dict[str, Any]] = {
    **{match: {"match": match} for match in MATCHES},
    "neighbours": {"match": MAIN, "aggregate": "spatial", "k": K},
}
TOGETHER = {"aggregate": "label", "label": "section"}  # all spots as one sample
STROMA = ("VWF", "CD34", "CDH5", "PLIN1", "PDGFRB", "CXCL12")  # vessels, fat, fibroblasts: those that the cohorts have
OESTROGEN = "ESR1"


class Section(NamedTuple):
    """A section, its predictions, and what is drawn of them.

    Attributes
    ----------
    data
        Spots × genes.
    predicted
        AnnData, spots × CpGs, by setting.
    moran
        By name, Moran's I of CpGs.
    cis, tumour
        CpGs: ``cohort`` and ``section``, the relation with the CpG's gene, and the difference of beta between tumour
        and the rest; ``seen``.
    """

    data: anndata.AnnData
    predicted: dict[str, anndata.AnnData]
    moran: dict[str, np.ndarray]
    cis: pd.DataFrame
    tumour: pd.DataFrame


def predict_looked_at(run: Run, data: anndata.AnnData, **settings: Any) -> anndata.AnnData:
    """Predict the CpGs that are looked at, whatever the coverage of genes."""
    ids = run.cpgs.index.tolist()
    return predict(run.checkpoint, data, ids, min_coverage=0, intervals=False, **settings)


def beta_of(predicted: anndata.AnnData) -> np.ndarray:
    """Return predicted beta as float64 [N, C]."""
    return np.asarray(predicted.X, dtype=np.float64)


def tumour_spots(data: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return which spots are tumour and which are something else; undetermined ones are neither."""
    label_N = data.obs[LABEL].astype(str).to_numpy()
    tumour_N = np.isin(label_N, TUMOUR_LABELS)
    return tumour_N, ~tumour_N & (label_N != UNLABELLED)


def cohort_directions(run: Run) -> dict[str, np.ndarray]:
    """Return differences of measured beta [C] between the upper and the lower third of samples.

    ``tumour``: by little expression of stromal genes, which stands in for many tumour cells, as there is no normal
    sample; ``ESR1``: by its expression.
    """
    stroma = run.expression_SG[[gene for gene in STROMA if gene in run.expression_SG]]
    scores = {}
    if stroma.shape[1]:
        scores["tumour"] = -((stroma - stroma.mean()) / stroma.std()).mean(axis=1).to_numpy()
    if OESTROGEN in run.expression_SG:
        scores[OESTROGEN] = run.expression_SG[OESTROGEN].to_numpy()
    return {name: checks.tertile_difference(run.beta_CS, score_S) for name, score_S in scores.items()}


def section_contrasts(data: anndata.AnnData, log_counts_N: np.ndarray) -> dict[str, np.ndarray]:
    """Return weights of spots [N] for a section's directions: tumour − other spots, the slope on ESR1 in tumour."""
    tumour_N, other_N = tumour_spots(data)
    found = {}
    if tumour_N.any() and other_N.any():
        found["tumour"] = tumour_N / tumour_N.sum() - other_N / other_N.sum()
    if OESTROGEN in data.var_names and tumour_N.sum() > 2:
        score_N = checks.without(log_expression(data)[[OESTROGEN]].to_numpy(), log_counts_N)[:, 0]
        found[OESTROGEN] = np.where(tumour_N, score_N - score_N[tumour_N].mean(), 0.0)
    return found


def null_morans_i(run: Run, data: anndata.AnnData, beta_NC: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Return Moran's I where spots have changed places at random: before neighbours are averaged, if they are."""
    rng = np.random.default_rng(0)
    if "aggregate" not in settings:
        return checks.permuted_morans_i(beta_NC, checks.neighbours(data.obsm["spatial"]), rng).ravel()
    moved = data.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"][rng.permutation(moved.n_obs)]
    return checks.morans_i(beta_of(predict_looked_at(run, moved, **settings)), checks.neighbours(moved.obsm["spatial"]))


def examine(run: Run, data: anndata.AnnData, cohort_cis_C: np.ndarray) -> tuple[Section, pd.DataFrame]:
    """Predict a section in every setting; ``cohort_cis_C`` is the cohort's relation of CpGs with their genes.

    Returns
    -------
    Section
        What is drawn.
    pandas.DataFrame
        What was found: rows quantities, columns settings.
    """
    log_counts_N = np.log10(data.obs["counts"].to_numpy(np.float64))
    expression = log_expression(data)
    directions = cohort_directions(run)
    bulk = {match: beta_of(predict_looked_at(run, data, match=match, **TOGETHER))[0] for match in MATCHES}
    seen_C = (run.cpgs["part"] == "train").to_numpy()
    section = Section(data, {}, {}, pd.DataFrame(index=run.cpgs.index), pd.DataFrame(index=run.cpgs.index))
    columns = {}
    for setting, settings in SETTINGS.items():
        predicted = section.predicted[setting] = predict_looked_at(run, data, **settings)
        beta_NC = beta_of(predicted)
        flat_NC = checks.without(beta_NC, log_counts_N)
        varies_C = beta_NC.std(axis=0) > 1e-5
        cis_C = cis.predicted_relation(run, beta_NC, expression, log_counts_N)
        contrasts = section_contrasts(data, log_counts_N)
        shown_NC = np.where(varies_C, flat_NC, np.nan)
        own = {name: weight_N @ shown_NC for name, weight_N in contrasts.items()}
        column = {"gene_coverage": predicted.uns["methyl_lightning"]["gene_coverage"], "cpgs_varying": varies_C.sum()}
        column |= _variation(beta_NC[:, varies_C], log_counts_N)
        moran = checks.morans_i(beta_NC, checks.neighbours(data.obsm["spatial"]))
        flat_moran = checks.morans_i(flat_NC, checks.neighbours(data.obsm["spatial"]))
        null = null_morans_i(run, data, beta_NC[:, varies_C], settings)
        limit = np.nanquantile(null, 0.975)
        column |= {"moran": np.nanmedian(moran), "moran_without_molecules": np.nanmedian(flat_moran)}
        column |= {"moran_null": np.nanmedian(null), "moran_null_975": limit}
        column["moran_above_null"] = np.mean(flat_moran[varies_C] > limit)
        column |= _pseudobulk(run, bulk[settings["match"]], beta_NC)
        column |= {f"cis_{name}": value for name, value in cis.same_relation(cis_C, cohort_cis_C).items()}
        for name in sorted(own.keys() & directions.keys()):
            for part, part_C in (("seen", seen_C), ("unseen", ~seen_C)):
                compared = checks.agreement(own[name][part_C], directions[name][part_C])
                moved = checks.moved_r(contrasts[name], shown_NC[:, part_C], directions[name][part_C])
                compared["r_null_95"] = moved
                column |= {f"{name}_{part}_{key}": value for key, value in compared.items()}
        columns[setting] = column
        section.moran[setting], section.moran[f"{setting}, spots moved"] = moran, null
        if setting == MAIN:
            section.moran["without molecules"] = flat_moran
            for table, cohort, found in (
                (section.cis, cohort_cis_C, cis_C),
                (section.tumour, directions.get("tumour", np.nan), own.get("tumour", np.nan)),
            ):
                table["cohort"], table["section"], table["seen"] = cohort, found, seen_C
    return section, pd.DataFrame(columns)


def _variation(beta_NC: np.ndarray, log_counts_N: np.ndarray) -> dict[str, float]:
    """Say how predictions vary between spots, and how much of it goes with the number of molecules."""
    return {
        "mean_beta": beta_NC.mean(),
        "sd_between_spots": float(np.median(beta_NC.std(axis=0))),
        "share_at_0_or_1": ((beta_NC <= 0) | (beta_NC >= 1)).mean(),
        "r2_molecules": checks.explained(beta_NC.mean(axis=1), log_counts_N),
        "r2_molecules_cpg": float(np.median([checks.explained(beta_N, log_counts_N) for beta_N in beta_NC.T])),
        "one_number": checks.one_number_share(beta_NC),
    }


def _pseudobulk(run: Run, bulk_C: np.ndarray, beta_NC: np.ndarray) -> dict[str, float]:
    """Compare the whole section predicted at once with the mean of its spots, and with the cohort's means."""
    spots_C, measured_C = beta_NC.mean(axis=0), np.nanmean(run.beta_CS, axis=1)
    return {
        "pseudobulk_r": np.corrcoef(bulk_C, spots_C)[0, 1],
        "pseudobulk_mae": np.abs(bulk_C - spots_C).mean(),
        "pseudobulk_shift": (spots_C - bulk_C).mean(),
        "pseudobulk_cohort_r": np.corrcoef(bulk_C, measured_C)[0, 1],
        "pseudobulk_cohort_mae": np.abs(bulk_C - measured_C).mean(),
    }


def label_means(run: Run, section: Section) -> pd.DataFrame:
    """Return mean and standard deviation of subtype CpGs by label, over single spots."""
    chosen = run.subtype_cpgs()
    beta = section.predicted[MAIN].to_df()[chosen.index]
    rows = []
    for label, spots in section.data.obs.groupby(LABEL, observed=True).groups.items():
        for cpg, row in chosen.iterrows():
            own = {"run": run.name, "section": section.data.obs["section"].iloc[0], "label": label, "spots": len(spots)}
            own |= {"cpg": cpg, "gene": row["nearest_gene"], "part": row["part"]}
            rows.append(own | {"mean": beta.loc[spots, cpg].mean(), "sd": beta.loc[spots, cpg].std()})
    return pd.DataFrame(rows)
