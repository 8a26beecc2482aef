"""Student or teacher to a LiteRT file: the forms of operators, the tables of the file, its check."""
