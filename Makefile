# `make demo [SOURCE=image|video|directory|camera index]` and `make test` set up everything by themselves: a virtual
# environment in .venv, pinned by constraints.txt, with the package and its messages built and installed into it. The
# next call reuses what is there. No root and no sourced ROS 2 are needed; a sourced one is left out of the way.

SHELL := /bin/bash
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
SOURCE ?=
VIEW ?=
TEST_ARGS ?=
WORKERS ?= $(shell nproc)
SECONDS ?= 600
TARGETS ?= compressed pictures images cameras smpl_npz smpl_pickles checkpoints bags

# The first Python that will do; another one by `make PYTHON=/path/to/python`.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)

# A sourced ROS 2 brings its own rclpy and libraries, built for another Python: none of it in here.
ifneq ($(or $(AMENT_PREFIX_PATH),$(COLCON_PREFIX_PATH)),)
unexport LD_LIBRARY_PATH
endif
unexport PYTHONPATH PYTHONHOME COLCON_PREFIX_PATH CMAKE_PREFIX_PATH RMW_IMPLEMENTATION ROS_DISTRO ROS_VERSION
unexport ROS_PYTHON_VERSION _ROS_WHEELS_BOOTSTRAP_COMPLETE
export AMENT_PREFIX_PATH := $(VENV)
export VIRTUAL_ENV := $(VENV)
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test soak tracking fuzz engines doctor clean distclean FORCE

help:
	@echo "make demo [SOURCE=...]  people in a picture, a video, a folder or a camera, through the live ROS 2 node;"
	@echo "                        VIEW=1: in a browser as well"
	@echo "make test               the whole test suite, on the installed package (TEST_ARGS='-k name' for a part; WORKERS=2 at a time)"
	@echo "make fuzz               damaged and hostile input for every reader (SECONDS=600 for each of TARGETS='compressed images ...')"
	@echo "make tracking           identities in 20 rendered scenes where people cross and hide each other (benchmarks/results/tracking.json)"
	@echo "make soak               the live node with bad and changing input, and its memory (SECONDS=600); log in build/soak.log"
	@echo "make engines            TensorRT engines of every network, built without a GPU: sizes and build times"
	@echo "make doctor             what is installed, what is missing, and what to do about it"
	@echo "make setup              only set up .venv"
	@echo "make clean, distclean   remove what was built; distclean: and .venv"

demo: setup
	@$(BIN)/hmr-ros demo $(if $(SOURCE),--source '$(SOURCE)') $(if $(filter-out 0,$(VIEW)),--view)

test: setup
	@cd test && OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -n $(WORKERS) --dist loadgroup $(TEST_ARGS)

tracking: setup
	@$(BIN)/python -P benchmarks/tracking.py --json benchmarks/results/tracking.json

soak: setup
	@mkdir -p build && cd test && $(BIN)/python -P soak/soak.py --seconds $(SECONDS) --log $(CURDIR)/build/soak.log

# What crashes lies in build/fuzz/TARGET, and the next one runs all the same. atheris (setup.py, extra "fuzz") stays out of .venv.
fuzz: setup build/fuzz/packages
	@failed=; for target in $(TARGETS); do \
	  echo "== $$target, $(SECONDS) s"; mkdir -p build/fuzz/$$target; \
	  (cd test && PYTHONPATH=$(CURDIR)/build/fuzz/packages OMP_NUM_THREADS=1 $(BIN)/python -P fuzz/run.py $$target $(CURDIR)/build/fuzz/$$target \
	    -max_total_time=$(SECONDS)) > build/fuzz/$$target.log 2>&1 || failed="$$failed $$target"; \
	  grep -aE 'stat::number_of_executed_units|Uncaught|Error: |ERROR: libFuzzer|Test unit written' build/fuzz/$$target.log; \
	done; [ -z "$$failed" ] || { echo "crashed:$$failed; see build/fuzz/*.log" >&2; exit 1; }

build/fuzz/packages: $(VENV)/.requirements
	@rm -rf $@ && $(BIN)/python -m pip install --quiet --no-deps --target $@ 'atheris>=2.3'

# tensorrt_rtx stays out of .venv, too: nothing else needs its 300 MB.
engines: setup build/engines/venv/.created
	@rm -rf build/engines/fp32 build/engines/fp16
	@for precision in fp32 fp16; do \
	  $(BIN)/python -P -m hmr_ros.cli export --backend onnx --precision $$precision --out build/engines/$$precision || exit; \
	done
	@build/engines/venv/bin/python tools/build_engines.py build/engines benchmarks/results/engines.json

build/engines/venv/.created:
	@rm -rf $(@D) && $(BIN)/python -m venv $(@D) && $(@D)/bin/python -m pip install --quiet tensorrt_rtx==1.6.1.120
	@touch $@

doctor: setup
	@$(BIN)/hmr-ros doctor

setup: $(VENV)/.installed

# --- the environment ---------------------------------------------------------------------------------------------

$(VENV)/.created:
	@command -v c++ g++ clang++ >/dev/null || { \
	  echo "hmr_ros needs a C++ compiler to build its messages, and found none (c++, g++, clang++)." >&2; \
	  echo "Install one first, on Debian and Ubuntu the package g++." >&2; exit 1; }
	@for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || continue; \
	  "$$python" -c 'import ensurepip, venv' 2>/dev/null || { without_venv=$$python; continue; }; \
	  "$$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
	    || { without_headers=$$python; continue; }; \
	  found=$$python; break; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "hmr_ros needs Python 3.11, 3.12 or 3.13 with venv and headers; looked at: $(CANDIDATES)." >&2; \
	  [ -z "$$without_venv" ] || echo "$$without_venv lacks the venv module: on Debian and Ubuntu the package python3-venv." >&2; \
	  [ -z "$$without_headers" ] || echo "$$without_headers lacks its headers: on Debian and Ubuntu the package python3-dev." >&2; \
	  echo "Name another one by: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$("$$found" --version); this takes a few minutes, once."; \
	"$$found" -m venv "$(VENV)"
	@touch $@

$(VENV)/.requirements: constraints.txt $(VENV)/.created
	@echo "Installing the pinned packages of constraints.txt"
	@$(BIN)/python -m pip install --progress-bar on -r constraints.txt
	@touch $@

# --- the package -------------------------------------------------------------------------------------------------

FILES := $(sort $(shell find setup.py pyproject.toml package.xml CMakeLists.txt cmake msg hmr_ros training launch config \
  -name __pycache__ -prune -o -type f -not -name '*.pyc' -print 2>/dev/null))

build/files.txt: FORCE  # changes when a file comes or goes
	@mkdir -p build && printf '%s\n' $(FILES) | cmp -s - $@ || printf '%s\n' $(FILES) > $@

$(VENV)/.installed: $(VENV)/.requirements build/files.txt $(FILES)
	@echo "Building and installing hmr_ros"
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index .
	@touch $@

clean:
	rm -rf build install log demo_out hmr_ros.egg-info $(VENV)/.installed

distclean: clean
	rm -rf $(VENV)
