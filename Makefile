# Everything happens in .venv: it is made and filled on the first call, and again when what it is made of has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
export HF_HUB_DISABLE_TELEMETRY = 1
export PYTHONWARNINGS = ignore::SyntaxWarning,ignore:Editable installation

# An index of one's own for torch alone, e.g. of builds for the CPU; what torch needs comes from pip's index.
TORCH_INDEX ?=
TORCH_NOTE = Installing torch: where pip's index serves builds for CUDA, some gigabytes; make run TORCH_INDEX=URL takes torch from another index, e.g. of builds for the CPU

.PHONY: run model-en english golden graphs check test coverage test-slow test-settings bench bench-quick bench-gpu bench-server docs lab readme clean-notebooks help
help:
	@echo "make run    train a model on the bundled sentences; the last lines say where to look"
	@echo "            TORCH_INDEX=URL installs torch from there, once, e.g. a build for the CPU alone"
	@echo "make model-en CORPUS=PATH   an English model of 20,000 words, for search"
	@echo "make check  lint, types, exports and the quick tests, in two minutes"
	@echo "make test   everything that should hold, in twenty"
	@echo "make docs   the documentation site, in docs/_build/html"
	@echo "make lab    JupyterLab with the notebooks"

$(READY): settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel -c constraints.txt
	@echo "$(if $(TORCH_INDEX),Installing torch from $(TORCH_INDEX),$(TORCH_NOTE))"
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[all]'
	@touch $(READY)

run: $(READY)
	$(BIN)/minicoil run --corpus demo --out outputs/demo

# An English model made for search: many words with few sentences each. A query word without an encoder gains
# nothing, and fifty sentences are enough. Eight numbers per word gain more than four, in an index 1.8 times as
# large (DIM=4 OBJECTIVE=fit makes the small one; notebook 57 has the figures). CORPUS is text of yours, e.g. a sample of
# Wikipedia; without it OpenWebText is used.
CORPUS ?= openwebtext
model-en: $(READY)
	$(BIN)/minicoil run --corpus $(CORPUS) --top-words $(or $(WORDS),20000) --samples $(or $(SAMPLES),50) --objective $(or $(OBJECTIVE),joint) --dim $(or $(DIM),8) --pictures 24 --out outputs/en

# The English model of the package, from a finished run: make english RUN=outputs/en. Its card takes files that
# the benchmarks wrote; FIGURES="a.json b.json" names them; TEXT says what it was trained on. Nothing may be uncommitted.
english: $(READY)
	$(BIN)/python -c "import sys; from minicoil.stages.pack import pack; pack(sys.argv[1], figures=sys.argv[2].split(), text=sys.argv[3])" $(or $(RUN),outputs/en) "$(FIGURES)" "$(or $(TEXT),sentences of English Wikipedia, CC BY-SA 4.0)"
	$(MAKE) golden

# What becomes of 200 awkward texts with that model, for readers in other languages; a test compares it with the model
golden: $(READY)
	$(BIN)/minicoil golden --model english --out examples/english.golden.jsonl

# The graphs of the package, made again of the exported transformer
graphs: $(READY)
	$(BIN)/python -c "from minicoil.stages.graphs import make_graphs; print(make_graphs())"

# For every change; make test before it is pushed
check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/support/all.py --quick

test: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/support/all.py

# Which lines of the package the notebooks and the tests run; half as long again as make test
coverage: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/support/all.py --coverage

test-slow: $(BIN)/docs-ready $(BIN)/engines-ready
	HAYSTACK_TELEMETRY_ENABLED=False PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests --slow

# The suite under settings that other machines have, some hours; SETTINGS="--setting ci --tests test_cli.py" tries a part
test-settings: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/support/settings.py $(SETTINGS)

# What a Qdrant server costs beside the embedded engine, on made-up vectors: make bench-server QDRANT_URL=http://localhost:6333
# Without an address the server's figures in results/server.json stay "not recorded". DOCUMENTS="20000 1000000"
# measures that many in every engine and with the settings of a server, for an hour or more, into results/million.json.
bench-server: $(READY)
	$(BIN)/python tests/bench/server.py $(addprefix --url ,$(QDRANT_URL))
	$(if $(DOCUMENTS),$(BIN)/python tests/bench/million.py --sizes $(DOCUMENTS) $(addprefix --url ,$(QDRANT_URL)))

