# Each target installs what it needs into .venv; on a fresh machine one command is enough.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo demo-eval demo-eval-all paper-mini paper-small test test-slow test-eval test-easyedit test-gpu fuzz lint bench-dedup bench-edit bench-gpu bench-threads bench-generate docs docs-architectures docs-site wheel clean

# The light core: what a user installs.
$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# The core and the development tools.
$(VENV)/.dev: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.core

# The core and what builds the site.
$(VENV)/.docs: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	@touch $@ $(VENV)/.core

# The same with torch (pinned in constraints.txt) and the packages that the evaluation's tests read.
$(VENV)/.eval: pyproject.toml constraints.txt tests/eval/requirements.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[eval,dev]'
	$(PIP) install --no-deps --requirement tests/eval/requirements.txt
	@touch $@ $(VENV)/.core $(VENV)/.dev

demo: $(VENV)/.core   ## the full pipeline on bundled data, offline
	$(BIN)/clm-data demo clm_demo

demo-eval: $(VENV)/.eval   ## train a small model on the demo's dataset, edit it, print the table
	$(BIN)/clm-data demo clm_demo
	$(BIN)/clm-data eval-baselines --recipe cpu-miniature --dataset clm_demo/dataset --out clm_demo/eval

demo-eval-all: $(VENV)/.eval   ## the same with every method, the report, and a check of the results; a quarter of an hour
	$(BIN)/clm-data demo clm_demo
	$(BIN)/clm-data eval-baselines --recipe all-methods --dataset clm_demo/dataset --out clm_demo/eval-all
	$(BIN)/clm-data report clm_demo/eval-all --html clm_demo/eval-all/report.html --dataset clm_demo/dataset
	$(BIN)/python docs/every_method.py clm_demo/eval-all

paper-mini: $(VENV)/.eval   ## the paper's tables and figures, scaled down, and the report, from the demo's dataset
	$(BIN)/clm-data demo clm_demo
	$(BIN)/clm-data eval-baselines --recipe paper-mini --dataset clm_demo/dataset --out clm_demo/paper --save-deltas
	$(BIN)/clm-data analyze clm_demo/paper --dataset clm_demo/dataset
	$(BIN)/clm-data report clm_demo/paper --html clm_demo/paper/report.html --dataset clm_demo/dataset

# transformers converts a GGUF file's tokenizer incorrectly for Chinese, so the model's own is used.
TOKENIZER ?= $(or $(wildcard ../shared/reference/smollm2_tokenizer),HuggingFaceTB/SmolLM2-135M)
DATASET   ?= $(or $(wildcard ../shared/data/clm_bench_sample/merged_alternate_fields_no_english.json),clm_demo/dataset)

paper-small: $(VENV)/.eval   ## the same on SmolLM2-135M, one or two hours; set TOKENIZER and DATASET to change the defaults
	test -e $(DATASET) || $(BIN)/clm-data demo clm_demo
	$(BIN)/clm-data eval-baselines --recipe paper-small --tokenizer $(TOKENIZER) --dataset $(DATASET) --out clm_demo/small --save-deltas
	$(BIN)/clm-data analyze clm_demo/small --dataset $(DATASET)
	$(BIN)/clm-data report clm_demo/small --html clm_demo/small/report.html --dataset $(DATASET)

# Hides torch, so that the result is the same whether the extra eval is installed or not.
WITHOUT_TORCH := CLM_DATA_TESTS_WITHOUT_TORCH=1

test: $(VENV)/.dev    ## the default tests
	$(WITHOUT_TORCH) $(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.dev   ## the slow tests
	$(WITHOUT_TORCH) $(BIN)/python -m pytest -m slow

test-eval: $(VENV)/.eval   ## the evaluation's tests with torch, slow ones and parity included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/eval -n auto -m 'not gpu'

test-gpu: $(VENV)/.eval   ## the tests that need a GPU
	$(BIN)/python -m pytest tests/eval -m gpu

# The environment is not in the checkout: it takes 1 GB and minutes, and is kept.
EASYEDIT_ENV ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/clm-data/easyedit-$(if $(EASYEDIT_HOME),checkout,release)

test-easyedit: $(VENV)/.eval   ## EasyEdit itself as a back end; with EASYEDIT_HOME a checkout of it, on SmolLM2 too
	$(BIN)/clm-data eval setup-easyeditor $(EASYEDIT_ENV) $(if $(EASYEDIT_HOME),--checkout $(EASYEDIT_HOME))
	EASYEDIT_PYTHON=$(EASYEDIT_ENV)/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/eval/easyedit/test_real.py -m slow -s

fuzz: $(VENV)/.dev    ## random and damaged inputs for every reader; FUZZ="--inputs 100000 --seed 2"
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

lint: $(VENV)/.dev    ## style, types, and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-dedup: $(VENV)/.core   ## the similarity join against rapidfuzz's cdist; SIZES="--full" takes minutes
	$(BIN)/python benchmarks/dedup_join.py $(SIZES)

bench-edit: $(VENV)/.eval    ## MEMIT edits of 10 and 50 facts against a plain loop, one thread each
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/edit_speed.py

bench-threads: $(VENV)/.eval   ## a sweep with one thread and with all, on a machine kept busy
	$(BIN)/python benchmarks/busy_machine.py

bench-gpu: $(VENV)/.eval   ## a MEMIT edit of 1,000 facts in a random 8B model on a GPU; BENCH="--model DIR"
	$(BIN)/python benchmarks/gpu_edit.py $(BENCH)

bench-generate: $(VENV)/.dev   ## 1,000 requests against a chat server on loopback
	$(BIN)/python benchmarks/generate_throughput.py

docs: $(VENV)/.dev    ## the generated pages: docs/reference/cli.md, docs/reference/schema.md
	$(BIN)/python docs/generate.py docs

docs-architectures: $(VENV)/.eval   ## docs/reference/architectures.md, for the installed transformers; a minute
	$(BIN)/python docs/architectures.py

docs-site: $(VENV)/.docs   ## the documentation site, in site/; any warning is an error
	$(BIN)/python docs/site.py

wheel: $(VENV)/.dev   ## dist/*.whl
	$(BIN)/python -m build --wheel --outdir dist .

clean:
	rm -rf dist build site clm_demo .pytest_cache .mypy_cache .ruff_cache
