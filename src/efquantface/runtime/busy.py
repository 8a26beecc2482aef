"""Measures whether other work kept the machine busy during a measurement."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

_BUSY = 0.1  # share of all cores; an idle system takes less


@dataclass(frozen=True)
class Load:
    """The load of the machine's cores over a measurement.

    Attributes:
        cores: logical cores of the machine.
        average: load average of the last minute.
        own: share of all cores that this process took, 0 to 1.
        others: share that everything else took, 0 to 1; on virtual machines this includes the host.
    """

    cores: int
    average: float
    own: float
    others: float

    @property
    def busy(self) -> bool:
        """Whether other processes took so much that milliseconds mean little."""
        return self.others > _BUSY

    def describe(self) -> str:
        """One line for a user."""
        said = (
            f"other processes took {self.others:.0%} of the {self.cores} cores meanwhile "
            f"(load average {self.average:.1f})"
        ).replace("%", " %")
        return f"{said}: read ratios, not milliseconds" if self.busy else said


class Watch:
    """A context around a measurement; ``load`` is set at its end.

    Example:
        >>> with Watch() as watch:
        ...     total = sum(range(1000))
        >>> 0 <= watch.load.others <= 1
        True
    """

    load: Load

    def __enter__(self) -> Watch:
        import psutil

        self._process = psutil.Process()
        psutil.cpu_percent()  # the next call measures from here on
        self._process.cpu_percent()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import psutil

        cores = psutil.cpu_count() or 1
        every = psutil.cpu_percent() / 100
        own = min(self._process.cpu_percent() / 100 / cores, 1.0)
        average = psutil.getloadavg()[0]
        self.load = Load(cores, average, own, min(max(every - own, 0.0), 1.0))
