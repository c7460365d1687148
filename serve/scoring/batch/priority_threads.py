"""Thread pools that run the most urgent task first."""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import threading
import weakref
from collections.abc import Callable

LIVE, POOL = 0, 1
"""Priority of a task: of a request that a client waits for, or of a pool. Lower runs first."""

Task = Callable[[], object]

_log = logging.getLogger(__name__)


class WorkerPool:
    """Threads that run tasks by priority, and tasks of one priority in their order.

    A thread starts when it is first needed. The threads end with :meth:`close`, when this object
    is garbage-collected, or with the program; each time after the tasks that were submitted before.
    """

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        # The threads refer to the queue and not to this object, so that it can be collected.
        self._queue = _TaskQueue(count, name)
        weakref.finalize(self, self._queue.stop).atexit = False  # _end_all also joins
        _QUEUES.add(self._queue)

    def submit(self, task: Task, priority: int = POOL) -> None:
        """Run a task in a thread; an exception of the task is logged."""
        self._queue.put(priority, task)

    @property
    def idle(self) -> int:
        """Number of threads that run no task now, or were not started yet."""
        return self.count - self._queue.busy

    def close(self) -> None:
        """Refuse new tasks, and return when all submitted tasks are done."""
        self._queue.stop()
        self._queue.join()


class WorkerPools:
    """Pools by size and name, for scorers that use the same cores and the same device.

    A live request of one scorer goes before a pool's batch of another one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[tuple[int, str], WorkerPool] = {}

    def get(self, count: int, name: str) -> WorkerPool:
        """The pool of this size and name, made on first use."""
        with self._lock:
            if (count, name) not in self._pools:
                self._pools[count, name] = WorkerPool(count, name)
            return self._pools[count, name]

    def close(self) -> None:
        """Close every pool."""
        with self._lock:
            pools = list(self._pools.values())
        for pool in pools:
            pool.close()


class _TaskQueue:
    """The tasks of a pool, and the threads that run them."""

    def __init__(self, count: int, name: str) -> None:
        self.count, self.name = count, name
        self.busy = 0
        # Reentrant: the garbage collector may call stop() in a thread that holds it.
        self.changed = threading.Condition(threading.RLock())
        self._tasks: list[tuple[int, int, Task]] = []
        self._number = itertools.count()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def put(self, priority: int, task: Task) -> None:
        with self.changed:
            if self._stopped:
                raise RuntimeError("the worker pool is closed")
            waiting = len(self._threads) - self.busy
            if len(self._tasks) >= waiting and len(self._threads) < self.count:
                self._start_thread()
            heapq.heappush(self._tasks, (priority, next(self._number), task))
            self.changed.notify()

    def _start_thread(self) -> None:
        name = f"{self.name}_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException:
                _log.exception("a task of %s failed", self.name)
            finally:
                del task  # else it would live until the next one comes
                with self.changed:
                    self.busy -= 1

    def _next(self) -> Task | None:
        with self.changed:
            self.changed.wait_for(lambda: self._tasks or self._stopped)
            if not self._tasks:
                return None
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


_QUEUES: weakref.WeakSet[_TaskQueue] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Join all threads: none may run inside a native library that is being unloaded."""
    for queue in list(_QUEUES):
        queue.stop()
    for queue in list(_QUEUES):
        queue.join()
