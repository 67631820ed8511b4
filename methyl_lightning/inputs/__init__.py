"""Expression, genes and CpGs as people have them → what a checkpoint predicts from."""
