"""A network with the weights of a checkpoint, where the two fit: every other checkpoint is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from reprlib import repr as brief
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def with_weights(make: Callable[[], Network], tensors: dict[str, torch.Tensor], path: str | Path) -> Network:
    """``make()`` with ``tensors``, names → tensors of the checkpoint at ``path``.

    It is made without memory first, and its shapes are compared: options of a damaged file may ask for any amount. ValueError where
    names, shapes or types differ, or weights are not finite.
    """
    try:
        with torch.device("meta"):
            network = make()
        state = network.state_dict()
    except Exception as error:  # whatever a constructor stumbles over that is given text for a number
        raise ValueError(f"checkpoint {path} has options that describe no network ({type(error).__name__}: {error}); train it again") from error
    expected, found = _kinds(state), _kinds(tensors)
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ValueError(
            f"checkpoint {path} does not hold the weights of its network: {len(wrong)} differ, {brief(wrong[0])} has "
            f"{_in_words(found.get(wrong[0]))}, expected {_in_words(expected.get(wrong[0]))}; copy it again, or train it again"
        )
    damaged = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _finite(tensor)]
    if damaged:
        raise ValueError(f"checkpoint {path} has weights that are not finite, in {len(damaged)} tensors, the first {damaged[0]}; "
                         "its training diverged, or the file is damaged")  # fmt: skip
    held = {name for named in (network.named_parameters, network.named_buffers) for name, _ in named()}
    if held != state.keys() or any(isinstance(value, torch.Tensor) for module in network.modules() for value in vars(module).values()):
        network = make()  # it holds values that are no weights
    # Assigned, not copied into empty memory: making that of memory that is not there imports sympy, which takes half a second.
    network.load_state_dict({name: tensor.to(state[name].dtype, copy=True) for name, tensor in tensors.items()}, assign=True)
    return network


def _finite(tensor: torch.Tensor) -> bool:
    """The sum says so eight times faster, where it does not overflow."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def _kinds(tensors: dict[str, torch.Tensor]) -> dict[str, tuple]:
    return {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in tensors.items()}


def _in_words(kind: tuple | None) -> str:
    return f"{'floats' if kind[1] else 'integers'} {kind[0]}" if kind else "nothing"


def entry(metadata: dict, name: str, kind: type, path: str | Path):
    """``metadata[name]`` of the checkpoint at ``path``; ValueError where it is missing or of another kind."""
    value = metadata.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"checkpoint {path} has metadata with {name!r} = {brief(value)}, expected a JSON {_JSON[kind]}; copy it again, or "
                         "train it again")  # fmt: skip
    return value


_JSON = {dict: "object", int: "number", str: "string"}


def body_of(metadata: dict, path: str | Path) -> dict:
    """The body that a network was trained with, {"name", "sha256"}; ValueError where the metadata does not say so."""
    body = entry(metadata, "body", dict, path)
    for name in ("name", "sha256"):
        entry(body, name, str, path)
    return body

