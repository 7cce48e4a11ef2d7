# Two commands for newcomers, each of which sets up .venv by itself: `make emulate` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= emulation

.PHONY: venv emulate test slow lint clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

emulate: venv
	$(BIN)/scoremd emulate ALDP -o $(OUT)

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q

slow: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m slow

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
