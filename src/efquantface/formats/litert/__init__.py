"""From a student or teacher to a LiteRT file: forms of operators, tables of the file, its check."""
