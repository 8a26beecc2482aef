"""How large one result may be, and the error of a larger one. Needs nothing."""

from __future__ import annotations

# of one result for one crop: 512 MB, a hundred times the most of face networks
MOST_VALUES = 1 << 27


class TooLarge(ValueError):
    """A result would have too many values."""
