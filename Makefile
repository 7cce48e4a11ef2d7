# Two commands for newcomers, each of which sets up .venv by itself: `make emulate` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= emulation

DEVELOPER := $(VENV)/.developer

.PHONY: venv emulate test slow lint clean

venv: $(STAMP)

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# by a path: the default, a finder, comes after any folder named scoremd, such as a clone, in the folder that Python is started in
EDITABLE = --config-settings editable_mode=compat

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) $(EDITABLE) -e .
	touch $@

$(DEVELOPER): $(STAMP)
	$(PIP) $(EDITABLE) -e '.[dev]'
	touch $@

emulate: venv
	$(BIN)/scoremd emulate KS -o $(OUT)

test: $(DEVELOPER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

slow: $(DEVELOPER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m slow

lint: $(DEVELOPER)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
