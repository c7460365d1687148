"""One command in the several processes that ``torchrun`` starts: one leads, the others follow.

The leading process runs the command as ever. The others read no option and write no file; they wait
until it calls them, and take part in what it sends. So what a user does wrong is found, and said,
by one process. An error that a following process has alone is its to say.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn, Protocol

import torch
from torch import distributed

from lloss.errors import InterruptedRunError, LlossError, SettingsError
from lloss.runtime.torchrun_process import TorchrunProcess
from lloss.training.process_group import Processes, is_lost, joined, store_of

CALL, ENDED, FAILED = "call", "ended", "failed"
"""Keys of the store: the device to join on, the leading process's exit status, and whether a
following process failed by itself."""

AGAIN = "run it again"

POLL = 0.05  # Seconds between two looks at the store

SAME = 3.0
"""Seconds that a following process waits for the leading one to fail by the same error."""

SAVING = 600.0  # Seconds that the leading process may need for a last checkpoint


class Job(Protocol):
    """What the leading process sends the others to do."""

    def run(self, processes: Processes) -> None:
        """Do this process's part."""


def lead(process: TorchrunProcess, command: Callable[[], None]) -> NoReturn:
    """Run a command, let the other processes end when it does, and exit."""
    store, status = store_of(process), 1
    try:
        command()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        traceback.print_exception(error)
    with contextlib.suppress(distributed.DistError):  # torchrun itself is gone
        store.set(ENDED, str(status))
    _leave(status)


@contextlib.contextmanager
def called(
    process: TorchrunProcess, device: torch.device, remedy: Callable[[], str] = lambda: AGAIN
) -> Iterator[Processes]:
    """Call the other processes: a context of the :class:`.Processes` that send them a job.

    Raises ``LlossError`` with a remedy where one of them ends without a word, and ``SystemExit``
    where it says itself why.
    """
    store_of(process).set(CALL, device.type)
    try:
        with joined(process, device) as processes:
            yield processes
    except RuntimeError as error:
        if not is_lost(error):
            raise
        if store_of(process).check([FAILED]):
            raise SystemExit(2) from error
        raise LlossError(
            f"another process ended without a word, perhaps killed for want of memory; {remedy()}"
        ) from error


def follow(process: TorchrunProcess) -> NoReturn:
    """Do what the leading process sends, and exit as it does."""
    warnings.simplefilter("ignore")  # the leading process gives them
    try:
        status = _followed(process)
    except KeyboardInterrupt:
        status = 130
    except InterruptedRunError as error:
        status = _ended(process, SAVING) or error.exit_code
    except BaseException as error:  # whatever it is, only one process is to say it
        status = _failed(process, error)
    _leave(status)


def _leave(status: int) -> NoReturn:
    """Exit, with all files closed, but do not shut Python down.

    Threads of a group may abort that, or wait for other processes for ever. It also takes so long
    that torchrun, once another process has exited with an error, ends the leading one by a signal
    and reports the wrong one as the cause.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def _followed(process: TorchrunProcess) -> int:
    store = store_of(process)
    while not store.check([CALL]):
        if store.check([ENDED]):  # a command that needs no other process
            return int(store.get(ENDED))
        time.sleep(POLL)
    device = store.get(CALL).decode()
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("torch sees no GPU on this machine, but on the first one")
    with joined(process, torch.device(device)) as processes:
        job: Job = processes.sent()
        job.run(processes)
    return 0


def _failed(process: TorchrunProcess, error: BaseException) -> int:
    """Return the status to exit with; say why, where the leading process does not."""
    status = _ended(process, SAME)
    if status is not None:
        return status or 1
    if is_lost(error):  # another following process is gone: the leading one notices too
        return 1
    store_of(process).set(FAILED, "")
    if isinstance(error, LlossError):
        print(f"lloss: process {process.rank} of {process.count}: {error}", file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return 1


def _ended(process: TorchrunProcess, seconds: float) -> int | None:
    """Wait so long for the leading process to end, and return its exit status."""
    end = time.monotonic() + seconds
    try:
        while not store_of(process).check([ENDED]):
            if time.monotonic() > end:
                return None
            time.sleep(POLL)
        return int(store_of(process).get(ENDED))
    except distributed.DistError:  # the store is gone, and with it torchrun
        return 1
