"""The files that ``efq export`` writes: one module per format, all with one interface (:mod:`table`)."""
