"""How near an image is to a copy of itself, as a video or a burst would have it, for a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError
from lloss.manifest import PRETRAINED_EMBEDDING
from lloss.modeling.network import Normalize, TappedNetwork
from lloss.pools import Item
from lloss.selection.near_duplicates import near_duplicate_distance
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import Checkpoint

IMAGES, BATCH = 200, 25

SHIFT = 1 / 16
"""The most that a copy is shifted, up or down and to a side, as a share of its size."""

BRIGHTNESS = 0.1  # It is so much brighter or darker at most, as a share


def automatic_distance(
    network: TappedNetwork, settings: TrainSettings, items: Sequence[Item], taken: int
) -> float:
    """Measure the cosine distance below which two images are near-duplicates; 0 for none.

    It is that of images to copies of themselves, but none so large that ``taken`` images would have
    near-duplicates by chance; see :func:`embed_views` for the other arguments.
    """
    views = embed_views(network, settings, items)
    if not len(views[0]):
        return 0.0
    by_chance = chance_distance(views[0], taken)
    return max(min(near_duplicate_distance(*views), by_chance), 0.0)


def embed_views(
    network: TappedNetwork, settings: TrainSettings, items: Sequence[Item], seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed at most :data:`IMAGES` images, and a shifted, brighter or darker copy of each.

    Args:
        network: in eval mode, on the CPU.
        settings: how images become its input.
        items: the images, of which some are drawn by the seed.
        seed: of the draw and of the copies.

    Returns:
        Both embeddings, float [P, D] each, without images that cannot be read.
    """
    rows = np.random.default_rng(seed).permutation(len(items))[:IMAGES]
    found = decoded([items[row] for row in rows], settings.image_spec())
    images = [image for _, image in found if not isinstance(image, ImageError)]
    normalize = Normalize(settings.mean, settings.std)
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            batch = torch.from_numpy(np.stack(images[start : start + BATCH]))
            both = (batch, jittered(batch, generator))
            one, other = (network.features(normalize(each)).pooled[-1].float() for each in both)
            parts.append((one, other))
    if not parts:
        nothing = np.empty((0, network.taps[-1].channels), np.float32)
        return nothing, nothing
    first, second = (torch.cat(each).numpy() for each in zip(*parts))
    return first, second


def chance_distance(embeddings: NDArray[np.float32], taken: int) -> float:
    """Return the cosine distance within which ``taken`` images have half of a pool by chance.

    A network that has learned little, or all, has images of a class as near to each other as copies
    of one image are. ``embeddings``, float [P, D], are of images of the pool; fewer than two give
    infinity.
    """
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    units = embeddings / np.maximum(norms, 1e-12)
    pairs = (1 - units @ units.T)[np.triu_indices(len(units), 1)]
    return float(np.quantile(pairs, min(0.5 / max(taken, 1), 1))) if len(pairs) else np.inf


def embedding_network(checkpoint: Checkpoint, column: str) -> TappedNetwork:
    """Return the network whose embedding is ``column`` of the scores."""
    network = checkpoint.network()
    if column == PRETRAINED_EMBEDDING and network.pretrained is not None:
        return network.pretrained
    return network


def jittered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift images uint8 [N, H, W, C], repeating their edges, and change their brightness."""
    count, height, width, _ = images.shape
    reach = [max(1, round(side * SHIFT)) for side in (height, width)]
    maps = images.permute(0, 3, 1, 2).float()
    padded = F.pad(maps, (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    corners = [torch.randint(2 * each + 1, (count,), generator=generator) for each in reach]
    shifted = torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded, *(each.tolist() for each in corners))
        ]
    )
    factor = 1 + BRIGHTNESS * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    changed = (shifted * factor).round().clamp(0, 255).to(torch.uint8)
    return changed.permute(0, 2, 3, 1)
