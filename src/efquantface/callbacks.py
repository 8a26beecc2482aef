"""Callbacks that get a run's stages, losses and metrics while it works."""

from __future__ import annotations

from collections.abc import Mapping


class Callback:
    """Base of callbacks for :func:`efquantface.compress` and :func:`efquantface.evaluate`.

    Override the methods you need and pass instances as ``callbacks=[...]``. They are called in the
    thread of the run; an exception in them ends it. Log lines go to the logger ``efquantface`` of
    ``logging``.

    Example:
        >>> class Losses(Callback):
        ...     def on_step(self, step: int, total: int, loss: float) -> None:
        ...         print(f"{step} of {total}: {loss:.3f}")  # or writer.add_scalar("loss", loss, step)
        >>> Losses().on_step(1, 200, 0.25)
        1 of 200: 0.250
    """

    def on_stage(self, name: str, done: int, total: int) -> None:
        """A stage of the run has advanced to ``done`` of ``total``, as its progress bar shows."""

    def on_step(self, step: int, total: int, loss: float) -> None:
        """A training step is done; ``loss`` is of its batch, ``step`` counts from 1."""

    def on_metrics(self, name: str, values: Mapping[str, float]) -> None:
        """Metrics have been measured.

        Args:
            name: ``fine-tuning`` (before training and after each epoch), or a protocol such as
                ``lfw pairs``.
            values: numbers by name. ``fine-tuning`` has ``step`` and ``held-out loss``. A protocol has
                ``METRIC/teacher``, ``METRIC/student`` and ``METRIC/loss``.
        """
