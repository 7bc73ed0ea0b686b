"""Every exception of this package, in one tree.

    LezeaError
    ├── ConfigurationError (ValueError)   a constructor argument or a setting is wrong
    ├── MissingDependencyError (ImportError)   an optional library is not installed
    ├── JournalError                      the local journal could not be written or read
    │   ├── NotSyncedError                a record is in the file, and may not survive a power loss
    │   ├── LineTooLongError              a record has to become shorter first
    │   └── JournalBusyError              another live process is this writer of this run
    └── BackendUnreachableError           ``start(strict=True)`` could not reach a configured backend

What a sink says (``Unavailable``, ``Rejected``) lives with the sinks' contract in ``sinks.base``.
"""

from __future__ import annotations


class LezeaError(Exception):
    """Root of the errors that this package raises."""


class ConfigurationError(LezeaError, ValueError):
    """A constructor argument or a setting is wrong; the message names it, its value and the way out."""


class MissingDependencyError(LezeaError, ImportError):
    """An optional library is needed here and not installed."""


class JournalError(LezeaError):
    """The local journal could not be written or read."""


class NotSyncedError(JournalError):
    """A record is in the file, and could not be fsynced."""


class LineTooLongError(JournalError):
    """A record is longer than a line may be; large values belong into blobs."""


class JournalBusyError(JournalError):
    """Another live process already writes this journal file."""


class BackendUnreachableError(LezeaError):
    """A configured backend could not be reached while ``strict`` asked for it."""
