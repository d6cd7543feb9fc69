# One set-up serves every command: .venv with the versions in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
HTML := _build/html
PORT ?= 8000
CHAPTERS ?= $(wildcard chapters/*.ipynb)
# CPU=1: PyTorch without CUDA, 5 GB less, where there is no GPU from NVIDIA.
CPU ?=
PHOTOS ?= hub:tanganke/stanford_cars
# A process for each core, with one thread, which keeps the memory that a step frees for
# the next one; tests/conftest.py says what begins first.
KEPT := MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
PYTEST := OMP_NUM_THREADS=1 $(KEPT) $(BIN)/pytest -n logical --dist loadfile --no-loadscope-reorder
# Chapters that are quick enough to be run twice.
QUICK := $(wildcard chapters/05*.ipynb chapters/bug_clinic.ipynb)
NEW_ENOUGH = $(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	f"Python 3.11 or newer is needed, and $(PYTHON) is {v[0]}.{v[1]}: " \
	"name another one, as in make PYTHON=python3.12 $@")'

.DEFAULT_GOAL := help
.PHONY: help work book test strict plain check lint chapters address handout slides pdf capstone serve clean distclean pins

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

book: $(READY) ## build the book; open what it prints (CPU=1: set up without CUDA)
	@$(BIN)/jupyter-book build -q .
	@echo "The book: file://$(CURDIR)/$(HTML)/index.html"

test: lint ## everything that guards the project: style, library, chapters, pages
	rm -rf _build
	$(MAKE) -j 2 strict plain
	$(PYTEST)

strict: $(READY) # the book, where a warning is an error
	$(BIN)/jupyter-book build -q -W --keep-going .

plain: $(READY) # some chapters as on a CPU without vector instructions
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(PYTEST) $(QUICK)

check: lint ## two minutes for one change: style and library, no chapters or pages
	$(PYTEST) -m 'not slow' tests

lint: $(READY) ## style only
	$(BIN)/ruff check
	$(BIN)/ruff format --check

chapters: $(READY) ## run the chapters again and store their outputs (CHAPTERS=... for some)
	$(BIN)/python book/first_cell.py
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False $(CHAPTERS)
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams $(CHAPTERS)

work: $(READY) ## copy the chapters to work/ for your answers; show what has passed
	@$(BIN)/python book/work.py
	@$(BIN)/ddpm exercises --chapters work

address: ## write the address of the repository, found by git, into the book; needs Python alone
	@$(NEW_ENOUGH)
	@$(PYTHON) book/address.py

handout: ## write the chapters without solutions and answers to _build/handout
	@$(NEW_ENOUGH)
	@$(PYTHON) book/handout.py

slides: $(READY) ## make the slides of three lectures in _build/slides
	@$(BIN)/python book/slides.py

pdf: book ## print the whole book to _build/book.pdf; needs Chromium or Chrome
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[pdf]'
	@$(BIN)/python book/pdf.py

capstone: $(READY) ## chapter 14's runs, for a GPU (PHOTOS=... where they are, OPTIONS=... for all)
	test -e data/stanford-cars-64 || \
		$(BIN)/ddpm prepare $(PHOTOS) --out data/stanford-cars-64 --size 64
	for preset in cars64-article cars64; do \
		$(BIN)/ddpm capstone $$preset --run data/runs/$$preset \
			--out data/results/$$preset $(OPTIONS) || exit 1; \
	done

serve: book ## show the book at http://localhost:8000 (PORT=... for another)
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) $(PORT)

clean: ## remove the built book
	rm -rf _build

distclean: clean ## remove the set-up too
	rm -rf $(VENV) book/_vendor *.egg-info

pins: $(READY) ## write the installed versions to constraints.txt
	{ sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable \
		| grep -vE '^(nvidia|cuda|triton)'; } > $(VENV)/pins
	mv $(VENV)/pins constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(if $(CPU),$(BIN)/python -m pip install -c constraints.txt \
		--index-url https://download.pytorch.org/whl/cpu torch torchvision)
	$(BIN)/python -m pip install -c constraints.txt -e '.[book,test]'
	@touch $@
