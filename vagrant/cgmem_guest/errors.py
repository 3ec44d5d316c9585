"""The errors of this package: something outside the guest's job went wrong."""

from __future__ import annotations


class GuestError(Exception):
    """A guest could not be built, booted or read; the message says what to do next."""


class GuestStoppedError(GuestError):
    """A guest was stopped because the user asked for it; there is nothing to look into."""


class KernelBrokeError(GuestError):
    """The guest's kernel broke before the job began, so nothing of the job can be the cause."""
