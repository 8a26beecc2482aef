# `make demo` and `make test` set up everything they need on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

MINUTES ?= 10

.PHONY: demo test lint types site tables fuzz fuzz-short clean

demo: $(STAMP)
	$(BIN)/efq demo --force

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks tables --check

# tables and plots of docs/results.md and README.md from benchmarks/results
tables: $(STAMP)
	$(BIN)/python -m benchmarks tables

types: $(STAMP)
	$(BIN)/mypy

# the documents as a site in build/site; a link or name that leads nowhere fails it
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# hostile inputs for every reader (docs/security.md)
fuzz: $(STAMP)
	$(BIN)/python -m fuzz --minutes $(MINUTES)

fuzz-short: $(STAMP)
	$(BIN)/python -m fuzz --short

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,docs]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) efq-demo build dist .hypothesis
