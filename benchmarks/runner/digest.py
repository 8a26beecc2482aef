"""What decides a student's numbers, as one short digest."""

from __future__ import annotations

import hashlib
import json

from efquantface.recipe import Recipe

# Raise it in the commit after which a fixed recipe and seed give another student.
METHOD = 3

# Settings that leave a student's numbers alone. A setting that is not named here counts.
PLACES = {"teacher", "timings", "faces", "exclude", "follow_links", "cache", "faces_gb"}
MACHINE = {"device", "devices", "threads"}
AFTERWARDS = {"evaluation", "benchmark", "report_faces", "licence"}
CHECKS = {"check_alignment", "anyway"}
CHOICE = {"target"}  # a run chosen for one has the settings that it chose
LEFT_OUT = PLACES | MACHINE | AFTERWARDS | CHECKS | CHOICE | {"seed"}
TRAINING_LEFT_OUT = {"memory_gb", "compile"}
_LENGTH = 12


def recipe_digest(recipe: Recipe) -> str:
    """Twelve hexadecimal digits over every setting that decides a student's numbers, and ``METHOD``.

    Left out are paths, device, threads and memory, evaluation and what is done after it, and checks
    that only stop a run. The seed is left out, too: rows that differ in their seed only are means of
    one recipe. Teacher and faces are not settings; rows name them beside the digest.
    """
    values = recipe.model_dump(mode="json", exclude=LEFT_OUT)
    training = values["training"]
    values["training"] = {k: v for k, v in training.items() if k not in TRAINING_LEFT_OUT}
    text = json.dumps({"method": METHOD, **values}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]
