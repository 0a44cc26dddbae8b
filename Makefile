# `make demo` opens the tour in JupyterLab, `make test` runs every test, `make bench` measures against other tools.
#
#   PYTHON=python3.13   the interpreter that makes .venv (3.11 or newer)
#   PORT=9000           the port of JupyterLab; HEADLESS=1 opens no browser and only prints the URL
#   FULL=1              make test with every combination of the slow matrices; JOBS=4 test files at a time, else 2
#   QUICK=1             make bench on tiny models, which says nothing but that it works
#   TORCH_INDEX=        empty: torch as the package index has it, on Linux with gigabytes of CUDA

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPESCRIPT := 5.9.3
JOBS ?= 2
IPYKERNEL_6 := ipykernel==6.31.0 nest-asyncio==1.6.0

# PyTorch's own index of CPU builds. pip carries on without it where it cannot be reached, and takes torch
# from wherever else it is configured to look.
ifeq ($(shell uname -s),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif
FROM_TORCH_INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --timeout 15 --retries 1)

PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
WITH_NODE := node="$$($(BIN)/python tests/provide_node.py)" && PATH="$$node:$$PATH"
NO_NEWS := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
JUPYTER_FLAGS := $(if $(PORT),--ServerApp.port=$(PORT)) $(if $(filter-out 0,$(HEADLESS)),--no-browser)
# Jupyter refuses to run as root, which is what one is in most containers.
JUPYTER_FLAGS += $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: demo test bench lint clean

demo: $(VENV)/demo.stamp
	$(BIN)/python -m interpwidgets fetch
	$(BIN)/python -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb $(JUPYTER_FLAGS)

test: export HF_HUB_OFFLINE := 1
test: export HF_HUB_DISABLE_PROGRESS_BARS := 1
test: $(VENV)/dev.stamp $(VENV)/ipykernel6.stamp lint
	$(BIN)/python -m interpwidgets fetch
	$(WITH_NODE) node --test tests/js/*.test.mjs
	$(BIN)/python tests/provide_chromium.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(if $(filter-out 0,$(FULL)),--full) --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --durations=30
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 300 notebooks

bench: export HF_HUB_OFFLINE := 1
bench: $(VENV)/bench.stamp
	$(BIN)/python -m interpwidgets fetch
	$(BIN)/python tests/provide_chromium.py
	$(BIN)/python -m tests.benchmarks $(if $(filter-out 0,$(QUICK)),--quick,--write)

lint: $(VENV)/dev.stamp $(VENV)/typescript.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(WITH_NODE) $(VENV)/typescript/node_modules/.bin/tsc --noEmit --project .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache

# The stamps say what .venv already holds, so that a second run installs nothing.
$(VENV)/venv.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "interpwidgets needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	touch $@

# torch goes first and alone, so that one short look into PyTorch's index is all there is.
$(VENV)/torch.stamp: constraints.txt $(VENV)/venv.stamp
	$(PIP_INSTALL) --no-deps $(FROM_TORCH_INDEX) "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt $(VENV)/torch.stamp
	$(PIP_INSTALL) -e '.[demo,lab,png]'
	mkdir -p $(VENV)/share/jupyter/lab/settings
	echo '$(NO_NEWS)' > $(VENV)/share/jupyter/lab/settings/overrides.json
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt $(VENV)/torch.stamp
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

# BertViz goes without its dependencies: it draws with what is there.
$(VENV)/bench.stamp: pyproject.toml constraints.txt $(VENV)/torch.stamp
	$(PIP_INSTALL) -e '.[bench]'
	$(PIP_INSTALL) --no-deps bertviz
	touch $@

$(VENV)/typescript.stamp: Makefile $(VENV)/dev.stamp
	$(WITH_NODE) npm install --prefix $(VENV)/typescript --no-save --no-audit --no-fund typescript@$(TYPESCRIPT)
	touch $@

# Kernels of the tests that look into this folder first are of ipykernel 6; all else they have from .venv.
$(VENV)/ipykernel6.stamp: Makefile $(VENV)/dev.stamp
	rm -rf $(VENV)/ipykernel6
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --target $(VENV)/ipykernel6 $(IPYKERNEL_6)
	touch $@
