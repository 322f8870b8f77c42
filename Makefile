# Two commands do everything on a fresh machine: make quickstart, make test.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help quickstart test check assets slow gpu soak fuzz bench docs clean

help:  ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

.venv/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

quickstart: .venv/installed  ## Install, then fine-tune the embedded base on a few handwritten digits
	$(BIN)/tltool finetune recipes/quickstart.yaml

test: .venv/installed-dev  ## Run the default tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/installed-dev  ## Run the linters and the type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

assets: .venv/installed-dev  ## Run the tests on real weights and images, under TL_TOOLKIT_ASSETS
	$(BIN)/python -m pytest -m assets

slow: .venv/installed-dev  ## Run the slow tests, two files at a time; TL_TOOLKIT_TURN=0/8 runs a part of them
	$(BIN)/python -m pytest -m 'slow and not assets' -n 2 --dist loadfile

gpu: .venv/installed-dev  ## Run the tests that need a GPU; says so and ends well where there is none
	$(BIN)/python tests/gpu.py

KILLS ?= 200
soak: .venv/installed-dev  ## Kill commands at random moments, go on, and compare; KILLS=10 for a short one
	$(BIN)/python tests/soak.py --kills $(KILLS)

RECIPES ?= 100000
IMAGES ?= 10000
fuzz: .venv/installed-dev  ## Try mutated recipes and images; RECIPES=1000 IMAGES=100 for a short one
	$(BIN)/python tests/fuzz.py recipes --count $(RECIPES)
	$(BIN)/python tests/fuzz.py images --count $(IMAGES)

bench: .venv/installed-dev  ## Print the benchmarks' tables
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

docs: .venv/installed-dev  ## Write the references, the outputs of commands and the pictures of docs/
	$(BIN)/python docs/build.py
	$(BIN)/python docs/examples.py

clean:  ## Remove the environment and what tools left behind
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
