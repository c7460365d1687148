"""The training loop: schedule, gradient stop, and a state that can be left and taken up again.

Every draw of a step comes from (seed, epoch, step), so a run that was left at any step and taken
up again computes what an uninterrupted one would have.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.errors import CheckpointError, LabelError, SettingsError
from lloss.images.cut_off import CutOff
from lloss.modeling.network import Forward, Normalize, TappedNetwork
from lloss.modeling.ranking_losses import HEAD_LOSSES
from lloss.modeling.registry import set_transform_input, transforms_input
from lloss.statistics.ranking_metrics import pair_counts
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.divergence import check_finite, diverged


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Decoded labeled images.

    Attributes:
        images: uint8 [N, H, W, 3], as ``Task.training_spec`` says.
        targets: of each, as ``Task.example`` makes them (a class's index, for example).
        classes: the class names.
        sha256: identifies the labeled set it was made of.
        cut: what the network's input cuts off of the images, where that was counted.
    """

    images: NDArray[np.uint8]
    targets: Sequence[Any] | NDArray[np.int64]
    classes: tuple[str, ...]
    sha256: str = ""
    cut: CutOff | None = None

    def take(self, rows: NDArray[np.int64]) -> TrainingData:
        """The data of these rows alone."""
        targets = [self.targets[row] for row in rows]
        return TrainingData(self.images[rows], targets, self.classes, self.sha256)


@dataclass
class Totals:
    """Sums over the images of an epoch so far."""

    images: int = 0
    loss: float = 0.0
    head_loss: float = 0.0
    hits: float | None = 0.0
    pairs: int = 0
    ordered: float = 0.0
    seconds: float = 0.0

    def means(self, metric: str) -> dict[str, float]:
        """What the progress bar and ``metrics.jsonl`` show."""
        count = max(self.images, 1)
        shown = {"loss": self.loss / count}
        if self.hits is not None:
            shown[metric] = self.hits / count
        if self.pairs:
            shown["head_loss"] = self.head_loss / count
            shown["ranking_accuracy"] = self.ordered / self.pairs
        return shown


