"""Raw files, or a simulation, → store."""
