# Each target makes what it needs; on a fresh machine one command is enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow lint bench-dedup bench-generate docs wheel clean

# The light core: what a user installs.
$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# The core and the tools that check it.
$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.core

demo: $(VENV)/.core   ## the whole way on the bundled bank, offline
	$(BIN)/clm-data demo clm_demo

test: $(VENV)/.dev    ## the default tests
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.dev   ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev    ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-dedup: $(VENV)/.core   ## the similarity join against plain cdist; SIZES="--full" takes minutes
	$(BIN)/python benchmarks/dedup_join.py $(SIZES)

bench-generate: $(VENV)/.dev   ## 1,000 requests against a chat server on loopback
	$(BIN)/python benchmarks/generate_throughput.py

docs: $(VENV)/.dev    ## the generated pages: docs/cli.md, docs/schema.md
	$(BIN)/python docs/generate.py docs

wheel: $(VENV)/.dev   ## dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf dist build clm_demo .pytest_cache .mypy_cache .ruff_cache
