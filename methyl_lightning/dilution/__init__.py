"""The dilution experiment: a trained module on expression as shallow as that of cells and spots."""
