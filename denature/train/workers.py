"""Passes in other processes: workers on this machine, or a Ray cluster.

A remote batch holds orders whose inputs are folders, and the workers write the runs to folders. So
the sender makes the same orders again in its own process and finds them finished. If a worker dies,
another worker resumes its runs from their last state.
"""

import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, final

from denature.answers.transfer_file import load_transfer
from denature.core.errors import ConfigError, DenatureError, MissingExtra, RunError, Stopped
from denature.core.parent import end_with_parent
from denature.core.progress import SILENT, Relay, Task
from denature.core.stopping import Stopper
from denature.core.threads import worker_threads
from denature.data import load
from denature.train.remote import RemoteBatch
from denature.train.reports import Mailbox, Received, Report, Reporter, post
from denature.train.run import load_run
from denature.train.runs import make
from denature.train.session import Session

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event

TRIES = 4
"""Attempts per batch; after so many dead workers the batch counts as the cause."""

POLL_S = 0.1

REPORTS_S = 10.0
"""Time that a mailbox of a cluster has to answer."""

_REPORT = struct.Struct("q?dd")
"""A `Report` as bytes, far fewer than a pipe takes as a whole (PIPE_BUF, at least 512)."""


def carry_out(
    batch: RemoteBatch, reporter: Reporter, wish: Callable[[], bool] | None = None
) -> str | None:
    """Make the runs of a batch in the current process; return the reason of a stop, if any."""
    reporter.flush()
    try:
        return _make(batch, reporter, wish)
    finally:
        reporter.flush()


def _make(batch: RemoteBatch, task: Task, wish: Callable[[], bool] | None) -> str | None:
    folders = {folder for given in batch.inputs for folder in given.values()}
    loaded = {
        folder: replace(load_run(folder, trust=batch.trust), folder=batch.known_as[folder])
        for folder in folders
    }
    if batch.transfer is None:
        transfer, data = None, replace(load(batch.data, progress=SILENT), config=batch.data_as)
    else:
        transfer, data = load_transfer(batch.transfer, folder=batch.known_as[batch.transfer])
        if batch.defense is not None:
            transfer = transfer.defended(batch.defense)
    orders = []
    for order, given in zip(batch.orders, batch.inputs, strict=True):
        runs = {role: loaded[folder] for role, folder in given.items()}
        source = None if order.objective.asks is None else transfer or runs[order.objective.asks]
        backbone = runs.get("backbone", order.backbone)
        orders.append(replace(order, source=source, init=runs.get("init"), backbone=backbone))
    stopper = Stopper(seconds=batch.seconds, wish=wish)
    try:
        with stopper.on_signals():
            make(
                orders,
                data,
                overwrite=batch.overwrite,
                session=Session(
                    checkpointing=batch.checkpointing,
                    stopper=stopper,
                    progress=Relay(task, "images"),
                ),
            )
    except Stopped as stop:
        return stop.reason
    return None


def _stopped(reason: str) -> Stopped:
    return Stopped(
        reason,
        f"Stopped by {reason}; the workers saved the states of their runs. "
        "Run the same command again to go on.",
    )


def _died(why: object) -> RunError:
    return RunError(
        f"A worker died {TRIES} times on the same runs; perhaps it ran out of memory. Make them in "
        f"this process to see the cause. Last error: {why}"
    )


