"""Runs one reader on many inputs, in processes of their own with limits on time and memory."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from clm_data.errors import ClmDataError

SECONDS = 10
"""Most CPU time of one input. The wall may show six times as much: machines are shared."""
MEGABYTES = 500
"""Most memory that one input adds to the process."""
_CHUNK = 2_000
CORPUS = Path(__file__).parent / "corpus"

Read = Callable[[bytes], str | None]
"""Reads an input; returns what was lost, or None. Raises what the program would raise."""


@dataclass(frozen=True)
class Reader:
    """A reader of outside data.

    Attributes:
        name: Its name; inputs of past faults are in ``corpus/NAME``.
        make: Makes an input of a seed.
        open: Prepares the reader in an empty folder.
        share: Its share of all inputs.
    """

    name: str
    make: Callable[[int], bytes]
    open: Callable[[Path], Read]
    share: int = 1


@dataclass
class Outcome:
    """What was found in one reader."""

    reader: str
    inputs: int = 0
    refused: int = 0
    tracebacks: int = 0
    limits: int = 0
    lost: int = 0
    slowest: float = 0.0
    peak: float = 0.0
    faults: list[str] = field(default_factory=list)

    HEADER: ClassVar[str] = (
        f"{'reader':<14}{'inputs':>8}{'refused':>9}{'tracebacks':>12}{'over limits':>13}"
        f"{'lost':>6}{'slowest s':>11}{'peak MB':>9}"
    )

    def line(self) -> str:
        """One row of the table."""
        return (
            f"{self.reader:<14}{self.inputs:>8}{self.refused:>9}{self.tracebacks:>12}"
            f"{self.limits:>13}{self.lost:>6}{self.slowest:>11.2f}{self.peak:>9.0f}"
        )

    def add(self, part: dict[str, Any]) -> None:
        """Add the outcome of a chunk."""
        for name in ("inputs", "refused", "tracebacks", "limits", "lost", "faults"):
            setattr(self, name, getattr(self, name) + part[name])
        self.slowest = max(self.slowest, part["slowest"])
        self.peak = max(self.peak, part["peak"])


def run(reader: Reader, count: int, seed: int, faults: Path) -> Outcome:
    """Run a reader on its corpus and on ``count`` inputs; failing inputs are kept in a folder."""
    outcome = Outcome(reader.name)
    numbers = [(at, min(_CHUNK, count - at)) for at in range(0, count, _CHUNK)]
    context = multiprocessing.get_context("fork")
    for start, size in numbers:
        with TemporaryDirectory(prefix="fuzz-") as name:
            folder = Path(name)
            chunk = (reader, size, f"{seed}/{reader.name}/{start}", folder, faults, start == 0)
            child = context.Process(target=_work, args=chunk)
            child.start()
            child.join()
            report = folder / "report.json"
            if report.is_file():
                outcome.add(json.loads(report.read_text()))
            else:
                current = (folder / "current").read_bytes()
                path = _keep(current, reader, faults)
                outcome.limits += 1
                outcome.inputs += 1
                outcome.faults.append(f"{reader.name}: ended with {child.exitcode} at {path}")
    return outcome


def _work(
    reader: Reader, size: int, name: str, folder: Path, faults: Path, with_corpus: bool
) -> None:
    """Read the inputs of one chunk and write a report; runs in a process of its own."""
    outcome = Outcome(reader.name)
    (folder / "work").mkdir()
    read = reader.open(folder / "work")
    one = _OneInput(reader, read, folder, faults, outcome)
    for path in sorted((CORPUS / reader.name).glob("*")) if with_corpus else []:
        one(path.read_bytes())
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")

    @seed(digest)
    @settings(
        max_examples=size,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63))
    def many(number: int) -> None:
        one(reader.make(number))

    many()
    (folder / "report.json").write_text(json.dumps(vars(outcome)))


class _TooSlow(BaseException):
    pass


class _OneInput:
    """Reads one input within the limits and notes what happened."""

    def __init__(
        self, reader: Reader, read: Read, folder: Path, faults: Path, outcome: Outcome
    ) -> None:
        self._reader, self._read, self._faults = reader, read, faults
        self._current = folder / "current"
        self._outcome = outcome
        self._reading = False
        signal.signal(signal.SIGALRM, self._stop)
        signal.signal(signal.SIGPROF, self._stop)
        read_warm = reader.make(0)
        self._current.write_bytes(read_warm)
        with contextlib.suppress(Exception, _TooSlow), self._time_limits():
            read(read_warm)  # imports count as nobody's memory
        limit = _virtual() + 4 * MEGABYTES * 2**20  # address space: threads reserve it
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def _stop(self, *_: object) -> None:
        if self._reading:
            raise _TooSlow

    @contextlib.contextmanager
    def _time_limits(self) -> Iterator[None]:
        """Raise :class:`_TooSlow` in code that takes too long; end a process that ignores that."""
        faulthandler.dump_traceback_later(12 * SECONDS, exit=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
        self._reading = True
        try:
            yield
        finally:
            self._reading = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()

    def __call__(self, data: bytes) -> None:
        outcome = self._outcome
        self._current.write_bytes(data)
        outcome.inputs += 1
        start = time.process_time()
        before = _start_of_memory()
        try:
            with self._time_limits():
                lost = self._read(data)
        except ClmDataError as error:
            lost = None
            outcome.refused += 1
            if not str(error).strip() or "\n" in str(error):
                outcome.tracebacks += 1
                self._fault(data, f"message is not one line: {str(error)[:200]!r}")
        except (_TooSlow, MemoryError) as error:
            lost = None
            outcome.limits += 1
            self._fault(data, f"over the limits: {type(error).__name__}")
        except Exception:
            lost = None
            outcome.tracebacks += 1
            self._fault(data, traceback.format_exc(limit=-3))
        outcome.slowest = max(outcome.slowest, time.process_time() - start)
        peak = _peak() - before
        outcome.peak = max(outcome.peak, peak)
        if lost is not None:
            outcome.lost += 1
            self._fault(data, f"lost: {lost}")
        if peak > MEGABYTES:
            outcome.limits += 1
            self._fault(data, f"peak of {peak:.0f} MB")

    def _fault(self, data: bytes, reason: str) -> None:
        path = _keep(data, self._reader, self._faults)
        if len(self._outcome.faults) < 10:
            self._outcome.faults.append(f"{self._reader.name}: {path}: {reason}")


def _keep(data: bytes, reader: Reader, faults: Path) -> Path:
    folder = faults / reader.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:12]
    path.write_bytes(data)
    return path


def _start_of_memory() -> float:
    """Resident memory in MB; the peak is counted from here (Linux resets it with a 5)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def _virtual() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