# Figures go to results/. Data is never bundled; with it, more is measured:
#   make bench SENSES="coarsewsd10.jsonl.gz homographs.jsonl.gz" WIC=mclwic_en.jsonl.gz BEIR="ir/cranfield ir/scifact" CORPUS=enwiki.txt.gz OPENWEBTEXT=openwebtext_1k.txt.gz LARGE=outputs/mpnet
# LARGE is a larger transformer to read and to teach with; tests/bench/mpnet.py fetches one. It takes hours.
bench: $(READY)
	$(BIN)/minicoil run --corpus demo --out outputs/demo
	$(BIN)/minicoil benchmark retrieval --model outputs/demo/23_model --data demo
	$(BIN)/python tests/bench/forms.py --model outputs/demo/23_model --static
	$(BIN)/python tests/bench/serving.py --model outputs/demo/23_model
	$(BIN)/python tests/bench/lengths.py --model outputs/demo/23_model
	$(BIN)/python tests/bench/first_answer.py
	$(BIN)/python tests/bench/fresh_machine.py
	$(BIN)/python tests/bench/training.py $(addprefix --data ,$(firstword $(SENSES)))
	$(if $(SENSES),$(BIN)/python tests/bench/senses.py $(addprefix --data ,$(SENSES)))
	$(if $(filter-out openwebtext,$(CORPUS)),$(BIN)/minicoil run --corpus $(CORPUS) --top-words 3000 --samples 100 --pictures 0 --until tokens --out outputs/broad)
	$(if $(filter-out openwebtext,$(CORPUS)),$(BIN)/python tests/bench/objectives.py --run outputs/broad $(addprefix --wic ,$(WIC)) $(addprefix --beir ,$(BEIR)))
	$(BIN)/python tests/bench/scale.py store
	$(if $(filter-out openwebtext,$(CORPUS)),$(BIN)/python tests/bench/scale.py cover --corpus $(CORPUS))
	$(if $(filter-out openwebtext,$(CORPUS)),$(BIN)/python tests/bench/scale.py growth --corpus $(CORPUS))
	$(if $(OPENWEBTEXT),$(BIN)/python tests/bench/scale.py readers --corpus $(OPENWEBTEXT))
	$(if $(BEIR),$(BIN)/python tests/bench/search.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(SENSES)))
	$(if $(BEIR),$(BIN)/python tests/bench/splade.py --model $(or $(MODEL_RUN),outputs/en)/23_model --cache outputs/cache $(addprefix --beir ,$(BEIR)))
	$(if $(BEIR),$(BIN)/python tests/bench/joint.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(firstword $(SENSES))))
	$(if $(BEIR),$(BIN)/python tests/bench/readers.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache/readers $(addprefix --large ,$(LARGE)) $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(firstword $(SENSES))))
	$(if $(LARGE),$(BIN)/python tests/bench/teacher.py --large $(LARGE) --corpus $(or $(filter-out openwebtext,$(CORPUS)),demo) --scratch outputs/teacher)
	$(if $(BEIR),$(BIN)/python tests/bench/budget.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(firstword $(SENSES))))
	$(if $(BEIR),$(BIN)/python tests/bench/model_en.py --run $(or $(MODEL_RUN),outputs/en) --watch senses)
	$(if $(BEIR),$(BIN)/python tests/bench/cover_curve.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(firstword $(SENSES))))
	$(if $(BEIR),$(BIN)/python tests/bench/int8_targets.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)) $(addprefix --senses ,$(firstword $(SENSES))))
	$(if $(BEIR),$(BIN)/python tests/bench/hybrid.py --model $(or $(MODEL_RUN),outputs/en)/23_model --cache outputs/cache $(addprefix --beir ,$(BEIR)))
	$(if $(BEIR),$(BIN)/python tests/bench/search_trials.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)))
	$(if $(BEIR),$(BIN)/python tests/bench/weighing.py --cache outputs/cache $(addprefix --beir ,$(BEIR)))
	$(if $(SENSES),$(BIN)/python tests/bench/sense_collection.py --cache outputs/cache $(addprefix --senses ,$(SENSES)))
	$(if $(BEIR),$(BIN)/python tests/bench/non_negative.py --run $(or $(MODEL_RUN),outputs/en) --cache outputs/cache $(addprefix --beir ,$(BEIR)))
	$(if $(BEIR),$(BIN)/python tests/bench/engines.py --cache outputs/cache --beir $(firstword $(BEIR)))

# A few ratios of speed, kept for the last three commits in results/quick.json; some minutes, after the run
bench-quick: $(READY)
	$(BIN)/minicoil run --corpus demo --out outputs/demo
	$(BIN)/python tests/bench/quick.py --model outputs/demo/23_model

# What a GPU gains, in at most eight minutes: make bench-gpu CORPUS=enwiki.txt.gz; without CORPUS of the bundle
bench-gpu: $(READY)
	$(BIN)/python tests/bench/gpu.py $(if $(filter-out openwebtext,$(CORPUS)),--corpus $(CORPUS))

$(BIN)/engines-ready: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[engines]'
	@touch $(BIN)/engines-ready

$(BIN)/docs-ready: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[docs,frameworks]'
	@touch $(BIN)/docs-ready

# From executed notebooks: those of outputs/demo, if it is of today's notebooks; the others are executed once and kept.
docs: $(BIN)/docs-ready
	$(BIN)/python docs/build.py

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir=. nbs/index.ipynb

readme: $(READY)
	$(BIN)/python tests/support/readme.py --write

clean-notebooks: $(READY)
	$(BIN)/nbdev_clean
	$(BIN)/nbstripout --keep-id nbs/*.ipynb
