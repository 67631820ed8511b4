"""Write two cohorts in UCSC Xena's layout, of any size, as they would be downloaded: text, gzip, FASTA.

``python -m experiments.benchmarks.write_cohort FOLDER --scale 0.1`` writes a tenth of the full size, which is that of
the published work: 485,512 CpGs × (873 + 477) samples, 20,000 genes, a genome with one CpG of the array in 6,400 bases.
CpGs, genes and genome are scaled, samples are not. Values are rows of one small simulated cohort, each with its own
jitter, so their distribution, missing share and number of digits are those of the simulator and cost little to draw.

Legend: C CpGs, G genes, S samples, R rows of a block, W bytes of a cell.
"""

import argparse
import gzip
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from methyl_lightning.data.store import BETA_MISSING, Store
from methyl_lightning.prepare.simulated import simulate

COHORTS = {"BRCA": 873, "LUAD": 477}
N_CPGS, N_GENES, BASES_A_CPG, N_CHROMOSOMES = 485_512, 20_000, 6_400, 24
LINE = 60  # bases a line of the FASTA
BLOCK = 2_000  # rows in memory
JITTER = 40  # steps of 1e-4


def cell_texts(n_steps: int, decimals: int) -> np.ndarray:
    """List the text of every step, with a tab before it and zero bytes after it (uint8 [steps + 1, W]; last is NA)."""
    texts = [f"\t{step / 10**decimals:.{decimals}f}" for step in range(n_steps)] + ["\tNA"]
    width = max(map(len, texts))
    return np.frombuffer("".join(text.ljust(width, "\0") for text in texts).encode(), dtype=np.uint8).reshape(-1, width)


def lines(names: list[str], text_RSW: np.ndarray) -> bytes:
    """Join names and cells to lines."""
    return b"".join(
        name.encode() + row_SW.tobytes().replace(b"\0", b"") + b"\n"
        for name, row_SW in zip(names, text_RSW, strict=True)
    )


def jittered(
    rng: np.random.Generator, source_RS: np.ndarray, names: list[str]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Draw rows of the source for the names, block by block, each cell moved by up to ``JITTER`` steps."""
    for start in range(0, len(names), BLOCK):
        block = names[start : start + BLOCK]
        drawn_RS = source_RS[rng.integers(0, len(source_RS), len(block))].astype(np.int32)
        yield block, drawn_RS + rng.integers(-JITTER, JITTER + 1, drawn_RS.shape, dtype=np.int32)


def write_matrix(
    folder: Path, file: str, rows: Iterator[tuple[list[str], np.ndarray]], barcodes: list[str], texts_W: np.ndarray
) -> None:
    """Write one matrix of all samples as one file a cohort."""
    bounds = np.cumsum([0, *COHORTS.values()])
    with ExitStack() as stack:
        outputs = []
        for cohort, start, stop in zip(COHORTS, bounds[:-1], bounds[1:], strict=True):
            (folder / cohort).mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(gzip.open(folder / cohort / file, "wb", compresslevel=1))
            output.write("\t".join(["sample", *barcodes[start:stop]]).encode() + b"\n")
            outputs.append((output, start, stop))
        for names, step_RS in rows:
            for output, start, stop in outputs:
                output.write(lines(names, texts_W[step_RS[:, start:stop]]))


def write_genome(
    path: Path, rng: np.random.Generator, length: int, position_C: np.ndarray, chrom_C: np.ndarray
) -> None:
    """Write a random genome with a CG at every position."""
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    with path.open("wb") as file:
        for chrom in range(N_CHROMOSOMES):
            bases = letters[rng.integers(0, 4, length, dtype=np.uint8)]
            at = position_C[chrom_C == chrom]
            bases[at], bases[at + 1] = letters[1], letters[2]
            file.write(f">chr{chrom + 1}\n".encode())
            text = np.full((length // LINE, LINE + 1), ord("\n"), dtype=np.uint8)
            text[:, :LINE] = bases.reshape(-1, LINE)
            file.write(text.tobytes())


def write_cohort(folder: Path, scale: float) -> None:
    """Write methylation and expression of two cohorts, the probe map, the genes and the genome."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    n_cpgs, n_genes, n_samples = round(scale * N_CPGS), round(scale * N_GENES), sum(COHORTS.values())
    with TemporaryDirectory() as temporary:
        simulate(Path(temporary, "small.h5"), n_cpgs=1000, n_patients=n_samples, n_genes=1000, window=40)
        small = Store(Path(temporary, "small.h5"))
        beta_CS = np.array(small.beta_steps_CS[:, :n_samples]).astype(np.int32)
        expression_GS = small.expression_SG[:n_samples].T.copy()
    barcodes = [f"TCGA-{s // 10_000:02d}-{s % 10_000:04d}-01" for s in range(n_samples)]

    length = LINE * round(n_cpgs * BASES_A_CPG / N_CHROMOSOMES / LINE)
    spot_C = np.sort(rng.choice(N_CHROMOSOMES * (length - 2_000) // 2, n_cpgs, replace=False)) * 2
    chrom_C, position_C = spot_C // (length - 2_000), 1_000 + spot_C % (length - 2_000)
    order_C = rng.permutation(n_cpgs)  # probes are sorted by name, not by position
    with (folder / "probeMap.tsv").open("w") as file:
        file.write("#id\tgene\tchrom\tchromStart\tchromEnd\tstrand\n")
        for c, row in enumerate(order_C):
            base = position_C[row] + 1
            file.write(f"cg{c:08d}\t.\tchr{chrom_C[row] + 1}\t{base}\t{base + 1}\t.\n")
    start_G = rng.integers(1, length, n_genes)
    with gzip.open(folder / "genes.tsv.gz", "wt") as file:
        file.write("symbol\tchr\tstart\tend\tstrand\n")
        for g, start in enumerate(start_G):
            end, strand = start + rng.integers(500, 100_000), "+-"[rng.integers(2)]
            file.write(f"GENE{g:05d}\tchr{rng.integers(N_CHROMOSOMES) + 1}\t{start}\t{end}\t{strand}\n")
    write_genome(folder / "genome.fa", rng, length, position_C, chrom_C)

    texts_W = cell_texts(10_001, 4)
    is_missing_CS = beta_CS == BETA_MISSING
    source_CS = np.where(is_missing_CS, 10**6, np.clip(beta_CS, JITTER, 10_000 - JITTER))
    cpgs = [f"cg{c:08d}" for c in range(n_cpgs)]
    rows = ((names, np.minimum(step_RS, 10_001)) for names, step_RS in jittered(rng, source_CS, cpgs))
    write_matrix(folder, "HumanMethylation450.gz", rows, barcodes, texts_W)
    source_GS = np.rint(expression_GS * 1_000).astype(np.int32) + JITTER
    genes = [f"GENE{g:05d}" for g in range(n_genes)]
    texts_W = cell_texts(source_GS.max() + JITTER + 1, 3)
    write_matrix(folder, "HiSeqV2.gz", jittered(rng, source_GS, genes), barcodes, texts_W)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    write_cohort(arguments.folder, arguments.scale)
