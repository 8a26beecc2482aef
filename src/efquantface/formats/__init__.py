"""The files that ``efq export`` writes: one room a format, all of one interface (:mod:`table`)."""
