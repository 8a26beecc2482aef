"""How few images may be chosen out of many."""

WAYS = ("random", "identities", "coverage")
