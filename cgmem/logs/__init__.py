"""The spec's three log files: where they are, what their lines say, how they are written."""
