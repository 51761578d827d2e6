# `make demo` runs the default experiment, `make test` all checks. Both create an environment in .venv.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
  "$$name" -c "" 2>/dev/null && command -v "$$name" && break; done)
UV ?= uv
VENV := .venv
LIGHT := $(VENV)/light
LIGHT_WITHOUT := accelerate|detoxify|gguf|mpmath|peft|sentencepiece|sympy|torch|transformers|mypy|playwright|ruff
NEED_TORCH := $(patsubst %,tests/cli/test_%.py,new_experiment plan scorers scorers_bench secrets variants_add)
LIGHT_TESTS := $(addprefix tests/,analysis auditing config published records reporting stats) \
  $(filter-out $(NEED_TORCH),$(wildcard tests/cli/test_*.py))
BIN := $(VENV)/bin
define check_python
@case "$$("$(PYTHON)" --version 2>&1)" in "Python 3.11."*|"Python 3.12."*|"Python 3.13."*) ;; \
  *) echo "Python 3.11, 3.12 or 3.13 is needed, not '$(PYTHON)'. Try: make PYTHON=/path/to/python3.12"; exit 1;; esac
endef
export PATH := $(CURDIR)/$(BIN):$(PATH)
# With this variable, each of the many processes that the tests start would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-light check types imports test-pytest check-pytest bench rehearsal vllm-test docs dist lock resolve clean

demo: $(VENV)/run.stamp
	dvc repro
	@echo
	@toxtrail compare
	@toxtrail status
	@echo "Report:    $$(toxtrail report)"
	@echo "MLflow UI: $(BIN)/toxtrail ui"

# Types, import rules and tests are checked at the same time.
test check: $(VENV)/dev.stamp
	ruff format --check src tests benchmarks
	ruff check src tests benchmarks
	@$(MAKE) --no-print-directory --jobs 3 types imports $@-pytest

types:
	mypy

imports:
	lint-imports

test-pytest:
	pytest -n 3 --dist worksteal

check-pytest:
	pytest -n 2 --dist worksteal -m "not slow" --hypothesis-profile quick

# Tests that need no torch, in an environment of their own without torch, transformers and what only they need.
# make test-light PYTHON=python3.13
test-light: $(LIGHT)/stamp
	PATH="$(CURDIR)/$(LIGHT)/bin:$$PATH" pytest -n 2 --dist worksteal -m "not slow" $(LIGHT_TESTS)

# Compare rows of a real vLLM (0.32 or newer, in an environment of its own) with those of this process;
# about 10 minutes on 2 cores: make vllm-test VLLM=/path/to/venv/bin/vllm
vllm-test: $(VENV)/dev.stamp
	pytest -n 0 -m vllm --vllm $(VLLM) tests/e2e/test_real_vllm.py

# Compare the speed with common tools, on an idle machine; about 15 minutes on 2 cores.
# make bench BENCH="--detoxify FOLDER --prompts FILE --model FOLDER"
bench: $(VENV)/run.stamp
	python benchmarks/generation.py $(BENCH)

# Run the paper preset's complete graph with tiny random models; less than 30 minutes on 2 busy cores.
# make rehearsal REHEARSAL="--families gemma-2b --jobs 2"
rehearsal: $(VENV)/run.stamp
	python benchmarks/rehearsal.py $(REHEARSAL)

# Build the documentation as a site in build/docs; a broken link is an error. External links are not fetched.
docs: $(VENV)/docs.stamp
	sphinx-build --quiet --fail-on-warning --keep-going -c docs -d build/doctrees . build/docs
	@echo "build/docs/index.html"

# Build the source distribution and the wheel into dist/, and check what a package index checks.
dist:
	$(PYTHON) -m venv $(VENV)/dist
	$(VENV)/dist/bin/python -m pip install --quiet build==1.6.1 twine==7.0.0
	rm -rf dist
	$(VENV)/dist/bin/python -m build
	$(VENV)/dist/bin/twine check --strict dist/*

# Write requirements.txt, -dev.txt and -docs.txt for all supported Pythons; keep each pinned version that the bounds of
# pyproject.toml allow. Needs uv (pip install uv). A newer version: make lock LOCK="--upgrade-package numpy"
lock: export UV_CUSTOM_COMPILE_COMMAND := make lock
lock: COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate pyproject.toml
lock: MORE = cat requirements.txt requirements-$(1).txt > requirements-$(1).new && \
  $(COMPILE) $(LOCK) --group $(1) $(2) --constraints requirements.txt --output-file requirements-$(1).new && \
  grep -vxFf requirements.txt requirements-$(1).new > requirements-$(1).txt && rm requirements-$(1).new
lock:
	$(COMPILE) $(LOCK) --output-file requirements.txt
	$(call MORE,dev,--extra postgres --extra s3)
	$(call MORE,docs)

# Resolve the dependencies for all supported Pythons and platforms, without installing; several minutes. Needs uv.
resolve:
	python benchmarks/resolve.py --uv $(UV)

$(VENV)/run.stamp: requirements.txt pyproject.toml
	$(check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

$(VENV)/docs.stamp: $(VENV)/run.stamp requirements-docs.txt
	$(BIN)/python -m pip install --quiet -r requirements-docs.txt
	touch $@

$(LIGHT)/stamp: requirements.txt requirements-dev.txt pyproject.toml
	$(check_python)
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet --disable-pip-version-check pip==26.3
	grep -hvE '^($(LIGHT_WITHOUT))==' requirements.txt requirements-dev.txt > $(LIGHT)/requirements.txt
	$(LIGHT)/bin/python -m pip install --quiet --no-deps --no-compile -r $(LIGHT)/requirements.txt
	$(LIGHT)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) .toxtrail build dist
