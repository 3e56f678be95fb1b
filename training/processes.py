"""What the processes of a training run share: each prepares a part, all have the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:  # extraction reads and writes shards without it
    from lightning_fabric import Fabric

Value = TypeVar("Value")


def everyones(value: Value, fabric: Fabric | None) -> list[Value]:
    """The ``value`` of every process, in their order; to be called by all. Without a fabric, or with one process, it is the only one."""
    if fabric is None or fabric.world_size == 1:
        return [value]
    values: list = [None] * fabric.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def own_part(count: int, fabric: Fabric | None) -> range:
    """Which of ``count`` things in a row this process prepares; processes follow each other, and have one more or less."""
    if fabric is None:
        return range(count)
    rank, world = fabric.global_rank, fabric.world_size
    return range(rank * count // world, (rank + 1) * count // world)


def own_rows(fabric: Fabric) -> slice:
    """Which rows of a step this process learns from."""
    return slice(fabric.global_rank, None, fabric.world_size)
