"""What the readers of published datasets hand on: one picture (``Frame``), one annotated person (``Record``), and what one
pass over a dataset gave, the unreadable included (``Reading``). A reader knows its own format and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Frame(NamedTuple):
    """One picture: an image file, or frame ``index`` of the video ``path``."""

    name: str
    """Unique within its dataset and the same in every run: the key in shards."""
    path: Path
    index: int = 0
