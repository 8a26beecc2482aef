"""How each kind of evaluation item is scored."""
