"""From a trained network to a verified ONNX file."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lloss.export.automatic_precision import AUTO, AutomaticPrecision
from lloss.export.graph import cause, write_onnx
from lloss.export.pool_sample import ReferenceSample
from lloss.export.precision import Log, ReducedPrecision
from lloss.export.speed_check import speed_without
from lloss.export.torch_parity import check_network, check_parity
from lloss.export.trained_network import TrainedNetwork, of_checkpoint, of_model
from numpy.typing import NDArray

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError, LlossError, ParityError, PoolError, SettingsError
from lloss.files import atomic_write
from lloss.images.decode import ImageSpec
from lloss.manifest import KEY, PRECISIONS, PRETRAINED_EMBEDDING, Manifest
from lloss.modeling.attached_model import AttachedModel, refuse_unattached
from lloss.pools.in_memory_pool import pool_of
from lloss.statistics.loss_unit import LossUnit
from lloss.training.checkpoint import Checkpoint

SAMPLE = 64
"""Images at most that the export of an attached model is checked on."""

Reduction = ReducedPrecision | AutomaticPrecision


def export_onnx(
    trained: Checkpoint | TrainedNetwork,
    path: Path,
    reduction: Reduction | None = None,
    log: Log = lambda _: None,
    reference: ReferenceSample | None = None,
) -> Manifest:
    """Export network and head as one ONNX file, checked against torch before it gets its name.

    Args:
        trained: the checkpoint of a run with a head, or another trained network.
        path: of the file; only a file that passed replaces an existing one.
        reduction: a precision below fp32, which is then compared with the checked fp32 graph.
        log: receives a line on the loss's unit, on each attempt at a reduced precision, and on the
            judgement.
        reference: images whose predicted losses go into the manifest, to measure drift against;
            by default those that a reduction was judged on.

    Raises:
        DivergedError: the network's weights or outputs are not finite, or exploded.
        ParityError: torch cannot export the network, or the graph does not compute what the
            network does; nothing is written.
        FidelityError: the reduced precision ranks images differently; nothing is written.
        CheckpointError: the checkpoint cannot be exported.
        PoolError: the pool of the reduction or of the reference is too small.
    """
    if isinstance(trained, Checkpoint):
        trained = of_checkpoint(trained)
    if reduction:
        reduction.prepare()
    graph = trained.graph()
    with atomic_write(path) as aside:
        with _reported(trained):
            check_network(graph, trained.sample, trained.remedy, trained.where)
            manifest = trained.manifest(graph)
            write_onnx(graph, manifest, aside)
            fidelity = check_parity(aside, graph, trained.sample)
        manifest = dataclasses.replace(manifest, fidelity=fidelity)
        log(f"loss: {trained.unit}")
        if PRETRAINED_EMBEDDING in manifest.outputs:
            times = speed_without(PRETRAINED_EMBEDDING, aside, manifest, trained.sample)
            log(f"{PRETRAINED_EMBEDDING}: without it scoring on this CPU is {times:.2g}× as fast")
        if reduction:
            manifest = reduction.run(aside, manifest, trained, log)
        if reference:
            measured = reference.measure(aside, manifest.image)
            manifest = dataclasses.replace(manifest, reference=measured or manifest.reference)
        _replace_manifest(aside, manifest)
    return manifest


def to_onnx(
    model: AttachedModel,
    path: str | Path,
    *,
    sample: Any = None,
    precision: str = "fp32",
    pool: Any = None,
    reference: Any = None,
    unit: LossUnit | None = None,
    say: Log = print,
    **reduction: Any,
) -> Manifest:
    """Export network and head as one ONNX file, checked against torch before it gets its name.

    The file is a model like those of ``lloss export``: uint8 images in, ``loss``, the outputs
    of the task and ``embedding`` out. The model itself stays as it is.

    Args:
        model: from :func:`lloss.attach`, its head trained.
        path: of the file; only a file that passed replaces an existing one.
        sample: images to check on, some of those to score: a pool, a folder, or images as
            :meth:`lloss.Scorer.score` takes them. The first 64 are used; by default of ``pool``.
        precision: ``fp32``; ``fp16`` for GPUs, ``int8`` for CPUs; ``auto`` for what is faster on
            this machine, fp32 where that is not faithful.
        pool: images to compare a precision below fp32 on, 200 at least, for ``int8`` over 400.
        reference: images whose predicted losses the file keeps, to measure drift against; 200 at
            least. By default those that a precision below fp32 was compared on.
        unit: in which the output ``loss`` is given; by default :attr:`.AttachedModel.unit`. That of
            :func:`lloss.evaluate` is for a head that was trained otherwise than by ``fit_head``.
        say: receives a line on the loss's unit, on each attempt at a precision below fp32, and on
            the judgement.
        reduction: other fields of :class:`.ReducedPrecision`, such as ``limits`` or ``held_out``.

    Raises:
        DivergedError: weights or outputs are not finite, or exploded.
        ParityError: the graph does not compute what the network does, or torch cannot export it.
        FidelityError: the reduced precision does not rank images as fp32 does.
        PoolError: no image of the sample can be read, or a pool is too small.
        SettingsError: an unknown precision, or one below fp32 without ``pool``.
    """
    refuse_unattached(model)
    reduced = make_reduction(precision, pool, **reduction)
    if sample is None and pool is None:
        raise SettingsError("sample: give images to check the export on, such as the pool to score")
    images = _first(pool if sample is None else sample, model.preparation.image)
    kept = None if reference is None else ReferenceSample(pool=pool_of(reference))
    return export_onnx(of_model(model, images, unit), Path(path), reduced, say, kept)


def make_reduction(precision: str, pool: Any, **options: Any) -> Reduction | None:
    """Make the reduction to a precision, or to ``auto``; None for fp32, which needs no ``pool``.

    ``options`` are fields of :class:`.ReducedPrecision` or :class:`.AutomaticPrecision`.
    """
    if precision == "fp32":
        return None
    if precision not in (*PRECISIONS, AUTO):
        choices = ", ".join((*PRECISIONS, AUTO))
        raise SettingsError(f"precision = {precision!r}: choose one of {choices}")
    if pool is None:
        raise SettingsError(
            f"precision = {precision!r}: is compared with fp32 on images; give some as pool"
        )
    if precision == AUTO:
        return AutomaticPrecision(pool=pool_of(pool), **options)
    return ReducedPrecision(precision=precision, pool=pool_of(pool), **options)


def _first(images: Any, spec: ImageSpec) -> NDArray[np.uint8]:
    pool = pool_of(images)
    found = (image for _, image in decoded(itertools.islice(pool, SAMPLE), spec))
    usable = [image for image in found if not isinstance(image, ImageError)]
    if not usable:
        raise PoolError(f"{pool.uri}: no image can be read; give images to check the export on")
    return np.stack(usable)


@contextlib.contextmanager
def _reported(trained: TrainedNetwork) -> Iterator[None]:
    """Report in one line what a network from outside raises: it may do what no graph can."""
    try:
        yield
    except (LlossError, OSError):
        raise
    except Exception as error:
        raise ParityError(
            f"{trained.where}: torch cannot export the network ({cause(error)}); its forward must "
            "not depend on the images' values or on their number"
        ) from error


def _replace_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest with all measurements into the measured file."""
    model = onnx.load(str(path), load_external_data=False)
    del model.metadata_props[:]  # onnxruntime's tools leave notes there
    model.metadata_props.add(key=KEY, value=manifest.to_json())
    onnx.save(model, str(path))
