"""The numbers of one process, and how Prometheus reads them (text exposition format 0.0.4).

Counting costs a dictionary look-up and an addition, well under a microsecond; everything else is read when asked.
Each number is written by one thread only. Several processes of one server put their numbers side by side in a folder,
told apart by the label `worker`: nothing is added up here, and a restarted worker is a counter that starts
at zero, as Prometheus expects it.
"""

import json
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]
"""What follows the family's name, the labels, the value."""


class Histogram:
    """How often a value was at most each bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, labels: Labels = ()) -> list[Sample]:
        """Buckets (each holds those below it), sum and count."""
        found: list[Sample] = []
        so_far = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), tuple(self.counts), strict=True):
            so_far += count
            found.append(("_bucket", (*labels, ("le", bound)), so_far))
        return [*found, ("_sum", labels, self.total), ("_count", labels, so_far)]


@dataclass(slots=True)
class Family:
    """All samples of one name."""

    kind: str
    about: str
    samples: list[Sample] = field(default_factory=list)


Read = Callable[[], float | Mapping[str, float]]
"""A gauge's value, or one for each value of its label."""


class Metrics:
    """The numbers of this process."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], Histogram] = {}
        """Seconds that requests took, by action and result."""
        self.unrecorded: dict[str, int] = {}
        """Requests that were turned away without an entry, by code."""
        self.commit_seconds = Histogram(SECONDS)
        self.commit_entries = Histogram(SIZES)
        self.commit_failures = 0
        self.connections_refused: dict[str, int] = {}
        """Connections that were closed on their client, by reason."""
        self._gauges: dict[str, tuple[str, str | None, Read]] = {}
        self._started = time.time()
        self._folder: Path | None = None
        self.worker = ""
        """Which of several processes this is; empty for the only one."""

    def count_request(self, action: str, result: str, seconds: float) -> None:
        """Count a request that is on record."""
        known = self.requests.get((action, result))
        if known is None:
            known = self.requests[action, result] = Histogram(SECONDS)
        known.add(seconds)

    def count_unrecorded(self, code: str) -> None:
        """Count a request that was turned away without an entry."""
        self.unrecorded[code] = self.unrecorded.get(code, 0) + 1

    def count_connection(self, reason: str) -> None:
        """Count a connection that was closed on its client."""
        self.connections_refused[reason] = self.connections_refused.get(reason, 0) + 1

    def gauge(self, name: str, about: str, read: Read, *, label: str | None = None) -> None:
        """Have a number read whenever the metrics are; with `label`, one for each of its values."""
        self._gauges[name] = about, label, read

    def share(self, folder: Path, worker: str) -> None:
        """Be one of several processes whose numbers meet in a folder."""
        self._folder, self.worker = folder, worker

    def publish(self) -> None:
        """Leave this process's numbers for its fellows. Without effect where there are none."""
        if self._folder is None:
            return
        written = {name: [one.kind, one.about, one.samples] for name, one in self._families().items()}
        draft = self._folder / f".{self.worker}"
        draft.write_text(json.dumps(written), encoding="ascii")
        draft.replace(self._folder / self.worker)

    def abandon(self) -> None:
        """Remove the folder: the process that made it has ended."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def page(self) -> str:
        """Everything, as text."""
        families = self._families()
        for other in self._others():
            for name, (kind, about, samples) in other.items():
                known = families.setdefault(name, Family(kind, about))
                known.samples += [
                    (suffix, tuple((k, v) for k, v in labels), value) for suffix, labels, value in samples
                ]
        return "".join(_write(name, one) for name, one in sorted(families.items()))

    def _others(self) -> Iterable[dict[str, tuple[str, str, list[Sample]]]]:
        for file in () if self._folder is None else sorted(self._folder.iterdir()):
            if file.name != self.worker and not file.name.startswith("."):
                with suppress(OSError, ValueError):
                    yield json.loads(file.read_bytes())

    def _families(self) -> dict[str, Family]:
        found = {
            "process_start_time_seconds": Family("gauge", "When the process began, Unix time.", [_one(self._started)]),
            "keyvault_requests_total": Family("counter", "Requests on record."),
            "keyvault_request_seconds": Family("histogram", "From the parsed request to the durable entry."),
            "keyvault_unrecorded_total": Family(
                "counter", "Requests turned away without an entry.", _by("code", self.unrecorded)
            ),
            "keyvault_commit_seconds": Family(
                "histogram", "One transaction, waiting for the lock included.", self.commit_seconds.samples()
            ),
            "keyvault_commit_entries": Family("histogram", "Entries a transaction.", self.commit_entries.samples()),
            "keyvault_commit_failures_total": Family(
                "counter", "Transactions that failed.", [_one(self.commit_failures)]
            ),
            "keyvault_connections_refused_total": Family(
                "counter", "Connections closed on their client.", _by("reason", self.connections_refused)
            ),
        }
        for (action, result), histogram in sorted(self.requests.items()):
            labels = (("action", action), ("result", result))
            found["keyvault_request_seconds"].samples += histogram.samples(labels)
            found["keyvault_requests_total"].samples.append(("", labels, sum(histogram.counts)))
        for name, (about, label, read) in self._gauges.items():
            value = read()
            samples = _by(label or "", value) if isinstance(value, Mapping) else [_one(value)]
            found[name] = Family("gauge", about, samples)
        if self.worker:
            mark = ("worker", self.worker)
            for one in found.values():
                one.samples = [(suffix, (*labels, mark), value) for suffix, labels, value in one.samples]
        return found


def _one(value: float) -> Sample:
    return "", (), value


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [("", ((label, name),), value) for name, value in sorted(values.items())]


def _write(name: str, family: Family) -> str:
    lines = [f"# HELP {name} {family.about}\n# TYPE {name} {family.kind}\n"]
    for suffix, labels, value in family.samples:
        said = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
        braces = f"{{{said}}}" if said else ""
        lines.append(f"{name}{suffix}{braces} {value:.17g}\n")
    return "".join(lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


METRICS: Final = Metrics()
"""Of this process, as its logs are."""
