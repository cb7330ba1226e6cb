"""Signals that ask a run to stop: it saves at its next step."""

import os
import signal
import threading
from signal import SIGINT, SIGTERM

import psutil
import torch.distributed as dist

SAVED = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
]  # as the system has
LAUNCHER = "GIBLET_LAUNCHER"  # number of the process that called `launch`


class StopSignals:
    """Note SIGTERM, SIGUSR1 and SIGINT instead of dying of them, for as long as the block runs.

    A second SIGINT interrupts at once. Outside of the main thread, where Python hears no signals,
    nothing is noted. It counts as SIGTERM when whoever started us has ended: torchrun, or the
    notebook that called `launch`.

    Attributes
    ----------
    received : signal.Signals or None
    """

    def __enter__(self) -> "StopSignals":
        self.received: signal.Signals | None = None
        self._torchrun = os.getppid() if dist.is_torchelastic_launched() else None
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SAVED}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        if number == self.received == SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def asked(self) -> signal.Signals | None:
        """The signal that asks to stop, if there is one."""
        orphaned = self._torchrun is not None and os.getppid() != self._torchrun
        if orphaned or (
            LAUNCHER in os.environ and not psutil.pid_exists(int(os.environ[LAUNCHER]))
        ):
            return SIGTERM
        return self.received
