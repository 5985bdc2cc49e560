PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/dev ## make the environment for development

.PHONY: run
run: .venv/run ## run both services, and an audit beside them; Ctrl-C stops all
	@$(BIN)/clinic run

.PHONY: run-appointment
run-appointment: .venv/run ## run the appointment service
	@$(BIN)/clinic run appointment

.PHONY: run-financial
run-financial: .venv/run ## run the financial service
	@$(BIN)/clinic run financial

.PHONY: demo
demo: .venv/run ## see one appointment become a charge
	@$(BIN)/clinic demo

.PHONY: up
up: ## build and run the whole system in containers, with Kafka and MongoDB
	$(COMPOSE) up --build --detach
	@$(COMPOSE) ps

.PHONY: down
down: ## stop it; its data is kept
	$(COMPOSE) down

.PHONY: logs
logs: ## follow what it says
	$(COMPOSE) logs --follow

# The plugin, or the command of its own that came before it.
COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

.PHONY: check
check: lint test-unit ## format, lint, types, import rules, unit tests: a minute, offline

.PHONY: lint
lint: .venv/dev ## format, lint, types, import rules, spelling, subjects of commits
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	@.ci/subjects

# The longest files first, in the order of their names: xdist would begin with those that have the most tests.
.PHONY: test
test: .venv/dev .venv/asyncapi/ready ## every test, three files at a time
	$(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: test-unit
test-unit: .venv/dev ## the tests that need nothing
	$(BIN)/pytest tests/unit --numprocesses 2

# In a folder of its own that only this command looks into: what is installed in .venv stays what the locks say.
.PHONY: test-example
test-example: .venv/dev ## the transport that stands beside the wheel, on a real server (needs nats-server)
	@rm -rf var/example
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --target var/example \
		-r examples/clinic-nats/requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --target var/example \
		./examples/clinic-nats
	cd examples/clinic-nats && PYTHONPATH=$(CURDIR)/var/example $(CURDIR)/$(BIN)/python -m pytest -p no:schemathesis
	MYPYPATH=$(CURDIR)/var/example $(BIN)/mypy --strict --follow-imports=silent examples/clinic-nats/src

.PHONY: coverage
coverage: .venv/dev ## lines and branches of domain and adapters that tests reach, with a floor for each (needs Docker)
	$(BIN)/pytest $(MEASURED) --numprocesses 2 --dist loadfile --timeout 600 --cov --cov-report=
	$(BIN)/coverage report --skip-covered --show-missing --include='*/clinic/domain/*' --fail-under=98
	$(BIN)/coverage report --skip-covered --show-missing --include='*/clinic/adapters/*' --fail-under=96

# What runs in this process. The other integration tests start processes, in which nothing is measured.
MEASURED := tests/unit tests/integration/test_mongo_store.py tests/integration/test_kafka_transport.py

.PHONY: test-integration
test-integration: .venv/dev .venv/asyncapi/ready ## the tests that start real processes
	$(BIN)/pytest tests/integration

given = $(if $($1),--$(shell echo $1 | tr A-Z a-z) '$($1)')

.PHONY: prove
prove: .venv/dev ## load, faults, a ledger: STACK=embedded|real SEED= MINUTES= FAULTS= APPOINTMENTS= CLIENTS= SHARE= PACE= LEASE= OVER= PATIENCE= DEFECT= BOUND= ONLY='kill *' STORE= TRANSPORT= SERVER=
	@PYTHONPATH=tests:$$PYTHONPATH $(BIN)/python -m campaign $(foreach each,STACK SEED MINUTES FAULTS APPOINTMENTS ONLY CLIENTS SHARE PACE LEASE OVER PATIENCE DEFECT BOUND STORE TRANSPORT SERVER,$(call given,$(each)))

.PHONY: fuzz
fuzz: .venv/dev ## requests made from the OpenAPI documents, each answer held against them: REQUESTS= SEED=
	@PYTHONPATH=tests $(BIN)/python -m fuzz $(foreach each,REQUESTS SEED,$(call given,$(each)))

.PHONY: openapi
openapi: .venv/dev ## keep today's OpenAPI documents in tests/contracts/openapi, where a review sees what changed
	@PYTHONPATH=tests $(BIN)/python -m contracts.openapi

.PHONY: breaking
breaking: ## what the OpenAPI documents break since a commit, by oasdiff (needs go): BASE=commit
	@.ci/breaking $(BASE)

# The peers' environment is their own; ROUNDS and SECONDS make a short run. Nothing of it is in the gate.
.PHONY: bench
bench: .venv/dev benchmarks/peers/.venv/ready ## measure beside the peers: STACK=embedded|real|both ROUNDS= SECONDS= FOLDER=
	@$(BENCH) $(foreach each,STACK ROUNDS SECONDS FOLDER,$(call given,$(each)))

.PHONY: bench-page
bench-page: .venv/dev ## write docs/performance.md from the last run
	@$(BENCH) --page var/bench/run.json --folder docs

.PHONY: bench-compare
bench-compare: .venv/dev ## what a change cost, in one paired run: BASE=commit STACK= ROUNDS= SECONDS= ONLY=start,keyed,finish,rates,drain
	@$(BENCH).compare $(foreach each,BASE STACK ROUNDS SECONDS ONLY,$(call given,$(each)))

.PHONY: bench-growth
bench-growth: .venv/dev ## what each request costs over a long history: STACK=embedded|real SIZES= SECONDS=
	@$(BENCH).growth $(foreach each,STACK SIZES SECONDS,$(call given,$(each)))

.PHONY: bench-lasting
bench-lasting: .venv/dev ## an hour of load, a backlog of a million events, four instances: WHAT=hour|backlog|instances STACK=embedded|real MINUTES= RATE= EACH= EVENTS= SECONDS= ROUNDS= WITHIN=
	@$(BENCH).lasting $(foreach each,WHAT STACK MINUTES RATE EACH EVENTS SECONDS ROUNDS WITHIN,$(call given,$(each)))

BENCH := PYTHONPATH=tests:. $(BIN)/python -m benchmarks

.PHONY: metrics-page
metrics-page: .venv/dev ## write docs/metrics.md from what the services show
	CLINIC_TEST_REWRITE=1 $(BIN)/pytest tests/unit/test_metrics_page.py

CONSOLE := src/clinic/entrypoints/console
WRITTEN := --ignore-obsolete --no-fuzzy-matching --ignore-pot-creation-date --width 110

.PHONY: languages
languages: .venv/dev ## bring the texts of the console's pages into its catalogues, where they wait to be translated
	@mkdir -p var
	@$(BIN)/pybabel --quiet extract --mapping pyproject.toml --keywords marked --no-location --sort-output --omit-header \
		--output var/console.pot $(CONSOLE)
	@$(BIN)/pybabel --quiet update $(WRITTEN) --input-file var/console.pot --locale pt_BR \
		--output-file $(CONSOLE)/languages/pt_BR.po

.PHONY: pictures
pictures: .venv/dev ## the pictures of the READMEs into docs/pictures, and of every page into var/pictures (needs Chromium)
	@PYTHONPATH=tests $(BIN)/python -m pictures

.PHONY: record-alerts
record-alerts: .venv/dev ## what real services show under each fault, for the test of the alerts; seven minutes, root and Docker: ONLY=
	PYTHONPATH=tests $(BIN)/python -m alerts $(call given,ONLY)

.PHONY: panels
panels: .venv/dev ## the dashboard as pictures in var/panels, from what was recorded (needs prometheus)
	@PYTHONPATH=tests $(BIN)/python -m alerts.panels

.PHONY: format
format: .venv/dev ## put every file into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: ## pin the newest dependencies (needs uv)
	uv pip compile $(LOCK) pyproject.toml $(EXTRAS) --group build -o requirements.txt
	uv pip compile $(LOCK) pyproject.toml $(EXTRAS) --extra otel --extra testing --group build --group dev -o requirements-dev.txt

.PHONY: lock-peers
lock-peers: ## pin the newest dependencies of the peers (needs uv)
	uv pip compile $(LOCK) benchmarks/peers/requirements.in -o benchmarks/peers/requirements.txt

# Django is declared by the packages that carry the files of Swagger UI, ReDoc and htmx, and not needed for files.
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	--no-emit-package django --no-emit-package asgiref --no-emit-package sqlparse
EXTRAS := --extra console --extra kafka --extra mongo

# An environment is set up once: again only when what it is made of has changed.
.venv/run: requirements.txt pyproject.toml hatch_build.py | .venv/bin/python
	@echo "Installing what the services need ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

.venv/dev: requirements-dev.txt .venv/run
	@echo "Installing what development needs ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	@touch $@

# AsyncAPI's own parser, for one test, which says so where npm is missing.
.venv/asyncapi/ready: tests/integration/asyncapi/package-lock.json | .venv/bin/python
	@mkdir -p $(@D) && cp tests/integration/asyncapi/package*.json $(@D)
	@if command -v npm >/dev/null; then echo "Installing the parser of AsyncAPI ..." && \
		npm ci --silent --no-audit --no-fund --ignore-scripts --prefix $(@D) && touch $@; fi

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "clinic needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Making .venv failed: on Debian or Ubuntu, install python3-venv."; rm -rf .venv; exit 1; }

benchmarks/peers/.venv/ready: benchmarks/peers/requirements.txt | .venv/bin/python
	@echo "Installing what the peers need ..."
	@$(PYTHON) -m venv benchmarks/peers/.venv
	@benchmarks/peers/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	@touch $@
