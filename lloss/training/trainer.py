"""The training loop: schedule, gradient stop, and a state to resume from at any step.

Every draw of a step comes from (seed, epoch, step), so a resumed run computes what an
uninterrupted one would have.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lloss.errors import CheckpointError, DivergedError, SettingsError
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.modeling.network import Forward, Normalize, TappedNetwork
from lloss.modeling.objective import one_per_image
from lloss.statistics.ranking_metrics import pair_counts
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.divergence import remedy
from lloss.training.optimizers import make_optimizer, make_schedule
from lloss.training.process_group import Processes, even_part
from lloss.training.shared_batch_norm import SharedBatchNorm
from lloss.training.training_data import (
    Batches,
    BatchSource,
    TrainingData,
    at_once,
    moved,
    seed_of,
    workers_for,
)

SUMS = ("images", "loss", "head_loss", "pairs", "ordered", "seconds")
"""What is summed up over an epoch, for its figures."""


@dataclass
class Trainer:
    """Trains one network on one labeled set, of images of ``settings.size``.

    ``data`` are the images, or a ``network``'s own batches of them; ``device`` is ``cpu``,
    ``cuda``, or empty for CUDA where available; ``network`` is one from outside, instead of a fresh
    one that the settings name.
    """

    settings: TrainSettings
    data: TrainingData | BatchSource
    device: str = ""
    network: TappedNetwork | None = None
    epoch: int = field(default=0, init=False)
    step: int = field(default=0, init=False)
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMS, 0), init=False)
    processes: Processes | None = field(default=None, init=False)  # None: this one alone

    def __post_init__(self) -> None:
        settings, data = self.settings, self.data
        if settings.freeze:
            raise SettingsError("freeze = True: takes no training step; leave it out here")
        if settings.undecided:
            raise SettingsError(f"{settings.undecided[0]}: is automatic; decide it before training")
        self._device = device_of(self.device)
        self.batches: BatchSource
        if isinstance(data, TrainingData):
            self.batches = Batches(get_task(settings.task), settings, data)
            classes = data.classes
        else:
            self.batches, classes = data, ()
        with _seeded(self._device, settings.seed):
            self.model = self.network or get_task(settings.task).network(settings, classes)
        self.model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = Normalize(settings.mean, settings.std).to(self._device)
        self._stream: Iterator[tuple[Tensor, Any]] | None = None
        self.steps = self.batches.steps
        self.optimizer = make_optimizer(self.model, settings)
        self.schedule = make_schedule(self.optimizer, settings, self.steps)
        self._run: nn.Module = torch.compile(self.model) if settings.compile else self.model  # type: ignore[assignment]
        self._joined: nn.Module | None = None

    def join(self, processes: Processes) -> None:
        """Take each further step with other processes, whose trainers are in the same state.

        Each takes its rows of the batch. What a step computes is what one process would: losses,
        pairs, gradient and batch norm are those of the batch of all. Raises ``SettingsError`` for
        images that do not come from :class:`.Batches`.
        """
        if not isinstance(self.batches, Batches):
            raise SettingsError("several processes: train on decoded images alone")
        self.processes, self._stream = processes, None
        self.batches.part = processes.part
        devices = [torch.cuda.current_device()] if self._device.type == "cuda" else None
        self._joined = DistributedDataParallel(
            _Losses(self.model, self._losses_of),
            device_ids=devices,
            find_unused_parameters=True,  # some networks have layers that a step does not use
        )

    def asked_to_stop(self, asked: bool) -> bool:
        """Return whether any process was asked to stop."""
        return asked if self.processes is None else self.processes.any(asked)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.settings.epochs

    @property
    def gradient_stopped(self) -> bool:
        """Whether the head's gradient is kept from the network in the current epoch (from 0)."""
        return 0 <= self.settings.gradient_stop <= self.epoch

    def advance(self) -> dict[str, float] | None:
        """Take one step; at the end of an epoch return its figures."""
        began = time.perf_counter()
        if self._stream is None:
            cuda = self._device.type == "cuda"
            self._stream = self.batches.stream(
                self.epoch, self.step, workers=self._workers(), pinned=cuda
            )
        images, targets = next(self._stream)
        rate = self.optimizer.param_groups[0]["lr"]  # _learn sets the next step's
        # Processes draw, for dropout for example, each for its own rows.
        own = () if self.processes is None else (self.processes.process.rank,)
        with _seeded(self._device, self.settings.seed, 1, self.epoch, self.step, *own):
            self._learn(images.to(self._device, non_blocking=True), moved(targets, self._device))
        self.totals["seconds"] += time.perf_counter() - began
        self.step += 1
        return self._close_epoch(rate) if self.step == self.steps else None

    def _close_epoch(self, rate: float) -> dict[str, float]:
        self.check_finite()
        totals, count = self.totals, max(self.totals["images"], 1)
        figures = {"epoch": self.epoch + 1, "loss": totals["loss"] / count}
        if totals["pairs"]:
            figures["head_loss"] = totals["head_loss"] / count
            figures["ranking_accuracy"] = totals["ordered"] / totals["pairs"]
        figures["lr"] = rate
        figures["images_per_second"] = round(totals["images"] / max(totals["seconds"], 1e-9), 1)
        self.epoch, self.step, self.totals = self.epoch + 1, 0, dict.fromkeys(SUMS, 0)
        return figures

    def _workers(self) -> int:
        together = self.processes.process.local_count if self.processes else 1
        return workers_for(self._device, together)

    def _learn(self, images: Tensor, targets: Any) -> None:
        self.model.train()
        losses, predicted = self._of_all(*(self._joined or self._losses_of)(images, targets))
        self._refuse_negative(losses.detach())
        total = losses.mean()
        head_loss = torch.zeros(())
        if predicted is not None:
            compare = HEAD_LOSSES[self.settings.head_loss]
            head_loss = compare(predicted, losses, self.settings.xi)
            total = total + self.settings.head_weight * head_loss
        self._refuse_infinite("loss", total)
        self.optimizer.zero_grad(set_to_none=True)
        if self.processes is not None:
            # Gradients are averaged over the processes; each has its own rows' part of the sum.
            total = total * self.processes.count
        total.backward()  # type: ignore[no-untyped-call]
        self._clip()
        self.optimizer.step()
        self.schedule.step()
        self._count(predicted, losses.detach(), float(head_loss.detach()))

    def _losses_of(self, images: Tensor, targets: Any) -> tuple[Tensor, Tensor | None]:
        """Compute the losses of images, and those that the head predicts, float [B] each."""
        shared = contextlib.nullcontext() if self.processes is None else SharedBatchNorm()
        with self._autocast(), shared:
            normalised = images if images.is_floating_point() else self.normalize(images)
            normalised = normalised.contiguous(memory_format=torch.channels_last)
            forward: Forward = self._run(normalised, stop_gradient=self.gradient_stopped)
        losses = self.model.objective.loss_per_image(forward.output, targets)
        return one_per_image(losses, self.settings.task, len(images)), forward.loss

    def _of_all(self, losses: Tensor, predicted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Add the rows of other processes, so that pairs and means are of the whole batch."""
        if self.processes is None:
            return losses, predicted
        batch = even_part(self.batches.images, self.steps, self.step)
        both = [losses] if predicted is None else [losses.float(), predicted.float()]
        found = self.processes.gathered(torch.stack(both, 1), batch.stop - batch.start)
        return found[:, 0], None if predicted is None else found[:, 1]

    def _clip(self) -> None:
        """Shorten gradients that are too long: the network's and the head's do not mix."""
        for part in (self.model.network, self.model.head):
            if part is None:
                continue
            parameters = [p for p in part.parameters() if p.grad is not None]
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            # It may overflow where the loss does not.
            self._refuse_infinite("gradient", norm)
            if self.settings.clip > 0:
                torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, norm)

    def _refuse_negative(self, losses: Tensor) -> None:
        """Refuse losses of a user's task that the head cannot learn, in all processes alike."""
        if self.settings.head_loss == "soft-pairs" and losses.min() < 0:
            raise SettingsError(
                f"a loss of {float(losses.min()):.3g}: soft-pairs takes losses from 0 on; "
                'pass head_loss="margin" (--head-loss margin)'
            )

    def _refuse_infinite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise self._diverged(f"the {what} became {value.item()}")

    def check_finite(self) -> None:
        """Raise ``DivergedError`` for infinite or NaN weights, before they are kept."""
        for name, value in self.model.state_dict().items():
            if not torch.isfinite(value).all():
                raise self._diverged(f"the weights {name!r} became infinite or NaN")

    def _diverged(self, what: str) -> DivergedError:
        done = self.epoch * self.steps + min(self.step + 1, self.steps)
        epoch = f"epoch {self.epoch + 1} of {self.settings.epochs}"
        where = f"step {done} ({epoch}, rate {self.optimizer.param_groups[0]['lr']:.3g})"
        return DivergedError(f"training diverged: {what} at {where}; {remedy(self.settings)}")

    def _count(self, predicted: Tensor | None, losses: Tensor, head_loss: float) -> None:
        found: dict[str, float] = {
            "images": len(losses),
            "loss": float(losses.sum()),
            "head_loss": head_loss * len(losses),
        }
        if predicted is not None:
            values = predicted.detach().float().cpu().numpy()
            found["ordered"], found["pairs"] = pair_counts(values, losses.cpu().numpy())
        for name, value in found.items():
            self.totals[name] += value

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        wanted = self.settings.amp
        enabled = wanted == "bf16" or (wanted == "auto" and computes_in_bf16(self._device))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def state(self) -> dict[str, Any]:
        """Return all that :meth:`load_state` needs to go on from here; see :meth:`check_finite`."""
        self.check_finite()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "totals": dict(self.totals),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state` was taken."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit the network: {error}") from error
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.totals = dict(state["totals"])
        self._stream = None


class _Losses(nn.Module):
    """A trainer's forward pass as a module, which ``DistributedDataParallel`` takes."""

    def __init__(self, model: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.compute = model, compute

    def forward(self, images: Tensor, targets: Any) -> Any:
        """Return what ``compute`` does."""
        return self.compute(images, targets)


def finished_state(model: TappedNetwork) -> dict[str, Any]:
    """Return the state of a run of one epoch that is done, without an optimizer to go on with."""
    sums = dict.fromkeys(SUMS, 0)
    model_state = model.state_dict()
    return {
        "epoch": 1, "step": 0, "totals": sums, "model": model_state, "optimizer": {}, "schedule": {}
    }  # fmt: skip


def predict(
    model: TappedNetwork,
    settings: TrainSettings,
    images: NDArray[np.uint8],
    batch: int = 0,
    starts: Iterable[int] | None = None,
) -> Iterator[tuple[slice, Forward]]:
    """Run a network, in eval mode and without gradient, over images uint8 [N, H, W, 3].

    Yields rows and forward pass of each batch, by default those of :func:`at_once` images;
    ``starts`` are the first rows of the batches to run, None for all.
    """
    batch = batch or at_once(*images.shape[1:3])
    device = next(model.parameters()).device
    normalize = Normalize(settings.mean, settings.std).to(device)
    model.eval()
    for start in range(0, len(images), batch) if starts is None else starts:
        rows = slice(start, min(start + batch, len(images)))
        chunk = torch.from_numpy(np.array(images[rows])).to(device)  # may be read-only
        # Not around the yield: an abandoned generator would turn gradients off everywhere.
        with torch.no_grad():
            forward = model(normalize(chunk).contiguous(memory_format=torch.channels_last))
        yield rows, forward


def computes_in_bf16(device: torch.device) -> bool:
    """Return whether the hardware multiplies bf16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has no public name for these two.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def device_of(name: str) -> torch.device:
    """Return the device: ``cpu``, ``cuda``, or for an empty name CUDA where available."""
    if name not in ("", "cpu", "cuda"):
        raise SettingsError(f"device {name!r}: choose cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device 'cuda': torch sees no GPU here; use cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextlib.contextmanager
def _seeded(device: torch.device, *words: int) -> Iterator[None]:
    """Seed torch's global generators (weights, dropout), and restore them afterwards.

    Those of the CPU and of this device alone: the others are not used, and may be busy elsewhere.
    """
    used = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(used):
        torch.default_generator.manual_seed(seed_of(*words))
        for one in used:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed_of(*words))
        yield
