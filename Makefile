# `make demo` and `make test` each do everything on a machine that has Python 3.11 or newer and make.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Another torch: a version (TORCH=torch==2.8.0), a wheel, or pip options that find a CPU or CUDA build.
TORCH ?= $(shell grep '^torch==' constraints.txt)
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt
PROMPT = toy_face, pixel art, a yellow heart on a blue background

.PHONY: install demo test check format completions tables bench clean
.DELETE_ON_ERROR:

install: $(VENV)/.installed

$(VENV)/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "lorakit needs Python 3.11 or newer, and none was found; install one, or name it: make PYTHON=/path/to/python3.12 demo"; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "lorakit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing lorakit into $(VENV); torch makes this take a few minutes"
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP) $(TORCH)
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/lorakit generate --lora toy:1.0 --lora pixel:0.5 --seed 7 --overwrite --out demo.png "$(PROMPT)"

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python completions/write.py --check
	$(BIN)/python -m lorakit_cli.architectures.tables.write --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

completions: $(VENV)/.installed
	$(BIN)/python completions/write.py

tables: $(VENV)/.installed
	$(BIN)/python -m lorakit_cli.architectures.tables.write

bench: $(VENV)/.test
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
