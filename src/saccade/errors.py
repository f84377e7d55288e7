"""What can go wrong because of the user's input or machine, with the exit code of each kind.

Messages are one paragraph: what is wrong, where (file, line, sample id), what to do. Anything else that is raised is a defect of ours (exit 1).
"""
from __future__ import annotations


class SaccadeError(Exception):
    """The root of the errors that are meant for the user; shown as one paragraph without a traceback."""

    exit_code = 2


class InputError(SaccadeError):
    """A recipe, an argument or a file name that cannot be used as given."""

    exit_code = 2


class DataError(SaccadeError):
    """Images or annotations that are missing, broken or contradict each other."""

    exit_code = 3


class NumericError(SaccadeError):
    """A loss, gradient or cost that is not finite."""

    exit_code = 4


class StorageError(SaccadeError):
    """A disk that is full, or files that can't be read or written."""

    exit_code = 5
