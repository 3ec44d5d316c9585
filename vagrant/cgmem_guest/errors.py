"""The one error of this package: something outside the guest's job went wrong."""

from __future__ import annotations


class GuestError(Exception):
    """A guest could not be built, booted or read; the message says what to do next."""
