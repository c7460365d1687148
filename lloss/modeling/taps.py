"""Where the head reads a network."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError

Layout = Literal["NCHW", "NHWC", "NTC"]

MAX_TAPS = 4
"""The paper taps four stages of its classifier; deeper maps carry more of what decides the loss."""


SHOWN = 12
"""Modules that an error names."""


@dataclass(frozen=True, slots=True)
class Tap:
    """One tapped module: its dotted name, its output's layout and number of channels."""

    module: str
    layout: Layout
    channels: int

    def pool(self, output: Any) -> Tensor:
        """Average a module's feature map over its positions: float [N, channels], in float32."""
        over = {"NCHW": (2, 3), "NHWC": (1, 2), "NTC": (1,)}[self.layout]
        found = feature_map(output)
        assert found is not None, f"{self.module}: gave a feature map when it was chosen"
        return found.float().mean(over)


def feature_map(output: Any) -> Tensor | None:
    """Return the tensor in a module's output; None where it has none.

    It is the output itself, the first of a tuple, or ``last_hidden_state`` of the output classes
    of Hugging Face.
    """
    if not isinstance(output, Tensor):
        output = getattr(output, "last_hidden_state", output)
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def find_taps(
    network: nn.Module,
    image: tuple[int, int],
    names: Sequence[str] = (),
    run: Callable[[nn.Module, Tensor], object] = nn.Module.__call__,
) -> tuple[Tap, ...]:
    """Choose the modules to tap, by running the network once on images of ``image`` H and W.

    Without ``names``: those of timm's ``feature_info`` where the network has it; otherwise the last
    feature map of each resolution, the four deepest, taken from the outermost level of modules that
    has them (a network's stages, not the layers inside a block); for a network of token maps (a
    vision transformer), the last block of each quarter of its depth.
    ``run`` calls the network. Raises ``SettingsError`` for a name that is not a module with a
    feature map.
    """
    try:
        maps = _feature_maps(network, image, run)
    except Exception as error:  # a network from outside raises what it likes
        raise SettingsError(
            f"the network cannot take images of {image[0]}×{image[1]} pixels: "
            f"{(str(error) or type(error).__name__).splitlines()[0]}; give a size that it takes "
            "(networks of torchvision: leave --size out for their own)"
        ) from error
    for at, name in enumerate(names):
        if name in names[:at]:
            raise SettingsError(f"tap {name!r}: named twice")
        if name not in maps:
            raise SettingsError(
                f"tap {name!r}: not a module with a feature map (these are, among others: "
                f"{', '.join(_some(maps, name))})"
            )
    layouts = _layouts(maps, image)
    chosen = list(names) or _of_feature_info(network, maps)
    chosen = chosen or _last_of_each_resolution(maps, layouts)
    if not names and len(chosen) < 2:
        chosen = _quarters_of_blocks(network, maps) or chosen
    if not chosen:
        raise SettingsError("the network has no feature map to tap; name modules with --taps")
    axis = {"NCHW": 1, "NHWC": 3, "NTC": 2}
    return tuple(Tap(n, layouts[n], maps[n][axis[layouts[n]]]) for n in chosen)


def _some(maps: Sequence[str] | dict[str, Any], name: str) -> list[str]:
    """Modules that can be tapped: those of similar names, then the outermost and deepest."""
    deepest = list(maps)[::-1]
    outermost = sorted(deepest, key=lambda found: found.count("."))
    return list(dict.fromkeys([*difflib.get_close_matches(name, list(maps)), *outermost]))[:SHOWN]


def _feature_maps(
    network: nn.Module, image: tuple[int, int], run: Callable[[nn.Module, Tensor], object]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all [2, ., .] and [2, ., ., .] module outputs, in the order they were last made.

    Outputs after the network's global pooling are not feature maps.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    pooled = False

    def record(name: str, module: nn.Module, output: object) -> None:
        nonlocal pooled
        if isinstance(module, nn.AdaptiveAvgPool2d):
            pooled = pooled or "." not in name
            return
        found = None if pooled else feature_map(output)
        if found is not None and found.ndim in (3, 4) and len(found) == 2:
            shapes.pop(name, None)
            shapes[name] = tuple(found.shape)

    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: record(name, m, output))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with evaluating(network):
            run(network, blank_images(network, image))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Run in eval mode and without gradients; each module then gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


def blank_images(network: nn.Module, image: tuple[int, int]) -> Tensor:
    """Return two black images of ``image`` H and W, of the device and dtype of the weights."""
    parameter = next(network.parameters(), torch.empty(0))
    return torch.zeros(2, 3, *image, device=parameter.device, dtype=parameter.dtype)


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


def _quarters_of_blocks(network: nn.Module, maps: dict[str, tuple[int, ...]]) -> list[str]:
    """Sibling modules of one class with token maps, as deep a row of them as there is.

    Blocks have modules inside; norms and projections do not, and come only after them.
    """
    rows: dict[tuple[str, type], list[str]] = {}
    for name, shape in maps.items():
        if len(shape) == 3:
            kind = type(network.get_submodule(name))
            rows.setdefault((name.rpartition(".")[0], kind), []).append(name)

    def depth(row: Sequence[str]) -> tuple[bool, int, int]:
        is_block = any(True for _ in network.get_submodule(row[0]).children())
        return is_block, len(row), -row[0].count(".")

    return _quarters(max(rows.values(), key=depth, default=[]))


def _quarters(blocks: Sequence[str]) -> list[str]:
    count = min(MAX_TAPS, len(blocks))
    return [blocks[(k + 1) * len(blocks) // count - 1] for k in range(count)]


def _of_feature_info(network: nn.Module, maps: dict[str, tuple[int, ...]]) -> list[str]:
    """The modules that timm lists in ``feature_info``: the last of each reduction, or quarters."""
    info = getattr(network, "feature_info", None)
    rows = getattr(info, "info", info)  # FeatureInfo, or the list of dicts that it is made of
    if not isinstance(rows, (list, tuple)):
        return []
    listed = {
        str(row["module"]): row.get("reduction")
        for row in rows
        if isinstance(row, dict) and row.get("module") in maps
    }
    of_reduction = {reduction: name for name, reduction in listed.items()}
    deepest = list(of_reduction.values())[-MAX_TAPS:]
    return deepest if len(deepest) > 1 else _quarters(list(listed))
