"""Genome assemblies: their names, and what tells one from another."""

import re
from collections.abc import Mapping

from methyl_lightning.files import InputError

SAME = {"GRCh37": "hg19", "GRCh38": "hg38", "NCBI36": "hg18", "GRCm38": "mm10", "GRCm39": "mm39"}
NAMED = re.compile("|".join(sorted({*SAME, *SAME.values()})))
HUMAN, MOUSE = "human", "mouse"
SPECIES = {"GRCh": HUMAN, "hg": HUMAN, "NCBI": HUMAN, "GRCm": MOUSE, "mm": MOUSE}
# lengths of chromosomes by which a whole genome is told from another
LENGTHS = {
    "hg19": {"chr1": 249_250_621, "chr22": 51_304_566, "chrX": 155_270_560},
    "hg38": {"chr1": 248_956_422, "chr22": 50_818_468, "chrX": 156_040_895},
    "mm10": {"chr1": 195_471_971, "chrX": 171_031_299},
    "mm39": {"chr1": 195_154_279, "chrX": 169_476_592},
}


def assembly_name(text: str) -> str:
    """Name an assembly as UCSC does, wherever in a text it stands (GRCh38.p13 → hg38); another text stays."""
    named = NAMED.search(text)
    return SAME.get(named[0], named[0]) if named else text


def species_of(assembly: str) -> str:
    """Name the species of an assembly; "" if unknown."""
    if assembly.lower() in (HUMAN, MOUSE):
        return assembly.lower()
    return next((species for start, species in SPECIES.items() if re.match(rf"{start}\d", assembly)), "")


def refuse_assembly(source: object, lengths: Mapping[str, int], assembly: str, of: str) -> None:
    """Refuse a genome whose chromosomes are as long as those of another assembly.

    Parameters
    ----------
    source
        What the genome is called in the message.
    lengths
        Bases of its chromosomes.
    assembly, of
        The assembly that is wanted, and why, such as ``the checkpoint was trained on``.
    """
    wanted = assembly_name(assembly)
    for other, known in LENGTHS.items():
        for chrom, length in known.items():
            if wanted in LENGTHS and other != wanted and lengths.get(chrom) == length:
                raise InputError(
                    f"{source}: is {other} by the length of {chrom}, {of} {assembly}; "
                    f"give the FASTA of {assembly}, and positions on it"
                )
