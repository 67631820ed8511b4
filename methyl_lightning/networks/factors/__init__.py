"""Methylation factors: deviations from the CpGs' means as a few factors of samples times loadings of CpGs."""
