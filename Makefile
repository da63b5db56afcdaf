# Two commands need nothing but Python 3.11 or later with pip: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types environment clean

demo: environment
	$(BIN)/gptmill run -c configs/demo.toml

test: environment
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: environment
	$(BIN)/mypy

environment: $(VENV)/.installed

# torch comes first and by itself: resolved together with the rest, pip may choose a build with gigabytes of CUDA.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) data/store
