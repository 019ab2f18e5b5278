# llmhub's one task runner. `make` or `make help` lists the targets.
.DEFAULT_GOAL := help
# Images often set this. Python would then compile the hub anew at every start: 1.7 s instead of 0.6 s.
unexport PYTHONDONTWRITEBYTECODE

UV_VERSION := 0.13.*
VENV := .venv
BIN := $(VENV)/bin
LOCK := pyproject.toml uv.lock
# What uv does here: the lock as it is, this machine's Python, nothing removed that another target installed.
SYNC := UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --locked --inexact
# The newest Python this hub is made for; PYTHON=... chooses another.
PYTHON ?= $(firstword $(foreach name,python3.14 python3.13 python3.12 python3.11 python3 python,$(shell \
	command -v $(name) >/dev/null 2>&1 && \
	$(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $(name))))
# Much of the suite waits: three processes keep two cores busy.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
NODE_CLIENTS := tests/clients/node
NODE_STAMP := $(NODE_CLIENTS)/node_modules/.package-lock.json

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(VENV)/.run.stamp ## Make .venv and install what running needs, compiled: for a hub that may not write here
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib llmhub providers completions >/dev/null || true

.PHONY: run
run: $(VENV)/.run.stamp ## Set up on first use, then serve on http://HOST:PORT (127.0.0.1:8000)
	@exec $(BIN)/python manage.py serve --bootstrap

.PHONY: test
test: $(VENV)/.dev.stamp $(NODE_STAMP) ## Run the suite: on SQLite, then its database tests on PostgreSQL if one answers
	$(PYTEST) $(ARGS)
	@if $(BIN)/python -m tests.outside postgres; then \
		LLMHUB_TEST_ON_POSTGRES=1 $(PYTEST) tests/providers tests/completions $(ARGS); fi

.PHONY: shake
shake: $(VENV)/.dev.stamp $(NODE_STAMP) ## The suite on SQLite, its processes held up now and then, as on a busy machine
	$(PYTEST) -p tests.shaking $(ARGS)

.PHONY: check
check: $(VENV)/.dev.stamp ## Lint, types, import contracts, migrations, API schema
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy providers completions llmhub tests
	$(BIN)/lint-imports --no-cache
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py makemigrations --check --dry-run
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py spectacular --validate --fail-on-warn --file /dev/null

.PHONY: bench
bench: $(VENV)/.dev.stamp ## Measure what the hub costs, beside the floor of its stack (about five minutes)
	$(BIN)/python -m tests.benchmarks.run

.PHONY: prove
prove: $(VENV)/.dev.stamp ## The ledger's proofs, longer: twenty kills, races, the database away
	LLMHUB_PROVE_KILLS=$${LLMHUB_PROVE_KILLS:-20} LLMHUB_PROVE_SEED=$${LLMHUB_PROVE_SEED:-$$(date +%s)} \
		$(BIN)/python -m pytest tests/proofs $(ARGS)

.PHONY: screenshots
screenshots: $(VENV)/.dev.stamp ## Photograph every page into test-results/ and docs/images/
	$(BIN)/python -m tests.browser.screenshots

$(VENV)/.uv.stamp:
	@test -n "$(PYTHON)" || { echo "llmhub needs Python 3.11 to 3.14, and found none. Install one," \
		"or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
		echo "llmhub needs Python 3.11 to 3.14; PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV) || { echo "That Python cannot make virtual environments." \
		"On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==$(UV_VERSION)'
	@touch $@

$(VENV)/.run.stamp: $(VENV)/.uv.stamp $(LOCK)
	@echo "Installing what uv.lock names …"
	@$(SYNC) --no-dev
	@touch $@

$(VENV)/.dev.stamp: $(VENV)/.uv.stamp $(LOCK)
	@echo "Installing what uv.lock names, with the tools of development …"
	@$(SYNC)
	@touch $@ $(VENV)/.run.stamp

# npm writes it when all is in place. Without Node.js, or a registry, the tests that need it are skipped.
$(NODE_STAMP): $(NODE_CLIENTS)/package-lock.json
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
		echo "Installing what $< names …"; \
		said=$$(cd $(NODE_CLIENTS) && npm ci --loglevel=error \
			--fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000 2>&1) && touch $@ || \
		{ echo "$$said" | head -n 4; echo "npm could not: tests of Node.js's clients will be skipped."; } >&2; fi
