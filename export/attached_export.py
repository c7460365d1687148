"""Export an attached model, which has no checkpoint."""

from __future__ import annotations

import copy
import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lloss.export.divergence_check import check_network
from lloss.export.export_model import replace_manifest, versions, write_checked
from lloss.export.graph import ScoringGraph, outputs_of
from numpy.typing import NDArray
from torch import nn

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError, ParityError, PoolError, SettingsError
from lloss.files import atomic_write
from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.modeling.attached_model import AttachedModel
from lloss.pools.in_memory_pool import pool_of

SAMPLE = 64
"""Images at most that an export is checked on."""


def to_onnx(model: AttachedModel, path: str | Path, *, sample: Any) -> Manifest:
    """Export network and head as one ONNX file, checked against torch before it gets its name.

    The file is a model like those of ``lloss export``: uint8 images in, ``loss``, the outputs
    of the task and ``embedding`` out. The model itself stays as it is.

    Args:
        model: from :func:`lloss.attach`, its head trained.
        path: of the file; only a file that passed replaces an existing one.
        sample: images to check on, some of those to score: a pool, a folder, or images as
            :meth:`lloss.Scorer.score` takes them. The first 64 are used.

    Raises:
        DivergedError: weights or outputs are not finite, or exploded.
        ParityError: the graph does not compute what the network does, or torch cannot export it.
        PoolError: no image of the sample can be read.
    """
    if not isinstance(model, AttachedModel):
        raise SettingsError(f"a {type(model).__name__}: give a model from lloss.attach")
    path, preparation = Path(path), model.preparation
    images = _sample(sample, preparation.image)
    # A copy: what is exported is changed in place. The objective may hold anything of the user's.
    copied = copy.deepcopy(model, {id(model.objective): model.objective})
    tapped = copied.cpu().float().eval().requires_grad_(False).tapped
    graph = ScoringGraph(tapped, preparation.mean, preparation.std).eval()
    name = type(model.network).__name__
    check_network(graph, images, "with a lower learning rate", name)
    manifest = Manifest(
        task=model.task,
        model=name,
        classes=model.classes,
        image=preparation.image,
        mean=preparation.mean,
        std=preparation.std,
        outputs=outputs_of(graph, (preparation.image.height, preparation.image.width)),
        provenance=_provenance(model),
    )
    with atomic_write(path) as aside:
        try:
            manifest = write_checked(graph, manifest, aside, images)
        except ParityError:
            raise
        except Exception as error:  # a network from outside may do what no graph can
            reason = next(filter(None, str(error).splitlines()), type(error).__name__)
            raise ParityError(
                f"{name}: torch cannot export the network ({reason}); its forward must not depend "
                "on the images' values"
            ) from error
        replace_manifest(aside, manifest)
    return manifest


def _sample(images: Any, spec: ImageSpec) -> NDArray[np.uint8]:
    pool = pool_of(images)
    found = (image for _, image in decoded(itertools.islice(pool, SAMPLE), spec))
    usable = [image for image in found if not isinstance(image, ImageError)]
    if not usable:
        raise PoolError(f"{pool.uri}: no image can be read; give images to check the export on")
    return np.stack(usable)


def _provenance(model: AttachedModel) -> dict[str, Any]:
    return {
        "checkpoint_sha256": state_sha256(model.tapped),
        "taps": [tap.module for tap in model.taps],
        "versions": versions(),
    }


def state_sha256(model: nn.Module) -> str:
    """Digest a state dict: the names, kinds, shapes and values of weights and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {list(array.shape)}".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
