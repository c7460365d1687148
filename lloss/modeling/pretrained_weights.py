"""State dicts as a start for a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Read a file of names and tensors; another file is a ``SettingsError``."""
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise SettingsError(f"weights {path}: no such file") from error
    except Exception as error:  # unpickling fails in many ways
        raise SettingsError(f"weights {path}: not a readable state dict") from error
    if not (isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())):
        raise SettingsError(f"weights {path}: not a state dict (names and tensors)")
    return state


def start_from(
    network: nn.Module,
    state: Mapping[str, Tensor],
    weights: str,
    name: str,
    fresh: Collection[str],
) -> None:
    """Take over a state dict; only the ``fresh`` layers may be missing or of another shape.

    ``weights`` and ``name`` are those of file and network, for the ``SettingsError``.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    differing = {key.rpartition(".")[0] for key in own.keys() - fitting.keys()}
    if bad := sorted(differing - set(fresh)):
        raise SettingsError(
            f"weights {weights}: do not fit {name} (they differ in {len(differing)} layers, "
            f"{bad[0]!r} among them)"
        )
    network.load_state_dict(fitting, strict=False)
