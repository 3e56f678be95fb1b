"""What became of an input: how much it promised, how much was read, what was skipped and why. One record for every command.

Exit codes follow from it: 0 everything was read, 1 something was lost or skipped (and everything else was made), 2 nothing was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 5  # names in the one line; the JSON has all


@dataclass
class ReadReport:
    """``promised`` and ``read`` count ``unit``s: pictures, frames, messages.

    ``promised``: how many the containers and folders name; None where a container does not tell. ``skipped``: media that were not read
    → reason. ``damaged``: read, but the decoder found errors in them. ``ignored``: files that hold no medium, which is no loss. ``notes``: what was assumed or left out, such as the bit depth
    of a 16-bit picture.
    """

    unit: str = "pictures"
    promised: int | None = 0
    read: int = 0
    damaged: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """How many units of those promised are missing, as far as that is known."""
        return 0 if self.promised is None else max(self.promised - self.read, 0)

    @property
    def exit_code(self) -> int:
        if not self.read:
            return 2
        return 1 if self.lost or self.damaged or self.skipped else 0

    def skip(self, name: str | Path, reason: str | Exception) -> None:
        """``reason`` may begin with the path of ``name``, as errors do; it is not said twice."""
        self.skipped[printable(name)] = str(reason).rpartition(f"{printable(Path(name).name)} ")[2]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def add(self, other: ReadReport) -> None:
        """The report of one more input; what is promised is unknown as soon as one does not know."""
        self.promised = None if self.promised is None or other.promised is None else self.promised + other.promised
        self.read += other.read
        self.damaged += other.damaged
        self.skipped |= other.skipped
        self.ignored += other.ignored
        for text in other.notes:
            self.note(text)

    def line(self) -> str:
        """One line for a person: "25 of 30 frames read, 1 skipped: a.heic (HEIC is not supported)"."""
        promised = "an unknown number of" if self.promised is None else self.promised
        text = f"{self.read} of {promised} {self.unit} read"
        if self.damaged:
            text += f" ({self.damaged} damaged)"
        if self.skipped:
            named = [f"{name} ({reason})" for name, reason in self.skipped.items()]
            text += f", {len(named)} skipped: {_shortened(named, '; ')}"
        if self.ignored:
            text += f", {len(self.ignored)} other files: {_shortened(self.ignored, ', ')}"
        return "; ".join([text, *self.notes])

    def as_json(self) -> dict:
        return {
            "unit": self.unit, "promised": self.promised, "read": self.read, "lost": self.lost, "damaged": self.damaged, "skipped": self.skipped,
            "ignored": self.ignored, "notes": self.notes, "exit_code": self.exit_code, "line": self.line(),
        }  # fmt: skip


def printable(name: str | Path) -> str:
    """A file's name for people and JSON: bytes that are not UTF-8 and control characters as escapes (``caf\\xe9.jpg``)."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _shortened(names: list[str], separator: str) -> str:
    return separator.join(names[:SHOWN]) + (f"{separator}..." if len(names) > SHOWN else "")
