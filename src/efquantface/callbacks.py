"""Who listens to a run: its stages, its losses and its metrics, as they come."""

from __future__ import annotations

from collections.abc import Mapping


class Callback:
    """What :func:`efquantface.compress` and :func:`efquantface.evaluate` tell while they work.

    Override the methods you need and pass instances as ``callbacks=[...]``. They are called in the
    thread that works, and what they raise ends the run. Sentences come by ``logging``, from the
    logger ``efquantface``.

    Example:
        >>> class Losses(Callback):
        ...     def on_step(self, step: int, total: int, loss: float) -> None:
        ...         print(f"{step} of {total}: {loss:.3f}")  # or writer.add_scalar("loss", loss, step)
        >>> Losses().on_step(1, 200, 0.25)
        1 of 200: 0.250
    """

    def on_stage(self, name: str, done: int, total: int) -> None:
        """A part of the run went on: ``done`` of ``total``, called as its progress bar is."""

    def on_step(self, step: int, total: int, loss: float) -> None:
        """A training step was taken; ``loss`` is its batch's, steps count from 1."""

    def on_metrics(self, name: str, values: Mapping[str, float]) -> None:
        """Numbers are there.

        Args:
            name: ``fine-tuning`` before training and after each epoch, or a protocol
                (``lfw pairs``).
            values: by name; of fine-tuning ``step`` and ``held-out loss``, of a protocol
                ``METRIC/teacher``, ``METRIC/student`` and ``METRIC/loss``.
        """
