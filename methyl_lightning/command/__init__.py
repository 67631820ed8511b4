"""The door of every command: settings checked, a folder taken, errors in one line, processors shared."""
