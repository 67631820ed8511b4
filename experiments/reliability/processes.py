"""Commands in processes of their own, forked from one that has imported everything, so that a trial costs a second."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from methyl_lightning.command.run import run_command

Sabotage = Callable[[], None]  # called in the process before its command
LIMIT_S = 600.0


class Ended(NamedTuple):
    """How a command has ended: exit status (negative: by that signal), what it printed, and seconds."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def tidy(self) -> bool:
        """Tell whether it succeeded, was killed, or said in one line why not."""
        errors = [line for line in self.err.splitlines() if line.startswith(("error: ", "stopped by "))]
        return self.status in (0, -signal.SIGKILL) or (len(errors) == 1 and "Traceback" not in self.err)


class Running:
    """A command that runs."""

    def __init__(self, name: str, overrides: Sequence[str], folder: Path, sabotage: Sabotage = lambda: None):
        folder.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic()
        self._said = [os.memfd_create(kind) for kind in ("out", "err")]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(name, overrides, folder, sabotage)

    def _become(self, name: str, overrides: Sequence[str], folder: Path, sabotage: Sabotage) -> None:
        status = 1
        try:
            for number, said in enumerate(self._said, 1):
                os.dup2(said, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(folder)
            sys.argv[:] = [f"methyl_lightning.{name}", *overrides]
            task = getattr(import_module(f"methyl_lightning.{name}.__main__"), name)
            sabotage()
            run_command(task, name)
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; a process that has ended meanwhile gets none."""
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end; one that hangs is killed."""
        while True:
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self._start > LIMIT_S:
                self.kill()
            time.sleep(0.01)
        said = []
        for descriptor in self._said:
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                said.append(file.read().decode(errors="replace"))
        return Ended(os.waitstatus_to_exitcode(code), *said, time.monotonic() - self._start)


def run(name: str, overrides: Sequence[str], folder: Path, sabotage: Sabotage = lambda: None) -> Ended:
    """Run a command to its end."""
    return Running(name, overrides, folder, sabotage).wait()


def run_killed(name: str, overrides: Sequence[str], folder: Path, after: float) -> Ended:
    """Run a command and kill it after some seconds, if it has not ended before."""
    running = Running(name, overrides, folder)
    time.sleep(after)
    running.kill()
    return running.wait()


def kills_at(place: str, count: int, after: bool = False) -> Sabotage:
    """Return a sabotage that kills the process when a function is called for the ``count``-th time, or returns.

    Parameters
    ----------
    place
        As ``module:Class.function``.
    count, after
        Which call, and whether the function still does its work.
    """

    def sabotage() -> None:
        module, _, path = place.partition(":")
        *parents, name = path.split(".")
        owner = import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        original, calls = getattr(owner, name), 0

        def counted(*args: object, **settings: object) -> object:
            nonlocal calls
            calls += 1
            if calls == count and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*args, **settings)
            if calls == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)

    return sabotage
