"""Errors sorted by what the operator does next; each class carries the exit code that says so."""

from dataclasses import dataclass
from typing import ClassVar


class LearndError(Exception):
    """Base class of the errors that learnd raises on purpose. Messages name the value, the place and the way out."""

    exit_code: ClassVar[int] = 70


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in a configuration: its place, and what to do about it.

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
    """An invalid configuration. Way out: correct it. Lists every problem, not only the first."""

    exit_code = 78

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem("", p) if isinstance(p, str) else p for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class UsageError(LearndError):
    """An invalid command line. Way out: correct it."""

    exit_code = 64


class BadDataError(LearndError):
    """Records that cannot be learned from. Way out: correct the options that the messages name, or the records."""

    exit_code = 65


class BrokerUnavailableError(LearndError):
    """No connection to the broker, or it refuses service. Way out: bring it back, then restart; nothing was lost."""

    exit_code = 69


class DataDirLockedError(LearndError):
    """Another process uses this ``data_dir``. Way out: stop it, or choose another ``data_dir``."""

    exit_code = 75


class StateDamagedError(LearndError):
    """No readable checkpoint is left. Way out: restore one from a backup, or move ``data_dir`` away to start over."""


class DataLossError(LearndError):
    """A gap in the stream: the records that follow the checkpoint no longer exist."""


class UnreadableError(LearndError):
    """An unreadable record batch: damaged, too large, or compressed by a codec that is not installed.

    Way out: inspect the batch at the broker.
    """


class SaveFailedError(LearndError):
    """A failed checkpoint: the state is not durable, so no offsets were committed."""


class FileLostError(SaveFailedError):
    """A sink's file whose content since the last checkpoint is unknown. Way out: restart from that checkpoint."""


class ExportError(LearndError):
    """A failed export. Earlier exports stay published, and learning continues."""


class FormatUnavailableError(ExportError):
    """An export format that this model cannot have. The other formats are published without it."""


class VerificationError(ExportError):
    """The export is not published: it does not answer as the live model does."""


class ExportAbandonedError(ExportError):
    """Nothing to do: the export was ended on purpose, for a newer one or for the shutdown."""


class ExportWorkerError(ExportError):
    """The child process that builds an export ended without one; the message repeats its last words, or its signal."""


class ExportDamagedError(LearndError):
    """A damaged export. Way out: use the previous one, or copy it again. learnd publishes the next one as usual."""
