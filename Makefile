# Everything from a clean clone: `make demo` runs the main job, `make test` all checks.

MINUTES ?= 10
SEED ?= 0
TORCH ?= torch==2.13.0
# Of fuzzing at the end of `make test`; 0: none.
FUZZ_SECONDS ?= 60
SECONDS ?= 60

START := $(shell date +%s)
VENV := .venv
STAMPS := $(VENV)/stamps
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
WHEEL := $$(echo $(VENV)/wheel/mobilemoe-*.whl)
# Tests build with warnings as errors; such a package serves the demonstration as well.
WERROR := $(if $(filter test lint format env,$(MAKECMDGOALS)),ON,OFF)
SOURCES := $(shell find src native recipes -type f ! -name '*.pyc' ! -path 'native/fuzz/*' \
             ! -path 'native/check/*') \
           $(wildcard CMakeLists.txt pyproject.toml README.md LICENSE)

.PHONY: help demo test check-native test-arm fuzz lint format env clean
.DELETE_ON_ERROR:

help:
	@echo "make demo [MINUTES=10] [SEED=0]  budget -> training -> INT4 -> run on this machine"
	@echo "make test [FUZZ_SECONDS=60]      lint, types, all tests, a minute of fuzzing"
	@echo "make check-native                the kernels under the address, undefined and thread sanitizers"
	@echo "make test-arm                    the kernels of 64-bit ARM, in an emulator"
	@echo "make fuzz [SECONDS=60]           hostile model files for the native reader"
	@echo "make lint | format               check | repair the style"
	@echo "make env                         only the environment, in $(VENV)"
	@echo "make clean                       remove the environment and build files"

demo: $(STAMPS)/demo
	@$(BIN)/mobilemoe demo --minutes $(MINUTES) --seed $(SEED) --started-at $(START)

test: lint $(STAMPS)/cmake
	@echo "== tests, with the network unplugged"
	@$(BIN)/python tools/offline.py $(BIN)/python -m pytest
	@[ "$(FUZZ_SECONDS)" = 0 ] || $(MAKE) --no-print-directory fuzz SECONDS=$(FUZZ_SECONDS)

check-native: $(STAMPS)/cmake
	@$(BIN)/python tools/check_native.py sanitizers

test-arm: $(STAMPS)/cmake
	@$(BIN)/python tools/check_native.py arm

fuzz: $(STAMPS)/cmake
	@echo "== $(SECONDS) s of fuzzing"
	@$(BIN)/python tools/fuzz_native.py --seconds $(SECONDS) --seed $(SEED)

lint: $(STAMPS)/dev
	@echo "== style and types"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --strict

format: $(STAMPS)/dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

env: $(STAMPS)/dev

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Each stamp is a finished step; an interrupted step is done again.
$(STAMPS)/venv:
	@sh tools/check_setup.sh compiler >/dev/null
	@python=$$(sh tools/check_setup.sh python) && echo "== environment in $(VENV) ($$python)" \
		&& "$$python" -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# Building the package brings its own; only the fuzzer calls it by name.
$(STAMPS)/cmake: $(STAMPS)/venv
	@command -v cmake >/dev/null || $(PIP) install "cmake>=3.20"
	@touch $@

$(STAMPS)/$(TORCH): $(STAMPS)/venv
	@echo "== $(TORCH)"
	@$(PIP) install "$(TORCH)"
	@touch $@

# One wheel, compiled once and installed as users install it: the tests run on it, not on src.
$(STAMPS)/package-$(WERROR): $(STAMPS)/$(TORCH) $(SOURCES)
	@cxx=$$(sh tools/check_setup.sh compiler) && echo "== mobilemoe and its engine ($$cxx)" \
		&& rm -rf $(VENV)/wheel && CXX="$$cxx" $(PIP) wheel --no-deps -w $(VENV)/wheel \
			-Ccmake.define.MOBILEMOE_WERROR=$(WERROR) .
	@$(PIP) install --force-reinstall --no-deps $(VENV)/wheel/*.whl
	@touch $@ $(STAMPS)/package-OFF

$(STAMPS)/demo: $(STAMPS)/package-$(WERROR)
	@echo "== what the demonstration needs"
	@$(PIP) install "$(WHEEL)[train,plots]"
	@touch $@

$(STAMPS)/dev: $(STAMPS)/package-$(WERROR)
	@echo "== what the tests need"
	@$(PIP) install "$(WHEEL)[train,plots,dev]"
	@touch $@
