"""Errors sorted by what the operator does next; each class carries the exit code that says so."""

from dataclasses import dataclass
from typing import ClassVar


class LearndError(Exception):
    """Every error that learnd raises on purpose. The message names the value, the place and the way out."""

    exit_code: ClassVar[int] = 70


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration: where it stands and what to do about it.

    >>> print(Problem(path="averaging.size", message="must be at least 1", file="a.yaml", line=7))
    a.yaml:7: averaging.size: must be at least 1
    """

    path: str
    message: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.line else (f"{self.file}: " if self.file else "")
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class ConfigError(LearndError):
    """Fix the configuration: holds every problem that was found, not only the first."""

    exit_code = 78

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem("", p) if isinstance(p, str) else p for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UsageError(LearndError):
    """Fix the command line."""

    exit_code = 64


class BrokerUnavailableError(LearndError):
    """Bring the broker back, then start again; nothing was lost."""

    exit_code = 69


class DataDirLockedError(LearndError):
    """Stop the other learnd that owns this ``data_dir``."""

    exit_code = 75


class StateDamagedError(LearndError):
    """Every checkpoint is unreadable; restore one from a backup, or move ``data_dir`` away to start afresh."""


class DataLossError(LearndError):
    """The stream no longer holds the records that the checkpoint wants next."""


class UnreadableError(LearndError):
    """Look at the record batch that the broker holds: it is damaged, too large, or of a codec that is not installed."""


class SaveFailedError(LearndError):
    """The state could not be made durable; offsets were not committed."""


class FileLostError(SaveFailedError):
    """What a file holds since the last checkpoint is not known any more; a restart takes it up from there."""


class ExportError(LearndError):
    """A format cannot be written for this model; what was published before stays, and learning goes on."""


class FormatUnavailableError(ExportError):
    """This model has no such format, for a reason that lies in the model; the other formats are published without."""


class VerificationError(ExportError):
    """The export is not published: it does not answer as the live model does."""


class ExportAbandonedError(ExportError):
    """Nothing to do: the export was ended on purpose, for a newer one or for the shutdown."""


class ExportWorkerError(ExportError):
    """The child process that builds an export ended without one; the message repeats its last words, or its signal."""


class ExportDamagedError(LearndError):
    """Do not use that export: take the one before, or copy it anew; learnd publishes the next one as always."""
