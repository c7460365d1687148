from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn

from lloss.errors import SettingsError
from lloss.runtime.torchrun_process import TorchrunProcess
from lloss.training.process_group import Processes, even_part, refuse_few_gpus
from lloss.training.shared_batch_norm import SharedBatchNorm
from lloss.training.shared_images import shared_images


@pytest.mark.parametrize(("length", "parts"), [(7, 2), (6, 3), (2, 2), (10, 4), (3, 4)])
def test_parts_are_those_of_numpy(length: int, parts: int) -> None:
    found = [even_part(length, parts, number) for number in range(parts)]
    expected = np.array_split(np.arange(length), parts)
    for one, other in zip(found, expected):
        assert np.arange(length)[one].tolist() == other.tolist()


def test_a_gpu_serves_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    process = TorchrunProcess(0, 4, 0, 4, 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="4 processes on 2 GPUs.*--nproc-per-node 2"):
        refuse_few_gpus(process)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    refuse_few_gpus(process)


def test_in_a_group_of_two(tmp_path: Path) -> None:
    """All that needs real processes, in one start of them."""
    multiprocessing.spawn(_in_a_group, (str(tmp_path),), 2)
    assert not list(tmp_path.glob("[!s]*")), "a file of images is left"


def _in_a_group(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    process = TorchrunProcess(rank, 2, rank, 2, 0)
    processes = Processes(process, torch.device("cpu"))
    _gathered(processes)
    assert processes.any(rank == 1) and not processes.any(False)
    assert processes.sent("word" if rank == 0 else None) == "word"
    assert processes.listed(rank) == [0, 1]
    assert processes.collected(rank) == (None if rank else [0, 1])
    _batch_norm(processes)
    _images(processes, Path(folder))
    # As if they were on two machines.
    apart = Processes(TorchrunProcess(rank, 2, 0, 1, rank), processes.device)
    _images(apart, Path(folder))
    distributed.destroy_process_group()


def _gathered(processes: Processes) -> None:
    """The rows of all in order; the gradients of both, added, are that of one process."""
    whole = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    own = whole.detach()[processes.part(5)].requires_grad_()
    found = processes.gathered(own, 5)
    assert torch.equal(found, whole)
    found.square().prod(1).sum().backward()
    whole.square().prod(1).sum().backward()
    assert whole.grad is not None and torch.equal(own.grad, whole.grad[processes.part(5)])


def _norms() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.BatchNorm2d(4, momentum=None),
        nn.Flatten(),
        nn.Linear(16, 4),
        nn.BatchNorm1d(4, affine=False),
        nn.Linear(4, 4),
        nn.BatchNorm1d(4, track_running_stats=False),
    ).double()


def _batch_norm(processes: Processes) -> None:
    """Output, gradients and running statistics are torch's on the whole batch."""
    generator = torch.Generator().manual_seed(1)
    images = 4 * torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64) + 9
    weights = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    rows = processes.part(3)  # two images, and one alone
    one, shared = _norms(), _norms()
    whole, own = images.clone().requires_grad_(), images[rows].clone().requires_grad_()
    expected = one(whole)
    with SharedBatchNorm():
        found = shared(own)
    assert torch.allclose(found, expected[rows])
    (expected * weights).sum().backward()
    (found * weights[rows]).sum().backward()
    assert whole.grad is not None and own.grad is not None
    assert torch.allclose(own.grad, whole.grad[rows])
    for theirs, ours in zip(one.parameters(), shared.parameters()):
        assert theirs.grad is not None and ours.grad is not None
        distributed.all_reduce(ours.grad)
        assert torch.allclose(ours.grad, theirs.grad)
    for name, value in one.state_dict().items():
        assert torch.allclose(value, shared.state_dict()[name]), name
    one.eval()
    shared.load_state_dict(one.state_dict())
    with SharedBatchNorm():
        assert torch.equal(shared.eval()[:2](own), one[:2](own))
    half: Any = nn.BatchNorm2d(3)
    with SharedBatchNorm():
        assert half(images[rows].bfloat16()).dtype == torch.bfloat16


def _images(processes: Processes, folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3)).astype(np.uint8)
    own = None if processes.process.rank else images
    found = shared_images(processes, own, folder)
    assert isinstance(found, np.memmap) and np.array_equal(found, images)
    assert processes.listed(None) and not list(folder.glob(".images*"))
