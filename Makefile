# The verbs of daily use. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXPERIMENT ?= solar_cells
TRIALS ?=

.DEFAULT_GOAL := help
.PHONY: help setup sweep test test-slow test-browser test-distributed test-lowest fuzz lint docs bench bench-quick torture torture-quick torture-distributed ui clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*\#\#' $(MAKEFILE_LIST) | awk -F':.*\#\# ' '{printf "  make %-13s %s\n", $$1, $$2}'

# The stamp is newer than pyproject.toml once everything in it is installed.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "imgcls needs Python 3.11 or newer; say which with: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[solar,pretrained,heic,ship,docs,dev]'
	@touch $@

setup: $(VENV)/.installed  ## create .venv and install everything into it

sweep: setup  ## search, tracked and resumable: make sweep [EXPERIMENT=name] [TRIALS=n] [BUDGET=30m]
	$(BIN)/python -m imgcls sweep $(EXPERIMENT) $(if $(TRIALS),--trials $(TRIALS)) $(if $(BUDGET),--budget $(BUDGET))

# Processes with one thread each: on small tensors, more threads only wait for one another.
# With MARKS="not browser and not distributed" these and the slow ones, which share what their files set up.
test: MARKS = not slow and not distributed
test: PROCESSES = 2
test: setup  ## the everyday tests, about five minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal -m "$(MARKS)"

test-slow: setup  ## the tests that take longer: commands in a shell, workers, kills, the README's commands
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not browser and not distributed"

# Debian's Chromium; Playwright downloads no browser. Without it the tests fail; IMGCLS_WITHOUT_BROWSER=1 leaves them out.
test-browser: setup  ## MLflow's UI, Optuna's dashboard and the reports, in Chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

# PostgreSQL is started by the tests, on this machine alone and with files that go away: one for each of two processes.
# Each of them takes whole files, so that the tests of one file share the servers that these start. To read the files
# that have no such tests would take ten seconds more.
test-distributed: setup  ## sweeps on several machines, PostgreSQL, Ray and torchrun
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m distributed \
		$$(grep -rl --include="*.py" mark.distributed tests)

# In an environment of its own, made again each time. Old versions warn of each other: that is not a failure.
test-lowest:  ## the everyday tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct \
		--editable '.[solar,pretrained,heic,ship,dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not distributed" \
		-W default::DeprecationWarning -W "default:The epoch parameter"

fuzz: setup  ## give 10,000 hostile files and options, new ones each time, to the readers of configs, images and checkpoints
	IMGCLS_FUZZ=long OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/fuzz

lint: setup  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Warnings are errors: a link or an anchor that leads nowhere ends it.
docs: setup  ## make the site of the documentation in build/site; needs no network
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs -d build/doctrees . build/site
	@echo "build/site/index.html"

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[solar,bench]'
	@touch $@

bench: $(VENV)/.installed-bench  ## compare the speed with the bare step and other loops, and write benchmarks/RESULTS.md; under an hour
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.installed-bench  ## the same with fewer images: under 20 minutes on two cores; ends with a line of JSON
	$(BIN)/python -m benchmarks --quick

torture: setup  ## kill sweeps at 200 random instants and check that nothing was lost; under an hour
	$(BIN)/python -m torture --writers 8 --trials 200
	$(BIN)/python -m torture --workers 2 --kills 40
	$(BIN)/python -m torture --kills 140
	$(BIN)/python -m torture --kills 40 --pruner halving
	$(BIN)/python -m torture --kills 40 --pruner halving --folds 4

torture-quick: setup  ## the same with 10 kills, on one core: about 4 minutes
	$(BIN)/python -m torture --lanes 1 --kills 5
	$(BIN)/python -m torture --lanes 1 --kills 5 --pruner halving --folds 4

torture-distributed: setup  ## 1,000 light trials by 16 workers through Optuna's proxy, PostgreSQL and an MLflow server
	IMGCLS_LIGHT_TRIALS=1000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m distributed -k light_workers tests/search

# One worker and no job runner: two processes instead of fourteen.
ui: setup  ## MLflow's UI on this repository's store, with little memory
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_WORKERS=1 $(BIN)/mlflow ui

clean:  ## remove the environment and the caches of the tools, never a run
	rm -rf $(VENV) .venv-lowest build .pytest_cache .ruff_cache .mypy_cache
