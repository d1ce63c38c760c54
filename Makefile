# Works with GNU make 3.81 and a POSIX sh. `make demo` and `make test` set up what they need.

PYTHON =
VENV = .venv
BIN = $(VENV)/bin
FILES = codexlb_cli tests tools

# Real clients, each in an environment of its own, in the versions of the files in PINS.
CLIENTS = .clients
PINS = tests/clients/pins
PYTHON_CLIENTS = openai-agents langchain-openai litellm
NODE_CLIENTS = codex openai-node ai-sdk
CODEX_READY = $(CLIENTS)/codex/.ready
OPENAI_READY = $(CLIENTS)/openai-python/.ready
CLIENTS_READY = $(OPENAI_READY) $(PYTHON_CLIENTS:%=$(CLIENTS)/%/.ready) \
	$(NODE_CLIENTS:%=$(CLIENTS)/%/.ready)
WITH_CLIENTS = CLIENTS="$(CURDIR)/$(CLIENTS)" \
	CODEX_CLI="$(CURDIR)/$(CLIENTS)/codex/node_modules/.bin/codex"

.PHONY: demo test test-faults test-codex test-clients test-browser docs check lint types imports format clean help

help:
	@echo "make demo     a mock upstream and the gateway, with three demo accounts"
	@echo "make test     the tests, as CI runs them"
	@echo "make test-faults  every fault in every circumstance, as a table"
	@echo "make check    the tests, lint, types and import contracts: all of CI"
	@echo "make test-clients  real clients against the gateway and the upstream itself, compared"
	@echo "make test-codex    the part of it with the Codex CLI"
	@echo "make test-browser  sign-in with a headless Chromium"
	@echo "make docs     writes the generated parts of docs/ anew"
	@echo "make format   formats the code"
	@echo "make clean    removes the environment"

demo: $(VENV)/.ready
	@$(BIN)/codexlb demo $(ARGS) || test $$? -eq 130

test: $(VENV)/.ready-dev
	@$(BIN)/python -m pytest -q -n 2 $(ARGS)

test-faults: $(VENV)/.ready-dev
	@$(BIN)/python -W error -m tests.faults $(ARGS)

test-clients: $(VENV)/.ready-dev $(CLIENTS_READY)
	@$(WITH_CLIENTS) sh tools/clients.sh $(BIN) "$(CURDIR)/$(CLIENTS)" $(ARGS)

test-codex: $(VENV)/.ready-dev $(CODEX_READY)
	@$(WITH_CLIENTS) $(BIN)/python -m pytest -q -n 2 tests/clients/test_codex*.py \
		tests/clients/conformance -k codex $(ARGS)

test-browser: $(VENV)/.ready-dev
	@TEST_BROWSER=1 $(BIN)/python -m pytest -q tests/clients/test_browser.py $(ARGS)

check: test lint types imports

lint: $(VENV)/.ready-dev
	@$(BIN)/ruff check $(FILES)
	@$(BIN)/ruff format --check $(FILES)

types: $(VENV)/.ready-dev
	@$(BIN)/mypy

imports: $(VENV)/.ready-dev
	@$(BIN)/lint-imports

docs: $(VENV)/.ready-dev
	@$(BIN)/python tools/docs.py

format: $(VENV)/.ready-dev
	@$(BIN)/ruff check -q --fix $(FILES)
	@$(BIN)/ruff format $(FILES)

clean:
	rm -rf $(VENV) $(CLIENTS)

$(VENV)/.ready: pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) $@ --editable .

$(VENV)/.ready-dev: pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) $@ --editable '.[dev]'

# The tests with openai-python run in its environment, beside codexlb itself.
$(OPENAI_READY): $(PINS)/openai-python.txt pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(@D) $@ --editable '.[dev]' -r $<

$(CLIENTS)/%/.ready: $(PINS)/%.txt tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(@D) $@ -r $<

$(CLIENTS)/%/.ready: $(PINS)/%.json tools/node.sh
	@sh tools/node.sh $(@D) $< $@
