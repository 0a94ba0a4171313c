# Every target is what a person would type; CI runs these and nothing else.
# The environment is .venv: made once, brought up to date when a lock changes.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run test test-clients check format bench bench-litellm proof image lock clean

PYTHON ?= python3
ARGS ?=
# One more than there are cores: a good part of the tests waits for a process to start.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.dev-stamp ## Create .venv with everything that development needs

run: .venv/.run-stamp ## Serve on 127.0.0.1:4000 with ./litellm_config.yaml (ARGS="--port 4001")
	@exec $(BIN)/mobius serve $(ARGS)

# The examples of Hypothesis are the same in each run; `make proof` looks for others.
test: .venv/.dev-stamp ## Unit and end-to-end tests, with coverage (ARGS="-k quota")
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile -m "not proof" --hypothesis-profile ci $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-clients: .venv/.dev-stamp .venv-clients/.stamp ## Real clients (OpenAI's, Anthropic's, LangChain, ...) against it (ARGS="-k node")
	.venv-clients/bin/python -m pytest -W ignore tests/clients $(ARGS)

check: .venv/.dev-stamp ## Style, shape, import direction, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(wildcard proxy tests bench)

format: .venv/.dev-stamp ## Rewrite the code in house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.dev-stamp ## Measure the cost against copying bytes (ARGS="--only unary")
	$(BIN)/python -m bench $(ARGS)

bench-litellm: .venv/.dev-stamp .venv-litellm/.stamp ## The same, with LiteLLM's own proxy beside it
	$(BIN)/python -m bench --litellm .venv-litellm/bin/litellm $(ARGS)

proof: .venv/.dev-stamp ## The long campaigns at full size
	$(BIN)/python -m pytest -m proof $(ARGS)

image: ## Build the container
	docker build -t mobius $(ARGS) .

lock: .venv/.dev-stamp ## Compile the locks from pyproject.toml (ARGS=--upgrade for newer versions)
	$(COMPILE) --group build -o requirements.txt pyproject.toml
	$(COMPILE) --group dev --constraint requirements.txt -o requirements-dev.txt pyproject.toml
	$(COMPILE) --group clients -o requirements-clients.txt

clean: ## Remove the environment and all that was built; data/ stays
	rm -rf .venv .venv-clients .venv-litellm tests/clients/node/node_modules .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist
	find proxy tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)

# The marker `.unfinished` stands while .venv is being changed: an environment found with it was
# interrupted half-way, which pip cannot see, so it is made anew.
define set_up
	@$(PYTHON) -c '$(SUPPORTED)' || { \
		echo "Mobius needs Python 3.11 to 3.14 and '$(PYTHON)' is not one: name another, as in make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv module, which Mobius needs: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "Installing $< into .venv (the first time takes a minute)"
	@if [ -e .venv/.unfinished ] || ! $(BIN)/python -c 'import pip; $(SUPPORTED)' 2>/dev/null; then \
		rm -rf .venv && mkdir .venv && touch .venv/.unfinished && $(PYTHON) -m venv .venv; fi
	@touch .venv/.unfinished
	@$(PIP) install --require-hashes -r $<
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@rm .venv/.unfinished
endef

.venv/.run-stamp: requirements.txt pyproject.toml
	$(set_up)
	@touch $@

.venv/.dev-stamp: requirements-dev.txt requirements.txt pyproject.toml
	$(set_up)
	@touch .venv/.run-stamp $@

# Where there is no Node, the tests of what is written for it say so and are skipped.
.venv-clients/.stamp: requirements-clients.txt tests/clients/node/package-lock.json
	@echo "Installing the clients into .venv-clients (the first time takes a minute)"
	@rm -rf .venv-clients && $(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/python -m pip --disable-pip-version-check --no-input -qq install --require-hashes -r $<
	@if command -v npm >/dev/null; then npm ci --prefix tests/clients/node --silent; fi
	@touch $@

# LiteLLM's proxy for the benchmark: of the version that the lock names, its own dependencies as they
# are today. Nothing of ours is in that environment, and nothing of it in ours.
.venv-litellm/.stamp: requirements.txt
	@echo "Installing LiteLLM's proxy into .venv-litellm (the first time takes a minute)"
	@rm -rf .venv-litellm && $(PYTHON) -m venv .venv-litellm
	@.venv-litellm/bin/python -m pip --disable-pip-version-check --no-input -qq install \
		"litellm[proxy]==$$(sed -n 's/^litellm==\([^ ]*\).*/\1/p' $<)"
	@touch $@
