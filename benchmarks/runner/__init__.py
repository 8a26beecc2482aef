"""Suites as data, one way to run them, rows as lines of JSON, tables made from the rows."""
