"""How large one result may be, and the error that says that it is not. Needs nothing."""

from __future__ import annotations

MOST_VALUES = 1 << 27  # of one result for one crop: 512 MB, a hundred times what face networks have


class TooLarge(ValueError):
    """A result would have more values than any network's."""
