"""Small networks as other libraries and users write them."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class TwoStages(nn.Module):
    """A user's own: two convolutions, and what ``wrap`` makes of the logits."""

    def __init__(self, classes: int = 3, wrap: Any = lambda logits: logits) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())
        self.last = nn.Linear(12, classes)
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.last(self.second(self.first(images)).mean((2, 3))))


class ModelOutput(OrderedDict[str, Any]):
    """As of Hugging Face: a dict whose values are also attributes."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__.update(values)


class _Block(nn.Module):
    """A layer that returns a tuple, as those of Hugging Face do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        seen = self.norm(tokens)
        weights = (self.query(seen) @ self.key(seen).mT).softmax(2)
        return (tokens + weights @ self.value(seen),)


class _Encoder(nn.Module):
    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Block(width) for _ in range(blocks))

    def forward(self, tokens: Tensor) -> ModelOutput:
        for block in self.layer:
            tokens = block(tokens)[0]
        return ModelOutput(last_hidden_state=tokens)


class ViTForImageClassification(nn.Module):
    """Token maps, tuples between layers, and an output class with ``logits``."""

    def __init__(self, blocks: int = 6, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=16)
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.encoder = _Encoder(blocks, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> ModelOutput:
        tokens = self.patches(images).flatten(2).mT
        hidden = self.encoder(tokens).last_hidden_state
        return ModelOutput(logits=self.classifier(hidden[:, 0]), hidden_states=(tokens, hidden))


class TimmNet(nn.Module):
    """``feature_info`` and ``pretrained_cfg``, as networks of timm have them."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1), nn.ReLU()),
        )
        self.classifier = nn.Linear(10, classes)
        self.feature_info = [
            {"num_chs": 6, "reduction": 2, "module": "blocks.0"},
            {"num_chs": 8, "reduction": 4, "module": "blocks.1"},
            {"num_chs": 10, "reduction": 8, "module": "blocks.2"},
        ]
        self.pretrained_cfg = {
            "input_size": (3, 24, 24), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
        }  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(self.conv_stem(images)).mean((2, 3)))
        return logits


class DepthLoss:
    """A task of a user: absolute error of a map against one number per image."""

    def loss_per_image(self, output: Any, targets: Tensor) -> Tensor:
        return (output["depth"].mean((1, 2)) - targets).abs()

    def outputs(self, output: Any) -> dict[str, Tensor]:
        return {"mean_depth": output["depth"].mean((1, 2))}

    def summary(self, output: Any) -> Tensor:
        return torch.stack([output["depth"].amax((1, 2)), output["depth"].amin((1, 2))], 1)

    def metric(self, output: Any, targets: Tensor) -> Tensor:
        return (self.loss_per_image(output, targets) < 0.1).float()


class DepthNet(nn.Module):
    """A dict of maps that no task of lloss takes."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, 2, 1)
        self.up = nn.Conv2d(6, 1, 3, 1, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"depth": self.up(self.down(images).relu())[:, 0], "scale": images.mean((1, 2, 3))}
