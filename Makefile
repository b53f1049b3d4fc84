# `make help` lists the verbs. Everything is installed into $(VENV) by steps, each marked by an
# empty file in $(DONE), so an interrupted set-up goes on where it stopped.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
DONE := $(VENV)/.setup
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip's output without what is there already; SHELLFLAGS let pip's failure count.
BRIEF := | sed -u '/^Requirement already satisfied/d'
.SHELLFLAGS := -o pipefail -c
# The torch asked for last time stays until another one is asked for.
TORCH ?= $(or $(shell cat $(DONE)/torch-wanted 2>/dev/null),torch==2.13.0)
# mmcv's operators, remembered likewise. auto: a compiled wheel if pip finds one, else mmkd's own.
OPERATORS ?= $(or $(shell cat $(DONE)/operators-wanted 2>/dev/null),auto)
# Further arguments of `make demo` and `make test`.
ARGS ?=
# Processes of `make test`; each needs about 2 GB.
WORKERS ?= 2
# Only where mmcv's operators were to be compiled and there was no nvcc, the GPU stays hidden.
RUN := [ ! -e $(DONE)/cpu-only ] || export CUDA_VISIBLE_DEVICES=; $(BIN)/python

# The site's tools have an environment of their own: they need neither torch nor OpenMMLab.
DOCS := $(VENV)/docs

.PHONY: help setup demo test test-outside test-chains gpu-check versions lint format docs environment clean distclean FORCE

help:
	@echo 'make demo         train a teacher, a student and two distilled students on synthetic scenes'
	@echo 'make test         run the tests              (ARGS="-k fgfi" passes arguments on; WORKERS=0: one process)'
	@echo 'make test-outside the tests that need timm, transformers or onnxruntime, with these'
	@echo 'make test-chains  train each shipped chain of small models for a few steps a stage'
	@echo 'make versions     write down with which versions all tests ran, in docs/installation.md'
	@echo 'make gpu-check    try on one GPU what has to work there, in minutes'
	@echo 'make lint         format, style, types, spelling: look, change nothing'
	@echo 'make format       repair format and imports'
	@echo 'make docs         the pages as a site with search, build/site/index.html'
	@echo 'make setup        only the set-up, which all of the above do when needed'
	@echo 'make environment  print the versions found, and whether they fit'
	@echo 'make clean        remove build results and caches; make distclean: $(VENV) too'
	@echo
	@echo 'PYTHON=python3.12     the interpreter of a new $(VENV)           (now $(PYTHON))'
	@echo 'TORCH=torch==2.8.0    the torch to install, with any pip option  (now $(TORCH))'
	@echo 'OPERATORS=compiled    compile the operators of mmcv              (now $(OPERATORS))'

setup: $(DONE)/mmkd

demo: setup
	@$(RUN) tools/demo.py $(ARGS)

# Without ARGS, all tests: their result is kept for `make versions`.
test: setup
	@$(if $(ARGS),,rm -f $(DONE)/tests.xml;) \
	  $(RUN) -m pytest -n $(WORKERS) --dist loadfile $(or $(ARGS),--junit-xml=$(DONE)/tests.xml)

# With timm, transformers and onnxruntime in a folder of their own.
test-outside: $(DONE)/outside
	@export PYTHONPATH=$(VENV)/outside; $(RUN) -m pytest tests/encoders tests/teachers/test_onnx.py \
	  tests/teachers/test_vision_model.py $(ARGS)

$(DONE)/outside: $(DONE)/mmkd requirements/outside.txt
	@$(PIP) install --quiet --upgrade --no-deps --target $(VENV)/outside -r requirements/outside.txt
	@touch $@

# The newest: make test VENV=$(VENV)/newest TORCH='--upgrade torch'
versions:
	@$(PYTHON) .ci/versions.py pinned=$(VENV) newest=$(VENV)/newest

test-chains: setup
	@$(RUN) -m pytest -n $(WORKERS) tests/endtoend/chains_check.py $(ARGS)

gpu-check: setup
	@$(RUN) tests/endtoend/gpu_check.py $(ARGS)

lint: setup
	@status=0; for look in 'ruff check .' 'ruff format --check .' mypy codespell; do \
	  echo "$$look"; $(BIN)/$$look || status=1; done; exit $$status

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)/.installed
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict $(ARGS)
	@echo 'open build/site/index.html'

$(DOCS)/.installed: requirements/docs.txt
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/python -m pip --disable-pip-version-check install --quiet -r requirements/docs.txt
	@touch $@

environment: setup
	@$(RUN) -m mmkd.environment

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# ---- the steps of the set-up, in order ----

$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "mmkd needs Python 3.10 or newer and '$(PYTHON)' is not: try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo \
	  "'$(PYTHON)' lacks the module venv: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo '== 1/6 virtual environment $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(DONE) && touch $@

$(DONE)/torch-wanted: FORCE | $(DONE)/venv
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(DONE)/operators-wanted: FORCE | $(DONE)/venv
	@echo '$(OPERATORS)' | cmp -s - $@ || echo '$(OPERATORS)' > $@

$(DONE)/torch: $(DONE)/venv $(DONE)/torch-wanted requirements/install_torch.sh
	@echo '== 2/6 $(TORCH)'
	@requirements/install_torch.sh $(BIN)/python $(TORCH)
	@touch $@

$(DONE)/build-tools: $(DONE)/venv
	@echo '== 3/6 build tools'
	@$(PIP) install --quiet --upgrade pip setuptools wheel packaging ninja
	@touch $@

$(DONE)/mmcv: $(DONE)/torch $(DONE)/build-tools $(DONE)/operators-wanted requirements/openmmlab.txt \
  $(addprefix requirements/,install_mmcv.sh inspect_mmcv.py install_torchvision.sh)
	@echo '== 4/6 mmcv'
	@requirements/install_mmcv.sh $(BIN)/python $(DONE) '$(OPERATORS)'
	@touch $@

# Both opencv-python and opencv-python-headless are somebody's requirement and share their files.
# The one installed last wins; the headless one also works on a server without libGL.
$(DONE)/stack: $(DONE)/mmcv requirements/openmmlab.txt requirements/runtime.txt requirements/tests.txt
	@echo '== 5/6 mmengine, mmdet, mmseg and tools for the tests'
	@$(PIP) install $(foreach file,openmmlab runtime tests,-r requirements/$(file).txt) $(BRIEF)
	@version=$$($(PIP) freeze | sed -n 's/^opencv-python==//p') && \
	  $(PIP) install --quiet --force-reinstall --no-deps "opencv-python-headless==$$version"
	@touch $@

$(DONE)/mmkd: $(DONE)/stack setup.py pyproject.toml mmkd/version.py
	@echo '== 6/6 mmkd, editable'
	@$(PIP) install --no-build-isolation --no-deps --editable . > $(DONE)/mmkd.log 2>&1 || \
	  { cat $(DONE)/mmkd.log >&2; exit 1; }
	@$(RUN) -m mmkd.environment
	@touch $@
