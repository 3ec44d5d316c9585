"""The settings: from files, environment and arguments to one checked budget."""
