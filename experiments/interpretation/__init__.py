"""How far interpretations can be trusted: methods against what was planted, and models of real cohorts."""
