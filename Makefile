# Everything needs only Python 3.11+ and make. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

TESTS := tests/unit tests/contracts tests/integration
# the thorough tests that run beside the others: all, none, or one share of N as K/N
THOROUGH ?= none

.PHONY: run test test-all test-pythons check test-cluster loadtest manifests mutants ci-all docs pages lock clean

run: .venv/run ## the demo: a whole run with a verdict, no key, no server
	$(BIN)/queue-eval demo

test: .venv/dev ## every promise once, with real Redis, processes and signals, under 5 minutes; what this machine lacks is skipped by name
	$(BIN)/python -m tests.ci.suite $(if $(OUTCOME),--outcome $(OUTCOME)) $(TESTS) -n 5 --thorough $(THOROUGH)

test-all: .venv/dev ## every test, a short storm, whole runs on a Kubernetes where one can be had, and every seeded defect
	$(BIN)/python -m tests.ci.suite $(TESTS) -n 5
	$(BIN)/python -m loadtest.chaos --cases 150 --workers 3 --kills 10
	$(BIN)/python -m tests.cluster --durations=10
	$(BIN)/python -m tests.mutants

test-pythons: .venv-nox/built ## the unit tests on each Python from 3.11 to 3.14 that is here
	.venv-nox/bin/nox --envdir .venv-nox/envs

.venv-nox/built: requirements/nox.txt
	test -x .venv-nox/bin/python || $(PYTHON) -m venv .venv-nox
	.venv-nox/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/nox.txt
	touch $@

test-cluster: .venv/dev ## whole runs on a real Kubernetes, started here (needs Go and root), or named by KUBECONFIG (docs/measurements/kubernetes.md has what it must be)
	$(BIN)/python -m tests.cluster --durations=10

ci-all: ## what decides whether work lands, with nothing left for another turn
	bash .ci/run --all

check: .venv/dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pinned with hashes; pip itself comes with the interpreter.
.venv/run: requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("queue-eval needs Python 3.11 or newer, this is %d.%d; name another with make PYTHON=…" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

.venv/dev: .venv/run requirements/dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/dev.txt
	touch $@

manifests: .venv/dev ## k8s/base/run.yaml from k8s/base/eval.yaml
	$(BIN)/queue-eval k8s render k8s/base/eval.yaml --run-id example --commit '' > k8s/base/run.yaml

pages: .venv/dev ## the pages that the code knows: settings, commands, the report's schema
	$(BIN)/python -m testkit.pages

mutants: .venv/dev ## seeded defects: each must be caught by its test
	$(BIN)/python -m tests.mutants

loadtest: .venv/loadtest ## the short form of every measurement beside its bounds and peers, 15 minutes
	$(BIN)/python -m loadtest

# The peers of `make loadtest` and of `python -m loadtest.limiter`.
.venv/loadtest: .venv/dev requirements/loadtest.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/loadtest.txt
	touch $@

docs: .venv-docs/built ## the site of docs/, into site/
	.venv-docs/bin/zensical build --clean --strict

.venv-docs/built: requirements/docs.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements/docs.txt
	touch $@

lock: ## pin anew from pyproject.toml; needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group build -o requirements/run.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group build --group dev -c requirements/run.txt -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --extra kubernetes -c requirements/dev.txt -o requirements/image.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --group pyproject.toml:build -c requirements/dev.txt -o requirements/build.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --group pyproject.toml:build --group pyproject.toml:release -c requirements/dev.txt -o requirements/release.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate pyproject.toml --group build --group loadtest -c requirements/dev.txt -o requirements/loadtest.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --group pyproject.toml:docs -c requirements/dev.txt -o requirements/docs.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --group pyproject.toml:nox -c requirements/dev.txt -o requirements/nox.txt

clean:
	rm -rf .venv .venv-docs .venv-nox .venv-release site .mypy_cache .ruff_cache .pytest_cache .hypothesis
