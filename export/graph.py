"""The network that is exported: uint8 images in, all scores out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lloss.errors import CheckpointError
from lloss.manifest import EMBEDDING, INPUT, KEY, PRETRAINED_EMBEDDING, Manifest
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.statistics.loss_unit import EXPONENT, IN_NO_UNIT, LossUnit

OPSET = 20


class ScoringGraph(nn.Module):
    """Normalisation, network, head and the task's free outputs as one module.

    Args:
        model: a network with a head, in eval mode.
        mean: see :class:`lloss.modeling.network.Normalize`.
        std: likewise.
        half: compute the network in float16; pooling, head and outputs stay float32. ``model`` is
            changed in place.
        unit: how what the head gives becomes the output ``loss``; by default positive, in no unit.

    Raises:
        CheckpointError: the network has no head, so that it predicts no loss.
    """

    def __init__(
        self,
        model: TappedNetwork,
        mean: Sequence[float],
        std: Sequence[float],
        half: bool = False,
        unit: LossUnit = IN_NO_UNIT,
    ) -> None:
        super().__init__()
        if model.head is None:
            raise CheckpointError(
                "the run was trained without a head (--no-head): it predicts no loss to export"
            )
        self.normalize = Normalize(mean, std)
        self.model = model
        self.unit = unit
        self.half_network = half
        networks = [model, *([model.pretrained] if model.pretrained else [])]
        for one in networks:
            _simplify_pooling(one.network)
            if half:
                one.network.half()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The values of :meth:`outputs`, each float32 [N, ...]."""
        return tuple(self.outputs(images).values())

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, of uint8 [N, H, W, 3]."""
        normalized = self.normalize(images)
        inputs = normalized.half() if self.half_network else normalized
        forward = self.model(inputs)
        free = self.model.objective.outputs(forward.output)
        values = {"loss": self._in_unit(forward.loss), **free, EMBEDDING: forward.embedding}
        if self.model.pretrained is not None:
            values[PRETRAINED_EMBEDDING] = self.model.pretrained(inputs).embedding
        return values

    def _in_unit(self, scores: Tensor) -> Tensor:
        """Losses of scores, float32 [N] each: :meth:`.LossUnit.losses`."""
        # Adding first keeps what a large a and b of opposite signs would cancel.
        x = self.unit.a * (scores + self.unit.b / self.unit.a)
        inside = x.clamp(-EXPONENT, EXPONENT).exp()
        return inside * (1 + (x - EXPONENT).relu()) / (1 + (-EXPONENT - x).relu())


class GlobalAveragePool(nn.Module):
    """Mean over H and W, both kept as 1."""

    def forward(self, maps: Tensor) -> Tensor:
        """float [N, C, H, W] to [N, C, 1, 1]."""
        return maps.mean((2, 3), keepdim=True)


def _simplify_pooling(network: nn.Module) -> None:
    """Replace adaptive pooling to one position, in place, by a mean.

    The exporter turns the former into a strided view: ten nodes of index arithmetic on N, which
    stay off the accelerator. A module with hooks is left alone: a tap reads it.
    """
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            pools = isinstance(module, nn.AdaptiveAvgPool2d) and not module._forward_hooks
            if pools and module.output_size in (1, (1, 1)):
                setattr(parent, name, GlobalAveragePool())


def outputs_of(graph: ScoringGraph, image: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Name and shape after N of each output."""
    with torch.no_grad():
        outputs = graph.outputs(torch.zeros(2, *image, 3, dtype=torch.uint8))
    return {name: tuple(value.shape[1:]) for name, value in outputs.items()}


def write_onnx(graph: ScoringGraph, manifest: Manifest, path: Path) -> None:
    """Write the graph with its manifest as one self-contained file."""
    height, width = manifest.image.height, manifest.image.width
    # The exporter would take an example batch of 1 for a constant.
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    # Of a network that no graph can be made of, torch prints the half that it has.
    printed = contextlib.redirect_stderr(io.StringIO())
    with quiet("torch.onnx", "torch.export", "torch.fx", "onnxscript"), printed:
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(manifest.outputs),
            dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
        )
        assert program is not None, "dynamo=True returns a program"
        program.model.metadata_props[KEY] = manifest.to_json()
        program.save(str(path), external_data=False)


def cause(error: BaseException) -> str:
    """The first line of what an error began with; torch wraps pages of advice around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Silence warnings, and some loggers: what matters is raised."""
    levels = [(logger, logger.level) for logger in map(logging.getLogger, names)]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
