"""Which genes and which motifs a trained network goes by, and how far to trust that."""
