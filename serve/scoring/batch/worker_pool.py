"""Threads that take up the most urgent task first."""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

LIVE, POOL = 0, 1
"""How urgent a task is: of a request that somebody waits for, or of a pool; less goes first."""

_log = logging.getLogger(__name__)


class Threads(Protocol):
    """What :class:`Workers` and :class:`Share` do."""

    count: int

    def submit(self, task: Callable[[], object], priority: int = POOL) -> None:
        """Have a task done."""

    @property
    def idle(self) -> int:
        """Threads that do nothing just now."""

    def shutdown(self) -> None:
        """Take no more, and return when all that was submitted is done."""


class Workers:
    """A pool of threads, first in, first out among tasks of one priority.

    Threads start when they are first needed. They end with :meth:`shutdown`, when this object is
    forgotten, or with the program, each time after what was submitted before.

    Args:
        count: threads at most.
        name: of the threads, before a number.

    Attributes:
        count: as given.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        # The threads know what they share and not this object, which can so be forgotten.
        self._shared = _Shared(count, name)
        weakref.finalize(self, self._shared.stop).atexit = False  # there _end_all waits as well
        _SHARED.add(self._shared)

    def submit(self, task: Callable[[], object], priority: int = POOL) -> None:
        """Have a task done; whatever it raises is logged and lost.

        Raises:
            RuntimeError: after :meth:`shutdown`, or the system has no thread.
        """
        self._shared.put(priority, task)

    @property
    def idle(self) -> int:
        """Threads that do nothing just now, or are not started yet."""
        return self.count - self._shared.busy

    def shutdown(self) -> None:
        """Take no more, and return when all that was submitted is done."""
        self._shared.stop()
        self._shared.join()


class Share:
    """Threads that others use as well; :meth:`shutdown` ends none of them.

    Args:
        workers: whose threads they are.

    Attributes:
        count: of the threads.
    """

    def __init__(self, workers: Workers) -> None:
        self.count = workers.count
        self._workers = workers
        self._changed = threading.Condition()
        self._open = 0
        self._stopped = False
        self._inside = threading.local()

    def submit(self, task: Callable[[], object], priority: int = POOL) -> None:
        """See :meth:`Workers.submit`."""

        def counted() -> None:
            self._inside.depth = getattr(self._inside, "depth", 0) + 1
            try:
                task()
            finally:
                self._inside.depth -= 1
                self._left()

        with self._changed:
            if self._stopped:
                raise RuntimeError("cannot take a task after shutdown")
            self._open += 1
        try:
            self._workers.submit(counted, priority)
        except BaseException:
            self._left()
            raise

    def _left(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    @property
    def idle(self) -> int:
        """See :attr:`Workers.idle`."""
        return self._workers.idle

    def shutdown(self) -> None:
        """Take no more, and return when all that was submitted here is done."""
        own = getattr(self._inside, "depth", 0)  # a task that calls this is not waited for
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: self._open <= own)


class Team:
    """Threads for all scorers of a process that use the same cores and device.

    What is urgent for one of them goes before what is not for any: requests to a model that serves,
    before a job that goes on by the one before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[tuple[int, str], Workers] = {}

    def share(self, count: int, name: str) -> Share:
        """A share of the threads of this name."""
        with self._lock:
            workers = self._workers.get((count, name))
            if workers is None:
                workers = self._workers[count, name] = Workers(count, name)
            return Share(workers)

    def close(self) -> None:
        """End the threads, when all that was submitted is done."""
        with self._lock:
            workers = list(self._workers.values())
        for one in workers:
            one.shutdown()


class _Shared:
    """What the threads of a pool have in common."""

    def __init__(self, count: int, name: str) -> None:
        self.count, self.name = count, name
        self.busy = 0
        # Reentrant: the garbage collector may call stop() in a thread that holds it.
        self.changed = threading.Condition(threading.RLock())
        self._tasks: list[tuple[int, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._threads: list[threading.Thread] = []
        self._waiting = 0
        self._stopped = False

    def put(self, priority: int, task: Callable[[], object]) -> None:
        with self.changed:
            if self._stopped:
                raise RuntimeError("cannot take a task after shutdown")
            entry = (priority, next(self._number), task)
            heapq.heappush(self._tasks, entry)
            if len(self._tasks) > self._waiting and len(self._threads) < self.count:
                self._grow(entry)
            self.changed.notify()

    def _grow(self, entry: tuple[int, int, Callable[[], object]]) -> None:
        name = f"{self.name}_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if self._threads:
                return  # slower, but it will be done
            self._tasks.remove(entry)
            heapq.heapify(self._tasks)
            raise
        self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException:
                _log.exception("a task of %s failed", self.name)
            finally:
                del task  # or it would live until the next one comes
                with self.changed:
                    self.busy -= 1

    def _next(self) -> Callable[[], object] | None:
        with self.changed:
            while not self._tasks:
                if self._stopped:
                    return None
                self._waiting += 1
                try:
                    self.changed.wait()
                finally:
                    self._waiting -= 1
            self.busy += 1
            return heapq.heappop(self._tasks)[2]

    def stop(self) -> None:
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def join(self) -> None:
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()


_SHARED: weakref.WeakSet[_Shared] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """No thread may be inside a runtime while that is taken apart."""
    for shared in list(_SHARED):
        shared.stop()
    for shared in list(_SHARED):
        shared.join()
