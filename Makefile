# make demo and make test are all that a fresh machine with Python 3.11 needs.
PYTHON ?= python3
# Otherwise each of hundreds of processes that tests start compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
# A worker per core and one more, as some tests wait; eight at most. A worker does whole files.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# Most of their 24,000 files are never imported: the others are compiled when they are.
INSTALL := $(PIP) install --no-compile -c constraints.txt

.PHONY: demo test test-all lint bench clean

demo: $(VENV)/core
	$(BIN)/harken demo demo
	@echo "open demo/report.html"

test: $(VENV)/dev
	$(PYTEST)

test-all: $(VENV)/dev
	$(PYTEST) -m "slow or not slow"

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The core needs no torch; tests and neural encoders do.
$(VENV)/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	touch $@

$(VENV)/dev: $(VENV)/core
	$(INSTALL) torch
	$(INSTALL) -e ".[all,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo build dist
