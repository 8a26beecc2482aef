"""What can be evaluated: something that a model embeds, and protocols that score the embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from efquantface.evaluation.templates import TemplateFlags
from efquantface.interfaces import Embeds, Progress


@dataclass(frozen=True)
class Options:
    """How an evaluation is done; stated beside its numbers.

    Attributes:
        flip: add the mirror image's embedding, both as they come.
        threshold: a cosine already deployed; adds FAR and FRR there.
        arcface: also the numbers that arcface_torch prints (turns ``flip`` on).
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
        """Whether embeddings hold the mirror image's."""
        return self.flip or self.arcface

    @property
    def text(self) -> str:
        """The flags that every number is stated with."""
        return f"flip {'on' if self.flips else 'off'}, embeddings normalized, cosine"


@dataclass(frozen=True)
class Embedded:
    """A model's embeddings (N,D) of an item, not normalized.

    Attributes:
        lengths: (N,) mean length of the crop's and its mirror's embedding, where both were asked for
            apart (arcface_torch's XNorm is its mean).
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
        """The model's embeddings of everything that is scored."""