@dataclass
class Trainer:
    """Trains one network on one labeled set.

    Args:
        settings: with a ``size`` that is not 0.
        data: its images are of that size.
        device: ``cpu``, ``cuda``, or empty for CUDA where there is one.
        start: a state dict to start from instead of fresh weights (a warm start).

    Raises:
        LabelError: fewer images than a batch.
    """

    settings: TrainSettings
    data: TrainingData
    device: str = ""
    start: dict[str, Tensor] | None = None
    epoch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    totals: Totals = field(default_factory=Totals, init=False)
    fresh: list[str] = field(default_factory=list, init=False)
    """With a ``start``: parameters and buffers that it did not have, or of another shape."""

    def __post_init__(self) -> None:
        _check(self.settings, self.data)
        self._device = device_of(self.device)
        self.task = get_task(self.settings.task)
        with _seeded(self._device, self.settings.seed):
            self.model = self.task.network(self.settings, self.data.classes)
        if self.start is not None:
            self.fresh = _start_from(self.model, self.start)
        self.model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = Normalize(self.settings.mean, self.settings.std).to(self._device)
        count = len(self.data.images)
        # Batches of 2 in an odd epoch: one of 3 rather than one that stands alone.
        self.steps = min(math.ceil(count / self.settings.batch_size), count // 2)
        self.optimizer = _optimizer(self.model, self.settings)
        self.schedule = self._schedule()
        self._order: tuple[int, list[NDArray[np.int64]]] | None = None
        self._run: nn.Module = (
            torch.compile(self.model) if self.settings.compile else self.model  # type: ignore[assignment]
        )

    def _schedule(self) -> torch.optim.lr_scheduler.LRScheduler:
        """Stepped once after each optimizer step; its milestones are counted in steps."""
        if self.settings.schedule == "step":
            at = [epoch * self.steps for epoch in self.settings.milestones]
            return torch.optim.lr_scheduler.MultiStepLR(self.optimizer, at)
        return torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            self.settings.lr,
            total_steps=self.settings.epochs * self.steps + 1,
            cycle_momentum=False,
        )

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.settings.epochs

    @property
    def gradient_stopped(self) -> bool:
        """Whether the head's gradient is kept from the network in the current epoch (from 0)."""
        stop = self.settings.gradient_stop
        return 0 <= stop <= self.epoch

    def advance(self) -> dict[str, float] | None:
        """Take one step; at the end of an epoch return its figures."""
        began = time.perf_counter()
        rows = self._batches()[self.step]
        rate = self.optimizer.param_groups[0]["lr"]  # _learn sets the next step's
        with _seeded(self._device, self.settings.seed, 1, self.epoch, self.step):
            self._learn(*self._batch(rows))
        self.totals.seconds += time.perf_counter() - began
        self.step += 1
        return self._close_epoch(rate) if self.step == self.steps else None

    def _close_epoch(self, rate: float) -> dict[str, float]:
        self.check_finite()
        seconds = max(self.totals.seconds, 1e-9)
        figures = {
            "epoch": self.epoch + 1,
            **self.totals.means(self.task.metric),
            "lr": rate,
            "images_per_second": round(self.totals.images / seconds, 1),
        }
        self.epoch, self.step, self.totals = self.epoch + 1, 0, Totals()
        return figures

    def _batches(self) -> list[NDArray[np.int64]]:
        """This epoch's order in near-equal batches: no image is dropped, none stands alone."""
        if self._order is None or self._order[0] != self.epoch:
            random = np.random.default_rng([self.settings.seed, 2, self.epoch])
            order = random.permutation(len(self.data.images))
            self._order = self.epoch, np.array_split(order, self.steps)
        return self._order[1]

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Any]:
        generator = torch.Generator().manual_seed(
            _entropy(self.settings.seed, 3, self.epoch, self.step)
        )
        task = self.task
        stored = torch.from_numpy(self.data.images[rows])
        targets = [self.data.targets[row] for row in rows]
        images, targets = task.augment(stored, targets, self.settings, generator)
        together = task.collate(targets)
        return images.to(self._device, non_blocking=True), together.to(self._device)

    def _learn(self, images: Tensor, targets: Any) -> None:
        self.model.train()
        with self._autocast():
            normalised = self.normalize(images).contiguous(memory_format=torch.channels_last)
            forward: Forward = self._run(normalised, stop_gradient=self.gradient_stopped)
        losses = self.model.objective.loss_per_image(forward.output, targets)
        total = losses.mean()
        head_loss = torch.zeros(())
        if forward.loss is not None:
            compare = HEAD_LOSSES[self.settings.head_loss]
            head_loss = compare(forward.loss, losses, self.settings.xi)
            total = total + self.settings.head_weight * head_loss
        if not torch.isfinite(total):
            raise diverged(f"the loss became {total.item()}", self.settings, self._where())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._check_gradient()  # it may overflow where the loss does not
        self.optimizer.step()
        self.schedule.step()
        self._count(forward, losses.detach(), float(head_loss.detach()), targets)

    def _check_gradient(self) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm):
            raise diverged(f"the gradient became {norm.item()}", self.settings, self._where())

    def check_finite(self) -> None:
        """Refuse weights that are no numbers, before they are kept.

        Raises:
            DivergedError: some are infinite or NaN.
        """
        check_finite(self.model.state_dict(), self.settings, self._where())

    def _where(self) -> str:
        done = self.epoch * self.steps + min(self.step + 1, self.steps)
        rate = self.optimizer.param_groups[0]["lr"]
        return f"step {done} (epoch {self.epoch + 1} of {self.settings.epochs}, rate {rate:.3g})"

    def _count(self, forward: Forward, losses: Tensor, head_loss: float, targets: Any) -> None:
        count = len(losses)
        self.totals.images += count
        self.totals.loss += float(losses.sum())
        self.totals.head_loss += head_loss * count
        hits = self.model.objective.hits(forward.output, targets)
        if hits is None or self.totals.hits is None:
            self.totals.hits = None  # too dear for every step
        else:
            self.totals.hits += float(hits.sum())
        if forward.loss is not None:
            ordered, pairs = pair_counts(
                forward.loss.detach().float().cpu().numpy(), losses.cpu().numpy()
            )
            self.totals.ordered += ordered
            self.totals.pairs += pairs

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        wanted = self.settings.amp
        enabled = wanted == "bf16" or (wanted == "auto" and computes_in_bf16(self._device))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def state(self) -> dict[str, Any]:
        """All that :meth:`load_state` needs to go on from here.

        Raises:
            DivergedError: weights are infinite or NaN: nobody goes on from those.
        """
        self.check_finite()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "totals": vars(self.totals).copy(),
            "model": self.model.state_dict(),
            "transform_input": transforms_input(self.model.network),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state` was taken."""
        try:
            self.model.load_state_dict(state["model"])
            set_transform_input(self.model.network, state)
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit the network: {error}") from error
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.totals = Totals(**state["totals"])


_PIXELS = 256 * 64 * 64
"""Of a batch that is only predicted: its feature maps are to fit a small memory."""


def predict(
    model: TappedNetwork, settings: TrainSettings, images: NDArray[np.uint8], batch: int = 0
) -> Iterator[tuple[slice, Forward]]:
    """Run a network over decoded images without gradient: (rows, forward pass) a batch.

    Args:
        model: is put into eval mode.
        settings: of its training.
        images: uint8 [N, H, W, 3] of the input's size.
        batch: images at a time; 0: 256, or fewer where they are larger than 64×64.
    """
    batch = batch or max(1, min(256, _PIXELS // (images.shape[1] * images.shape[2])))
    device = next(model.parameters()).device
    normalize = Normalize(settings.mean, settings.std).to(device)
    model.eval()
    for start in range(0, len(images), batch):
        rows = slice(start, min(start + batch, len(images)))
        chunk = torch.from_numpy(np.array(images[rows])).to(device)  # may be read-only
        # Not around the yield: a generator that is left would turn gradients off for everybody.
        with torch.no_grad():
            forward = model(normalize(chunk).contiguous(memory_format=torch.channels_last))
        yield rows, forward


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for these two.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _start_from(model: TappedNetwork, state: dict[str, Tensor]) -> list[str]:
    """Take over the weights that fit; return the names of those that stay fresh."""
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if not any(key.startswith("network.") for key in fitting):
        raise CheckpointError("the warm start's network has no layer in common with this one")
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def device_of(name: str) -> torch.device:
    """The device of a name: ``cpu``, ``cuda``, or empty for CUDA where there is one.

    Raises:
        SettingsError: another name, or there is no GPU.
    """
    if name not in ("", "cpu", "cuda"):
        raise SettingsError(f"device {name!r}: choose cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device 'cuda': torch sees no GPU here; use cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **common)
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), momentum=settings.momentum, **common)
    return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **common)


def _check(settings: TrainSettings, data: TrainingData) -> None:
    if len(data.images) < settings.batch_size:
        raise LabelError(
            f"{len(data.images)} labeled images are fewer than a batch of {settings.batch_size}: "
            f"label more, or set --batch-size to {len(data.images)} or less"
        )


def _entropy(*words: int) -> int:
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def _seeded(device: torch.device, *words: int) -> Iterator[None]:
    """Torch's global generators, seeded here (weights, dropout) and given back as they were.

    Those of the CPU and of this device alone: the others are not used, and may be busy elsewhere.
    """
    used = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(used):
        torch.default_generator.manual_seed(_entropy(*words))
        for one in used:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(_entropy(*words))
        yield
