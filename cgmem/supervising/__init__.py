"""Subprocesses from their start to their outcome: one supervisor, one poller thread."""
