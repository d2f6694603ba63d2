# Every target sets up .venv by itself, from nothing but Python 3.11 to 3.13 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MEDIAPIPE := $(VENV)/mediapipe/.installed
# TensorFlow's C++ start-up notes hide what a run has to say; its errors stay.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help install demo test test-all lint format bench docs proto clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(INSTALLED) ## Make .venv with everything the tests need

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "keraslight needs Python 3.11, 3.12 or 3.13. Found: " + sys.version + ". Pass one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# MediaPipe and tensorflow-model-optimization can't share an environment; the tests run it in a process of its own.
$(MEDIAPIPE): tests/export/mediapipe.txt | $(INSTALLED)
	$(PYTHON) -m venv $(VENV)/mediapipe
	$(VENV)/mediapipe/bin/python -m pip install --quiet --disable-pip-version-check -r tests/export/mediapipe.txt
	@touch $@

demo: $(INSTALLED) ## Train, prune, quantize, export, serve and classify real digits; the table ends in runs/demo/
	$(BIN)/keraslight demo

test: $(INSTALLED) $(MEDIAPIPE) ## The test suite without the slow sweeps
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: $(INSTALLED) $(MEDIAPIPE) ## The whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED) ## ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(INSTALLED) ## Let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Print the benchmarks' ratios
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(INSTALLED) ## Write the generated pages in docs/ again
	$(BIN)/python docs/generate.py
	$(BIN)/python tests/export/test_family_servables.py
	$(BIN)/python tests/compress/test_digits_matrix.py

proto: $(INSTALLED) ## Generate the wire format's Python code again
	$(BIN)/python -m keraslight_serving.wire._generate

clean: ## Remove .venv and caches; runs/ and savedmodels/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache
