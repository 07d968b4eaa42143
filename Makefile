# Two commands do all the set-up on a machine without ROS: `make demo` and `make test`.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?=
SOAK_ARGS ?= --minutes 10
# LIBERO's MuJoCo has no wheels for later ones than Python 3.11.
LIBERO_PYTHON ?= python3.11
LIBERO_VENV ?= .venv-libero
LIBERO_TASK := pick_up_the_black_bowl_next_to_the_ramekin_and_place_it_on_the_plate

SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DELETE_ON_ERROR:

REQUIREMENTS := $(addprefix requirements/, ros-jazzy.txt build.txt core.txt sim.txt lerobot.txt search.txt test.txt)
ENVIRONMENT := source scripts/environment.bash

# The install links to the sources: it changes with the list of files, not with what they hold.
INSTALLED_FOLDERS := $(wildcard config deer_ros launch models scripts)
FILE_LIST := build/installed_files.txt

.PHONY: setup demo test test-long test-robot soak libero-check clean help list_files

help:
	@echo "make setup   virtual environment in .venv, package built into install/"
	@echo "make demo    simulated robot and policy over ROS 2, with a table at the end (DEMO_ARGS)"
	@echo "make test    the tests (PYTEST_ARGS); 'make test-long' those that train and play for long"
	@echo "make libero-check  a short episode in LIBERO, in an environment of its own (LIBERO_PYTHON)"
	@echo "make test-robot   faults injected into the running node, as often as is promised (25 min)"
	@echo "make soak    ten minutes of steps: memory, rate, exceptions (SOAK_ARGS)"
	@echo "make clean   remove what the others made"

setup: install/.built

demo: setup
	@$(ENVIRONMENT); exec install/deer_ros/lib/deer_ros/demo $(DEMO_ARGS)

# Tests that are on the clock have the machine for themselves.
test: setup
ifeq ($(strip $(PYTEST_ARGS)),)
	@$(ENVIRONMENT); export OMP_NUM_THREADS=1; \
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not clock and not long" \
		|| failed=1; \
	pytest test/ros -m "clock and not long" || failed=1; \
	exit $${failed:-0}
else
	@$(ENVIRONMENT); OMP_NUM_THREADS=1 exec pytest $(PYTEST_ARGS)
endif

test-long: setup
	@$(ENVIRONMENT); OMP_NUM_THREADS=1 exec pytest -m long

# Not among the tests: it installs some gigabytes.
libero-check: $(LIBERO_VENV)/.installed
	PYTHONPATH=. $(LIBERO_VENV)/bin/python -m deer_ros.cli evaluate --env libero \
		--tasks $(LIBERO_TASK) --episodes 1 --max-steps 20

$(LIBERO_VENV)/.installed: requirements/libero.txt
	$(LIBERO_PYTHON) -m venv $(LIBERO_VENV)
	$(LIBERO_VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

test-robot: setup
	@$(ENVIRONMENT); OMP_NUM_THREADS=1 DEER_TEST_COUNTS=full exec pytest -m robot $(PYTEST_ARGS)

soak: setup
	@$(ENVIRONMENT); exec python benchmarks/soak.py $(SOAK_ARGS)

clean:
	rm -rf .venv .venv-libero build install log demo_output .pytest_cache .hypothesis

.venv/.created: scripts/check_system.py
	@$(PYTHON) scripts/check_system.py
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.created $(REQUIREMENTS) requirements/constraints.txt
	@echo "Installing pinned requirements into .venv (the first time takes some minutes)"
	@$(ENVIRONMENT); python -m pip install --quiet --disable-pip-version-check \
		$(addprefix --requirement ,$(REQUIREMENTS))
	@touch $@

install/.built: .venv/.installed CMakeLists.txt package.xml $(wildcard action/* msg/*) $(FILE_LIST)
	@$(ENVIRONMENT); colcon --log-level error build --symlink-install --base-paths . \
		--cmake-args -DPython3_EXECUTABLE="$$VIRTUAL_ENV/bin/python"
	@find install -xtype l -delete   # links to sources that are gone
	@touch $@

# Rewritten only when a file came or went.
$(FILE_LIST): list_files
	@mkdir -p build
	@find $(INSTALLED_FOLDERS) -type f -not -name '*.pyc' | sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
