"""Was the machine busy with other work while something was measured?"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

_BUSY = 0.1  # share of all cores; less is what any system does beside


@dataclass(frozen=True)
class Load:
    """What the machine's cores did over a measurement.

    Attributes:
        cores: logical ones, of the whole machine.
        average: processes that wanted a core, over the last minute before the end.
        own: share of all cores that this process took, 0 to 1.
        others: share that everything else took, 0 to 1; on virtual machines also what the host took.
    """

    cores: int
    average: float
    own: float
    others: float

    @property
    def busy(self) -> bool:
        """Whether others took so much that milliseconds say little."""
        return self.others > _BUSY

    def describe(self) -> str:
        """One line for a user."""
        said = (
            f"other processes took {self.others:.0%} of the {self.cores} cores meanwhile "
            f"(load average {self.average:.1f})"
        ).replace("%", " %")
        return f"{said}: read ratios, not milliseconds" if self.busy else said


class Watch:
    """Around a measurement: ``load`` is there once it has ended.

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
        psutil.cpu_percent()  # the next call tells what was since this one
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
