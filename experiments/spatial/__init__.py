"""What models trained on bulk tumours predict for sections and cells, and what can be checked of it."""