@final
class ProcessPool:
    """Workers on this machine, which divide its cores among them.

    Workers pay off for small networks, whose steps are mostly overhead that a second thread does
    not reduce: with two workers the demo takes two thirds of the time on two cores.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ConfigError(f"workers is {size}; it must be at least 1.")
        import multiprocessing

        self.size = size
        self._context = multiprocessing.get_context("spawn")
        self._wish = self._context.Event()
        # No queue: its lock would stay closed after the death of a worker that held it. Reports
        # are so short that the system writes each as a whole.
        self._reports, self._sends = self._context.Pipe(duplex=False)
        if os.name == "posix":
            os.set_blocking(self._sends.fileno(), False)
        self._pool: ProcessPoolExecutor | None = None

    def _start(self) -> "ProcessPoolExecutor":
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(
            self.size,
            mp_context=self._context,
            initializer=_begin_worker,
            initargs=(self._wish, self._sends, worker_threads(self.size)),
        )

    def carry_out(
        self,
        batches: Sequence[RemoteBatch],
        stopper: Stopper,
        task: Task,
        made: Callable[[int], None],
    ) -> None:
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        left, reason, failure = list(enumerate(batches)), None, None
        received = Received(task)
        self._receive(lambda report: None)  # of batches that were stopped before
        for _ in range(TRIES):
            self._pool = self._pool or self._start()
            waiting = {self._pool.submit(_in_worker, *each): each for each in left}
            left = []
            while waiting:
                done, _ = wait(waiting, timeout=POLL_S, return_when=FIRST_COMPLETED)
                self._receive(received.count)
                for future in done:
                    number, batch = waiting.pop(future)
                    try:
                        stopped = future.result()
                        reason = stopped or reason
                        made(0 if stopped else len(batch.orders))
                    except BrokenProcessPool as error:
                        left.append((number, batch))
                        died = error
                    except DenatureError as error:
                        failure = failure or error
                if failure or stopper.reason:
                    self._wish.set()
            self._wish.clear()
            if left:  # a pool accepts no work after the death of a worker
                self.close()
            if failure is not None:
                raise failure
            if stopper.reason or reason:
                raise _stopped(stopper.reason or str(reason))
            if not left:
                return
        raise _died(died)

    def _receive(self, count: Callable[[Report], None]) -> None:
        """Take the reports that workers have sent."""
        while self._reports.poll():
            count(Report(*_REPORT.unpack(self._reports.recv_bytes())))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _begin_worker(wish: "Event", sends: "Connection[bytes, bytes]", threads: int) -> None:
    global _wish, _send
    _wish = wish.is_set
    _send = partial(_send_through, sends)
    end_with_parent()
    # Ctrl-C reaches all processes of a terminal; workers stop by the event of their parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(threads)


_wish: Callable[[], bool] | None = None
"""In a worker: whether the parent wants the work to stop."""


_send: Callable[[Report], bool] = lambda report: True  # noqa: E731
"""In a worker: sends a report to the parent."""


def _send_through(sends: "Connection[bytes, bytes]", report: Report) -> bool:
    try:
        sends.send_bytes(_REPORT.pack(*report))
    except BlockingIOError:  # the parent has not read for long; the worker need not wait for it
        return False
    return True


def _in_worker(number: int, batch: RemoteBatch) -> str | None:
    reason = Stopper(wish=_wish).reason or carry_out(batch, Reporter(number, _send), _wish)
    if reason == "SIGTERM":
        # Some Python versions end a broken pool by this signal, and wait for the process to exit.
        os._exit(0)
    return reason


@final
class RayPool:
    """Workers of a Ray cluster whose nodes share the folders of the runs.

    Args:
        address: `auto` for the cluster that this machine belongs to, `local` for a temporary one on
            this machine, or host:port, or ray://host:port.
        device: `cuda` gives each worker one accelerator, other devices one core.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: no cluster answers at the address.
    """

    def __init__(self, address: str, *, device: str = "auto") -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "ray", "Making runs on a cluster") from None
        self._ray = ray
        _check_answers(address)
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(
                    address=address,
                    include_dashboard=False if address == "local" else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
                raise ConfigError(
                    f"No Ray cluster answers at {address!r}: {' '.join(str(error).split())[:200]} "
                    "Start one with `ray start --head`, or use --ray local."
                ) from None
        resources: dict[str, float] = ray.cluster_resources()
        gpus = device == "cuda" or (device == "auto" and resources.get("GPU", 0) > 0)
        self.size = int(resources.get("GPU" if gpus else "CPU", 1))
        if self.size < 1:
            raise ConfigError(f"The Ray cluster at {address!r} has no {'GPU' if gpus else 'CPU'}.")
        # Runs resume from their states, so a dead worker costs at most `--save-every`.
        self._task = ray.remote(
            num_cpus=1, num_gpus=1 if gpus else 0, max_retries=TRIES - 1, retry_exceptions=False
        )(carry_out)
        self._mailbox: Any = ray.remote(num_cpus=0)(Mailbox)
        self._mailbox = self._mailbox.remote()
        self._sent = 0

    def carry_out(
        self,
        batches: Sequence[RemoteBatch],
        stopper: Stopper,
        task: Task,
        made: Callable[[int], None],
    ) -> None:
        with redirect_stdout(sys.stderr):  # Ray prints messages about dead workers
            self._carry_out(batches, stopper, task, made)

    def _carry_out(
        self,
        batches: Sequence[RemoteBatch],
        stopper: Stopper,
        task: Task,
        made: Callable[[int], None],
    ) -> None:
        ray, send = self._ray, partial(post, self._mailbox)
        received = Received(task, since=self._sent)
        waiting = {
            self._task.remote(batch, Reporter(number, send)): batch
            for number, batch in enumerate(batches, start=self._sent)
        }
        self._sent += len(batches)
        reports: Any = self._mailbox.take.remote()
        failure: DenatureError | None = None
        reason: str | None = None
        cancelled = False
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=POLL_S)
            if reports is not None and (ready or ray.wait([reports], timeout=0)[0]):
                reports = self._counted(reports, received)
            for reference in ready:
                count = len(waiting.pop(reference).orders)
                try:
                    stopped = ray.get(reference)
                    reason = stopped or reason
                    made(0 if stopped else count)
                except (ray.exceptions.TaskCancelledError, KeyboardInterrupt):
                    pass
                except ray.exceptions.RayTaskError as error:
                    if not isinstance(error.cause, DenatureError):
                        raise
                    failure = failure or error.cause
                except ray.exceptions.RayError as error:
                    failure = failure or _died(error)
            reason = stopper.reason or reason
            if (failure or reason) and not cancelled:
                cancelled = True
                for reference in waiting:
                    ray.cancel(reference, force=False)
        for _ in range(2):  # what was asked before the last worker ended, and what came after that
            if reports is not None:
                reports = self._counted(reports, received)
        if failure is not None:
            raise failure
        if reason is not None:
            raise _stopped(reason)

    def _counted(self, reports: Any, received: Received) -> Any:
        """Count the reports that a mailbox sent, and ask for the next ones.

        None if the mailbox died with its node or does not answer: training goes on, unreported.
        """
        try:
            for report in self._ray.get(reports, timeout=REPORTS_S):
                received.count(report)
        except self._ray.exceptions.RayError:
            return None
        return self._mailbox.take.remote()

    def close(self) -> None:
        """Disconnect from the cluster, if this object connected to it."""
        if self._own:
            self._ray.shutdown()


def _check_answers(address: str) -> None:
    """Check that a server listens at the address, because Ray itself retries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not colon or not port.isdigit():
        raise ConfigError(
            f"The Ray address is {address!r}; wanted is auto, local, host:port or ray://host:port."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigError(
            f"No Ray cluster answers at {address!r}: {error}. Start one with `ray start --head`, "
            "or use --ray local."
        ) from None
