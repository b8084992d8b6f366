# `make run` and `make test` are all that is needed; the rest is for work on the gateway itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCAL  := .venv-localstack
EXTRAS := twilio,aws,email,media,postgres,dev,bench

.DEFAULT_GOAL := help
.PHONY: help setup run test test-localstack check format-check format lint types bench bench-peers chaos soak clean

help:           ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-17s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "The venv module is needed (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@echo "Installing into $(VENV); this takes a while, once."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

run: setup      ## Run the gateway on this machine, with the console for a vendor
	@exec $(BIN)/gateway serve --dev

test: setup     ## Run all tests
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-localstack: setup $(LOCAL)/.installed ## Test against LocalStack, which signs as Amazon SNS does
	LOCALSTACK_PYTHON=$(CURDIR)/$(LOCAL)/bin/python \
	  $(BIN)/python -m pytest tests/localstack/localstack_roundtrip.py

$(LOCAL)/.installed: tests/localstack/requirements.txt
	@test -x $(LOCAL)/bin/python || $(PYTHON) -m venv $(LOCAL)
	$(LOCAL)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r tests/localstack/requirements.txt
	@touch $@

check: format-check lint types test ## Check format, lint and types, and run all tests

format-check: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

format: setup   ## Put the code into its format
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

bench: setup    ## Measure the gateway on this machine
	$(BIN)/python -m bench

bench-peers: setup ## Measure accepts only, beside the usual stack
	$(BIN)/python -m bench --only accepts

chaos: setup    ## Simulate a million messages with every fault (SEED=, MESSAGES=, PROCESSES=)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) \
	  $(if $(MESSAGES),--messages $(MESSAGES)) $(if $(PROCESSES),--processes $(PROCESSES))

soak: setup     ## Send and receive 200,000 messages each through one process, and see what it holds
	$(BIN)/python -m bench.soak

clean:          ## Remove the environment and the caches; data stays
	rm -rf $(VENV) $(LOCAL) .mypy_cache .pytest_cache .ruff_cache .hypothesis
