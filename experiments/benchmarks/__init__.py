"""Speed, measured: ``make benchmark``, and accuracy against time."""
