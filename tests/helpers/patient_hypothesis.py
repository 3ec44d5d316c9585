"""Hypothesis without deadlines, for whoever imports this: a loaded machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
