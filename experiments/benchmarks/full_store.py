"""A store of any size with random contents, written in pieces: for timing, not for training.

Legend: C CpGs, S samples, G genes, L bases.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from methyl_lightning.data.checks import CPG_COLUMNS, DATASETS, GENE_COLUMNS, SAMPLE_COLUMNS, SCHEMA_VERSION
from methyl_lightning.data.sealed import sealed_hdf5
from methyl_lightning.data.store import ANNOTATION

WINDOW, GENES_EACH, ROWS = 800, 6, 20_000
TEXT = h5py.string_dtype()


def write_random_store(path: Path, n_cpgs: int, n_samples: int, n_genes: int) -> None:
    """Write every array of the schema without holding one in memory; 6 genes within ±20 kb of each CpG."""
    rng = np.random.default_rng(0)
    tables = {
        "cpgs": (n_cpgs, CPG_COLUMNS, {"id": "cg{:08d}", "chrom": "chr1", "island": ""}),
        "genes": (n_genes, GENE_COLUMNS, {"symbol": "G{}", "id": "G{}", "chrom": "chr1", "strand": "+"}),
        "samples": (n_samples, SAMPLE_COLUMNS, dict.fromkeys(SAMPLE_COLUMNS, "S{:05d}")),
    }
    shapes = {
        "cpgs/sequence": (n_cpgs, WINDOW),
        "cpgs/annotation": (n_cpgs, len(ANNOTATION)),
        "distances/indptr": (n_cpgs + 1,),
        "distances/gene": (n_cpgs * GENES_EACH,),
        "distances/bp": (n_cpgs * GENES_EACH,),
        "expression": (n_samples, n_genes),
        "beta": (n_cpgs, n_samples),
    }

    def describe(file: h5py.File) -> None:
        for name, (n_rows, columns, patterns) in tables.items():
            for column, kind in columns.items():
                if kind is str:
                    values = [patterns[column].format(row) for row in range(n_rows)]
                    file.create_dataset(f"{name}/{column}", data=values, dtype=TEXT)
                else:
                    file[f"{name}/{column}"] = np.arange(n_rows, dtype=np.int64) * 1000
        for name, shape in shapes.items():
            file.create_dataset(name, shape, DATASETS[name][0])
        file["expression"].attrs["units"] = "log2(norm+1)"
        provenance = json.dumps({"source": "random numbers", "settings": {}})
        file.attrs.update(schema_version=SCHEMA_VERSION, assembly="hg19", window=WINDOW, provenance=provenance)

    with sealed_hdf5(path, describe) as file:
        file["cpgs/annotation"][...] = np.full((n_cpgs, len(ANNOTATION)), np.nan, dtype=np.float32)
        file["distances/indptr"][...] = np.arange(n_cpgs + 1) * GENES_EACH
        file["distances/gene"][...] = rng.integers(n_genes, size=n_cpgs * GENES_EACH, dtype=np.int32)
        file["distances/bp"][...] = rng.integers(-20_000, 20_000, size=n_cpgs * GENES_EACH, dtype=np.int32)
        for start in range(0, n_cpgs, ROWS):
            rows = slice(start, min(start + ROWS, n_cpgs))
            size = rows.stop - start
            file["cpgs/sequence"][rows] = rng.integers(4, size=(size, WINDOW), dtype=np.uint8)
            file["beta"][rows] = rng.integers(10_001, size=(size, n_samples), dtype=np.uint16)
        file["expression"][...] = rng.random((n_samples, n_genes), dtype=np.float32) * 16
        file.attrs["complete"] = True
