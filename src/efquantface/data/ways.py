"""Names of the ways to choose few images out of many."""

WAYS = ("random", "identities", "coverage")
