# Works with GNU make 3.81 and a POSIX sh. `make demo` and `make test` set up what they need.

PYTHON =
VENV = .venv
BIN = $(VENV)/bin
CLIENTS_VENV = .venv-clients
CODEX = .codex-cli
CODEX_VERSION = 0.169.0
FILES = codexlb_cli tests tools

.PHONY: demo test test-faults test-codex test-clients test-browser docs check lint types imports format clean help

help:
	@echo "make demo     a mock upstream and the gateway, with three demo accounts"
	@echo "make test     the tests, as CI runs them"
	@echo "make test-faults  every fault in every circumstance, as a table"
	@echo "make check    the tests, lint, types and import contracts: all of CI"
	@echo "make test-codex    the real Codex CLI, from npm, against the gateway"
	@echo "make test-clients  openai-python, over HTTP, in an environment of its own"
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

test-codex: $(VENV)/.ready-dev $(CODEX)/$(CODEX_VERSION)
	@CODEX_CLI="$(CURDIR)/$(CODEX)/node_modules/.bin/codex" \
		$(BIN)/python -m pytest -q -n 2 tests/clients/test_codex.py \
		tests/clients/test_codex_websocket.py tests/clients/test_codex_status.py \
		tests/clients/test_codex_connect.py $(ARGS)

test-clients: $(CLIENTS_VENV)/.ready
	@$(CLIENTS_VENV)/bin/python -m pytest -q -n 2 tests/clients/test_openai_python*.py $(ARGS)

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
	rm -rf $(VENV) $(CLIENTS_VENV) $(CODEX)

$(VENV)/.ready: pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) . $@

$(VENV)/.ready-dev: pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV) '.[dev]' $@

$(CLIENTS_VENV)/.ready: pyproject.toml tools/setup.sh tools/clients.sh
	@PYTHON="$(PYTHON)" sh tools/clients.sh $(CLIENTS_VENV) $@

$(CODEX)/$(CODEX_VERSION): tools/codex.sh
	@sh tools/codex.sh $(CODEX) $(CODEX_VERSION) $@
