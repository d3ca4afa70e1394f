# make run              environment, install, then the quickstart sweep and its report
# make test             environment, install, then the whole test suite
# make quick            the tests that matter most, in under a minute
# make lint             style and types
# make api              the API reference in build/api; fails on a broken link or a name without description
# make lowest           the test suite with the oldest versions that pyproject.toml allows, in build/lowest
# make release-check    sdist and wheel; their metadata, and the wheel in an environment of its own

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SWEEP := runs/quickstart
# The formulas and their engine, the contract of every algorithm, records, tables and job names, the imports.
QUICK := tests/test_[!d]*.py tests/gradients tests/domainbed_gs/algorithms tests/algorithms/test_contract.py \
	tests/model_selection tests/records tests/results/test_*.py tests/training/test_config*.py \
	tests/training/test_checkpoint.py tests/sweep/test_grid.py tests/sweep/test_job.py tests/sweep/test_released_sweeps.py

.PHONY: run test quick lint api lowest release-check clean

run: $(VENV)/.installed-plots
	$(BIN)/python -m domainbed.scripts.sweep launch --config sweeps/quickstart.toml --skip_confirmation --quiet
	$(BIN)/python -m domainbed.scripts.collect_results --input_dir $(SWEEP) --paired --figures $(SWEEP)/figures

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

quick: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist worksteal $(QUICK)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

api: $(VENV)/.installed-dev
	$(BIN)/python docs/api_reference.py build/api

# cvxpy, for tests that compare with torchjd, would ask for a newer NumPy.
lowest: $(VENV)/.made
	rm -rf build/lowest
	$(BIN)/uv venv --quiet --python 3.11 build/lowest
	$(BIN)/uv pip install --quiet --compile-bytecode --resolution lowest-direct --python build/lowest/bin/python \
	    -e ".[dev]" "numpy<2"
	build/lowest/bin/python -m pytest -n 2 --dist worksteal

release-check: $(VENV)/.made
	rm -rf dist build/fresh
	$(BIN)/uv build --quiet
	$(BIN)/uv tool run --quiet twine check --strict dist/*
	$(BIN)/uv venv --quiet --python $(BIN)/python build/fresh
	$(BIN)/uv pip install --quiet --compile-bytecode --python build/fresh/bin/python dist/*.whl
	cd build/fresh && bin/python -m domainbed.scripts.list

# uv installs the same packages as pip in a third of the time; without compiled byte code each import of
# torch would take many seconds where PYTHONDONTWRITEBYTECODE is set.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/.made
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e ".[$*]"
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
	    "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
