"""What is left of a prediction when expression is as thin as in a single cell."""
