# `make demo` and `make test` do all of their own set-up. PYTHON must be 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A GPU machine: make setup TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
TORCH ?= torch==2.13.0
READY := $(VENV)/.ready
# vLLM pins other versions than the service, so it has an environment of its own. Where no index has CPU builds of torch:
# make vllm VLLM_TORCH="torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu"
VLLM_VENV := .venv-vllm
VLLM_TORCH ?= torch==2.13.0+cpu
VLLM_LOCK := packages/memgen-vllm/requirements.lock
VLLM_READY := $(VLLM_VENV)/.ready

.PHONY: help first vllm test-slow test-vllm test-agents test-browser pictures setup demo demo-loop tour test lint unit format bench bench-recipe bench-serving bench-recording bench-dashboard bench-trigger bench-learning results architecture lock clean

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## A virtual environment with the locked dependencies

$(READY): requirements.lock requirements-data.lock pyproject.toml packages/memgen-client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version); say make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is not complete; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	grep -v '^torch==' requirements.lock > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-data.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--editable . --editable packages/memgen-client
	@touch $@

first: setup  ## The README's example: the service here, and a version that learned to greet
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; memgen up && sh -v docs/first.sh

demo: setup  ## The whole loop on a real model and real data; writes demo-report.json
	@MEMGEN_HOME="$${MEMGEN_HOME:-$(CURDIR)/.demo}" $(BIN)/memgen demo --report demo-report.json

demo-loop: setup  ## An agent that plays games gets better by its own runs, with nothing uploaded; writes bench/results/loop.json
	$(BIN)/python -m bench.loop

tour: setup  ## Run docs/tour.ipynb on a service of its own, in minutes, and keep what it shows
	@rm -rf .demo/tour
	@export MEMGEN_HOME="$(CURDIR)/.demo/tour"; $(BIN)/memgen up --port 0 \
		&& (. "$$MEMGEN_HOME/service.env"; export MEMGEN_API_URL MEMGEN_API_KEY; \
			$(BIN)/python docs/run_notebook.py docs/tour.ipynb); \
		status=$$?; $(BIN)/memgen down; exit $$status

test: setup lint unit  ## Everything that CI runs

test-agents: setup $(VENV)-agents/.ready  ## Loops of stock agents' clients against the service, over HTTP
	MEMGEN_AGENTS_PYTHON=$(CURDIR)/$(VENV)-agents/bin/python $(BIN)/python -m pytest tests/agents

test-browser: setup $(VENV)/.browser  ## The dashboard in a real Chromium (Debian: apt-get install chromium)
	MEMGEN_BROWSER=1 $(BIN)/python -m pytest tests/browser

pictures: setup $(VENV)/.browser  ## The screenshots of the docs anew: the demo's story in a real Chromium, on a real service
	MEMGEN_BROWSER=1 MEMGEN_PICTURES=$(CURDIR)/docs/pictures $(BIN)/python -m pytest tests/browser/test_story.py -k Mouse

$(VENV)/.browser: $(READY) requirements-browser.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-browser.lock
	@touch $@

$(VENV)-agents/.ready: requirements-agents.lock
	$(PYTHON) -m venv $(VENV)-agents
	$(VENV)-agents/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-agents.lock
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup  ## Replicas, a killed worker, a whole loop, hostile requests, several devices: what would not fit into a CI run
	$(BIN)/python -m pytest -m slow

vllm: $(VLLM_READY)  ## vLLM for CPUs with the plugin, in an environment of its own (3 GB)

# The lock lists everything, so nothing is resolved: what the wheel asks for beyond it does not fit (see there).
$(VLLM_READY): $(VLLM_LOCK) packages/memgen-vllm/pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(VLLM_TORCH)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r $(VLLM_LOCK)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--editable . --editable packages/memgen-vllm
	@$(VLLM_VENV)/bin/python -c 'import torch; assert torch.version.cuda is None, torch.__version__' \
		|| { echo "torch is a CUDA build; expected the CPU's: set VLLM_TORCH as the Makefile says"; exit 1; }
	@touch $@

# Minutes: engines start several times, in float32. Not a part of `make test`, whose environment has no vLLM.
test-vllm: setup vllm  ## The vLLM plugin against the service's own engine, and the engine `vllm` with it, on the CPU
	cd packages/memgen-vllm && ../../$(VLLM_VENV)/bin/python -m pytest
	MEMGEN_TEST_ENGINE=vllm $(BIN)/python -m pytest tests/api/inference/conformance tests/e2e/test_moved_alias.py tests/e2e/test_vllm_up.py

format: setup  ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## All benchmarks; JSON into bench/results/
	$(BIN)/python -m bench.speed
	$(BIN)/python -m bench.router
	$(BIN)/python -m bench.judges

bench-recipe: setup  ## What makes a memory learn fast, one change at a time (hours; goes on where it was)
	$(BIN)/python -m bench.recipe --task easy
	$(BIN)/python -m bench.recipe --task hard
	$(BIN)/python -m bench.recipe.plot

bench-serving: setup  ## How requests share the model, with one thread and with two, and what HTTP adds
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.serving --threads 2

bench-recording: setup  ## A thousand runs recorded by three processes at full load, one of them killed
	$(BIN)/python -m bench.recording

bench-dashboard: setup  ## The server's time for each page over 10,000 versions and a million trajectories; what indexing words costs
	$(BIN)/python -m bench.dashboard
	$(BIN)/python -m bench.words

bench-trigger: setup  ## What a trained trigger skips, and what it costs (goes on where it was)
	$(BIN)/python -m bench.trigger
	$(BIN)/python -m bench.trigger --kinds lora --harmless

bench-learning: setup  ## What memories learn and forget over four tasks, against baselines (hours; goes on where it was)
	$(BIN)/python -m bench.learning

results: setup  ## docs/results.md and research/learning.md anew, from the results there are
	$(BIN)/python -m bench.learning.report

architecture: setup  ## Draw docs/architecture.svg from the import graph
	$(BIN)/python docs/architecture_picture.py

lock: setup  ## Resolve the dependencies anew
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --extra dev --strip-extras --no-header --no-annotate --no-emit-find-links \
		--no-emit-index-url --no-emit-trusted-host --output-file requirements.lock pyproject.toml
	sed -i -e 's/+cpu$$//' -e '/^#/d' -e '/^setuptools/d' -e '/^$$/d' requirements.lock

clean:  ## Remove the environment and the demo's data
	rm -rf $(VENV) $(VENV)-agents $(VLLM_VENV) .demo demo-report.json
