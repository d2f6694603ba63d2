# Every target creates .venv on first use. You need Python 3.11-3.13 and make.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MEDIAPIPE := $(VENV)/mediapipe/.installed
# All extras, and those alone whose lowest versions the others' dependencies would raise.
LOWEST := $(patsubst %,$(VENV)/lowest/%/.installed,all cli rest telemetry)
# Hides TensorFlow's C++ start-up messages, which bury a run's own output; its errors remain visible.
export TF_CPP_MIN_LOG_LEVEL ?= 2
# The C library keeps free memory apart for each of 8 groups of threads per core; a test worker has hundreds of threads.
export MALLOC_ARENA_MAX ?= 2

.PHONY: help install arm64 demo test test-all mutate lint format bench docs proto clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# uv takes one minute where pip takes four, but reads no pip.conf: where that names the package index, pip takes over.
install: $(INSTALLED) ## Create .venv with everything the tests need

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "keraslight needs Python 3.11, 3.12 or 3.13. Found: " + sys.version + ". Pass one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]' || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# MediaPipe and tensorflow-model-optimization can't share an environment; the tests run MediaPipe in its own process.
$(MEDIAPIPE): tests/export/mediapipe.txt | $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/mediapipe
	$(VENV)/mediapipe/bin/python -m pip install --quiet --disable-pip-version-check -r tests/export/mediapipe.txt
	@touch $@

# The lowest versions that pyproject.toml allows.
$(LOWEST): $(VENV)/lowest/%/.installed: pyproject.toml | $(INSTALLED)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --resolution lowest-direct -e '.[$*]'
	@touch $@

# Nothing else needs it: tests that do say so and are skipped without.
arm64: $(INSTALLED) ## Install an emulated ARM64 system, on which .tflite files run by a phone's kernels
	$(BIN)/keraslight install-arm64

demo: $(INSTALLED) ## Train, prune, quantize, export, serve and classify real digits; results go to runs/demo/
	$(BIN)/keraslight demo

# TensorFlow keeps what it has traced. In two runs the tests' workers stay below 4 GB, where one would take them to 5.
FIRST := $(addprefix tests/,analysis architectures blocks cli compress weights)
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# What failed in the first run is printed again at the end, where one looks.
define run_tests
	@status=0; \
	$(PYTEST) $(1) $(FIRST) | tee $(VENV)/first.txt || status=$$?; \
	$(PYTEST) $(1) $(addprefix --ignore=,$(FIRST)) || status=$$?; \
	echo "The first of the two runs:"; sed -n -E '/^=+ (FAILURES|ERRORS) =+$$/,$$p' $(VENV)/first.txt | head -n -1; tail -n 1 $(VENV)/first.txt; \
	exit $$status
endef

test: $(INSTALLED) $(MEDIAPIPE) ## Run the test suite without the slow sweeps
	$(call run_tests,-m "not slow")

test-all: $(INSTALLED) $(MEDIAPIPE) $(LOWEST) ## Run the whole test suite, and both packages with the lowest versions
	$(call run_tests)

mutate: $(INSTALLED) ## Break the code in many ways and print how many the tests notice
	$(BIN)/python -m tests.mutate

lint: $(INSTALLED) ## Run ruff, the type checker and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format the code and apply ruff's automatic fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Run the benchmarks and print their ratios
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(INSTALLED) ## Regenerate the pages in docs/; trains nets, which takes hours
	$(BIN)/python docs/generate.py
	$(BIN)/python -m tests.export.test_family_servables
	$(BIN)/python -m tests.compress.test_digits_matrix
	$(BIN)/python -m tests.compress.test_litert_families

proto: $(INSTALLED) ## Regenerate the Python code of the wire format
	$(BIN)/python -m keraslight_serving.wire._generate

clean: ## Remove .venv and caches; keeps runs/ and savedmodels/
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache
