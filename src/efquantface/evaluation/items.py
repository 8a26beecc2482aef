"""The interface of evaluation sets, the options of an evaluation, and a model's embeddings of a set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.templates import TemplateFlags
from efquantface.interfaces import Embeds, Progress


@dataclass(frozen=True)
class Options:
    """How an evaluation is done; shown beside its numbers.

    Attributes:
        flip: add the mirror image's embedding; neither is normalized first.
        threshold: the deployed threshold, a cosine; adds FAR and FRR there.
        arcface: add the numbers that arcface_torch prints (turns ``flip`` on).
        groups: group of each identity or image, for the spread between groups.
        templates: how embeddings are pooled to templates (IJB).
    """

    flip: bool = False
    threshold: float | None = None
    arcface: bool = False
    groups: dict[str, str] = field(default_factory=dict)
    templates: TemplateFlags = field(default_factory=TemplateFlags)

    @property
    def flips(self) -> bool:
        """Whether the mirror image's embedding is added."""
        return self.flip or self.arcface

    @property
    def text(self) -> str:
        """The flags, as shown beside every number."""
        return f"flip {'on' if self.flips else 'off'}, embeddings normalized, cosine"


@dataclass(frozen=True)
class Embedded:
    """A model's embeddings of an item.

    Attributes:
        rows: float32 (N,D), not normalized.
        lengths: float32 (N,) mean length of the crop's and its mirror image's embedding. Only with
            ``arcface``, whose XNorm is their mean.
    """

    rows: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.float32] | None = None


class EvalItem(ABC):
    """One evaluation set.

    Attributes:
        name: for tables.
    """

    name: str

    @abstractmethod
    def embed(
        self, embedder: Embeds, options: Options, progress: Progress | None = None
    ) -> Embedded:
        """The model's embeddings of all images or templates that are scored."""
