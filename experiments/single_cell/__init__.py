"""Single cells whose methylation was measured: what their expression tells of it."""
