# Everything runs in .venv, which the first target that needs it creates and fills.
# Needs: Python >= 3.11 with venv, and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST_VENV := .venv-lowest
LOWEST_READY := $(LOWEST_VENV)/.ready

.PHONY: help demo test lint format test-lowest clean

help:
	@echo "make demo         built-in model on its sample image; picture in out/demo.png"
	@echo "make test         ruff, mypy and pytest"
	@echo "make lint         ruff and mypy alone"
	@echo "make test-lowest  the tests with the lowest supported versions"
	@echo "make clean        remove environments, caches and outputs"

# torch comes first and alone, so that a CPU build that is already at hand is not replaced.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/prunus demo --output out/demo.png

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(BIN)/python -m pytest

$(LOWEST_READY): pyproject.toml constraints-lowest.txt
	test -x $(LOWEST_VENV)/bin/python || $(PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python -m pip install -c constraints-lowest.txt torch
	$(LOWEST_VENV)/bin/python -m pip install -c constraints-lowest.txt -e '.[viz,peft]' pytest
	touch $@

test-lowest: $(LOWEST_READY)
	$(LOWEST_VENV)/bin/python -m pytest

clean:
	rm -rf $(VENV) $(LOWEST_VENV) out build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
