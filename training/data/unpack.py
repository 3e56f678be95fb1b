"""``hmr-ros data unpack``: compressed shards, as earlier versions wrote them, become files that memory maps can read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import track

from hmr_ros.training.data.shards import unpack


@dataclass(frozen=True)
class UnpackConfig:
    """Rewrite compressed shards without compression, in place: about five times as large, read from disk batch by batch."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of `hmr-ros extract` or `hmr-ros data rendered`."""


def main(argv: list[str]) -> int:
    config = tyro.cli(UnpackConfig, args=argv, prog="hmr-ros data unpack")
    missing = [str(folder) for folder in config.folders if not any(folder.glob("proxies-*.npz"))]
    if missing:
        raise ValueError(f"no proxies-*.npz in {', '.join(missing)}; name folders of `hmr-ros extract` or `hmr-ros data rendered`")
    console = Console(markup=False)
    for folder in track(config.folders, "unpacking", console=console):
        console.print(f"{folder}: {unpack(folder)} shards were compressed", highlight=False, soft_wrap=True)
    return 0
