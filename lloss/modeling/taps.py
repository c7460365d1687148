"""Where the head reads a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError

Layout = Literal["NCHW", "NHWC", "NTC"]

MAX_TAPS = 4
"""The paper taps four stages of its classifier; deeper maps carry more of what decides the loss."""


@dataclass(frozen=True, slots=True)
class Tap:
    """One tapped module: its dotted name, its output's layout and number of channels."""

    module: str
    layout: Layout
    channels: int

    def pool(self, output: Tensor) -> Tensor:
        """Average a feature map over its positions: float [N, channels], in float32."""
        over = {"NCHW": (2, 3), "NHWC": (1, 2), "NTC": (1,)}[self.layout]
        return output.float().mean(over)


def find_taps(
    network: nn.Module, image: tuple[int, int], names: Sequence[str] = ()
) -> tuple[Tap, ...]:
    """Choose the modules to tap, by running the network once on images of ``image`` H and W.

    Without ``names``: the last feature map of each resolution, the four deepest, taken from the
    outermost level of modules that has them (a network's stages, not the layers inside a block);
    for a network of token maps (a vision transformer), the last block of each quarter of its depth.
    Raises ``SettingsError`` for a name that is not a module with a feature map.
    """
    try:
        maps = _feature_maps(network, image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"the network cannot take images of {image[0]}×{image[1]} pixels: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}"
        ) from error
    for at, name in enumerate(names):
        if name in names[:at]:
            raise SettingsError(f"tap {name!r}: named twice")
        if name not in maps:
            some = ", ".join(list(maps)[-6:])
            raise SettingsError(
                f"tap {name!r}: not a module with a feature map (these are, among others: {some})"
            )
    layouts = _layouts(maps, image)
    chosen = list(names) or _last_of_each_resolution(maps, layouts)
    if not names and len(chosen) < 2:
        chosen = _quarters_of_blocks(maps) or chosen
    if not chosen:
        raise SettingsError("the network has no feature map to tap; name modules with --taps")
    axis = {"NCHW": 1, "NHWC": 3, "NTC": 2}
    return tuple(Tap(n, layouts[n], maps[n][axis[layouts[n]]]) for n in chosen)


def _feature_maps(network: nn.Module, image: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of all [2, ., .] and [2, ., ., .] module outputs, in the order they were last made.

    Outputs after the network's global pooling are not feature maps.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    pooled = False

    def record(name: str, module: nn.Module, output: object) -> None:
        nonlocal pooled
        if isinstance(module, nn.AdaptiveAvgPool2d):
            pooled = pooled or "." not in name
        elif (
            not pooled and isinstance(output, Tensor) and output.ndim in (3, 4) and len(output) == 2
        ):
            shapes.pop(name, None)
            shapes[name] = tuple(output.shape)

    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: record(name, m, output))
        for name, module in network.named_modules()
        if name
    ]
    training = network.training
    parameter = next(network.parameters())
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(2, 3, *image, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
        network.train(training)
    return shapes


def _layouts(maps: dict[str, tuple[int, ...]], image: tuple[int, int]) -> dict[str, Layout]:
    """The layout of each output; where its shape fits both, that of most others."""
    found = {name: _layout(shape, image) for name, shape in maps.items()}
    known = [layout for layout in found.values() if layout in ("NCHW", "NHWC")]
    usual: Layout = "NHWC" if 2 * known.count("NHWC") > len(known) else "NCHW"
    return {name: layout or usual for name, layout in found.items()}


def _layout(shape: tuple[int, ...], image: tuple[int, int]) -> Layout | None:
    if len(shape) == 3:
        return "NTC"
    _, a, b, c = shape
    # A map keeps the image's aspect; the channels are the axis that spoils it.
    aspect = image[0] / image[1]
    first, last = abs(a / b - aspect), abs(b / c - aspect)
    if first == last:
        return None
    return "NHWC" if first < last else "NCHW"


def _last_of_each_resolution(
    maps: dict[str, tuple[int, ...]], layouts: dict[str, Layout]
) -> list[str]:
    levels: dict[int, dict[tuple[int, int], str]] = {}
    for name, shape in maps.items():
        if len(shape) == 4:
            _, a, b, c = shape
            size = (a, b) if layouts[name] == "NHWC" else (b, c)
            last = levels.setdefault(name.count("."), {})
            last.pop(size, None)
            last[size] = name
    # max() keeps the first of equals: the outermost level with the most resolutions, up to four.
    level = max(sorted(levels), key=lambda depth: min(len(levels[depth]), MAX_TAPS), default=None)
    return [] if level is None else list(levels[level].values())[-MAX_TAPS:]


def _quarters_of_blocks(maps: dict[str, tuple[int, ...]]) -> list[str]:
    """Sibling modules with token maps of one shape, as deep a row of them as there is."""
    rows: dict[str, list[str]] = {}
    for name, shape in maps.items():
        if len(shape) == 3:
            rows.setdefault(name.rpartition(".")[0], []).append(name)
    blocks = max(rows.values(), key=len, default=[])
    count = min(MAX_TAPS, len(blocks))
    return [blocks[(k + 1) * len(blocks) // count - 1] for k in range(count)]
