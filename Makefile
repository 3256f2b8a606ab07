# `make` lists the targets.

export INTENDEX_MODELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/intendex/models

# FAISS is compiled for processors with AVX2; by itself it would be for any x86-64, and build HNSW 1.4 times slower.
export CXXFLAGS_x86_64_unknown_linux_gnu ?= -march=x86-64-v3

SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
VENV := target/venv
QUICKSTART := target/quickstart
INTENDEX := target/release/intendex
CUDA := target/cuda
# The oldest GPUs that the binary will run on: 80 (A100), 89 (L4, RTX 40), 90 (H100, H200, and no other).
export CUDA_COMPUTE_CAP ?= 80

.PHONY: help setup models build cuda cuda-toolkit quickstart test test-cluster test-cluster-kills test-crash test-incremental fuzz lint schemas ablation-chunks ablation-expansion bench bench-chunk bench-cluster bench-gpu bench-gpu-build bench-index bench-models bench-scale bench-storage clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Asked of the tools themselves, as not every machine has dpkg or took them from a package.
setup: ## install what is missing to build FAISS and to make a Python environment (Debian, Ubuntu)
	@missing=; \
	command -v cmake >/dev/null || missing="$$missing cmake"; \
	command -v make >/dev/null || missing="$$missing make"; \
	if command -v c++ >/dev/null; then \
		[ -e "$$(c++ -print-file-name=libblas.so)" ] || missing="$$missing libopenblas-dev"; \
		[ -e "$$(c++ -print-file-name=liblapack.so)" ] || missing="$$missing liblapack-dev"; \
	else \
		missing="$$missing g++ libopenblas-dev liblapack-dev"; \
	fi; \
	python3 -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "no apt-get here; install what these Debian packages hold:$$missing" >&2; exit 1; }; \
	[ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ] || { echo "not root and no sudo here; have these installed:$$missing" >&2; exit 1; }; \
	$(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing

models: ## fetch the pinned models, 1.1 GB, to $INTENDEX_MODELS (default: ~/.cache/intendex/models)
	python3 jobs/fetch-models.py

build: setup ## build the release binary
	INTENDEX_REVISION=$$(git rev-parse HEAD 2>/dev/null) cargo build --release

# libcuda.so.1 comes with the driver, which the machine at hand may lack: the link is with a stub of it.
WITH_CUDA = CUDA_HOME=$(or $(CUDA_HOME),$(CURDIR)/$(CUDA)/toolkit) \
	PATH="$(or $(CUDA_HOME),$(CURDIR)/$(CUDA)/toolkit)/bin:$$PATH" \
	LIBRARY_PATH=$(or $(CUDA_HOME),$(CURDIR)/$(CUDA)/toolkit)/lib64/stubs \
	INTENDEX_REVISION=$$(git rev-parse HEAD 2>/dev/null)

cuda-toolkit: setup
	@[ -n "$(CUDA_HOME)" ] || python3 jobs/fetch-cuda.py $(CUDA)

cuda: cuda-toolkit ## build the release binary for NVIDIA GPUs; needs no GPU, and fetches CUDA 13 unless CUDA_HOME is set
	$(WITH_CUDA) cargo build --release --features cuda

bench-gpu-build: cuda-toolkit ## build the models' benchmark for NVIDIA GPUs, as target/models-cuda
	rm -f target/release/deps/models-*
	$(WITH_CUDA) cargo bench --features cuda --bench models --no-run
	cp $$(ls target/release/deps/models-* | grep -v '\.d$$') target/models-cuda

bench-gpu: bench-gpu-build ## the models on a GPU against transformers; needs INTENDEX_EVAL_DATA, INTENDEX_TORCH_PYTHON and GENERATOR, a folder
	$(INTENDEX_TORCH_PYTHON) benches/gpu.py $(INTENDEX_EVAL_DATA) $(INTENDEX_MODELS)/minilm $(GENERATOR) --ours target/models-cuda

quickstart: build models ## index real documents and search them
	python3 jobs/quickstart-docs.py $(QUICKSTART)/docs
	$(INTENDEX) import $(QUICKSTART)/docs --out $(QUICKSTART)/corpus.parquet
	$(INTENDEX) build jobs/quickstart.toml
	$(INTENDEX) search $(QUICKSTART)/index -k 3 "how does rayon divide work between threads?"
	$(INTENDEX) search $(QUICKSTART)/index -k 3 "add context to an error before returning it"
	$(INTENDEX) search $(QUICKSTART)/index -k 3 "which hash function is faster than SHA-256?"

$(VENV)/.complete: tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
	touch $@

# The server that the tests of object storage talk to.
S3_SERVER := $(CURDIR)/target/tools/bin/s3s-fs
$(S3_SERVER):
	cargo install s3s-fs@0.14.1 --locked --features binary --root target/tools --target-dir target/tools

test: setup models $(VENV)/.complete $(S3_SERVER) ## everything that must pass, the real models included
	cargo fmt --all --check
	INTENDEX_PEERS_PYTHON=$(CURDIR)/$(VENV)/bin/python INTENDEX_S3_SERVER=$(S3_SERVER) cargo test --workspace

test-cluster: setup $(S3_SERVER) ## a Ballista cluster of real processes; compiles Ballista
	INTENDEX_S3_SERVER=$(S3_SERVER) cargo test --features cluster --test cluster

test-cluster-kills: setup ## one of three executors killed ten times, 2,000 documents; as root in network namespaces; needs INTENDEX_EVAL_DATA
	cargo test --features cluster --test cluster -- --ignored --nocapture

test-incremental: setup ## 1% of 5,000 documents changed; needs INTENDEX_EVAL_DATA
	cargo test --test incremental -- --ignored --nocapture

bench-models: setup $(VENV)/.complete ## the models against llama.cpp and ONNX Runtime; needs INTENDEX_EVAL_DATA, INTENDEX_{LLAMA,ONNX}_PYTHON
	cargo bench --bench models --no-run
	$(VENV)/bin/python benches/models.py $(INTENDEX_EVAL_DATA) $(INTENDEX_MODELS)

bench-chunk: setup $(VENV)/.complete ## the chunking of text with vectors against numpy
	cargo bench --bench chunk
	$(VENV)/bin/python benches/chunk.py

bench-index: setup $(VENV)/.complete ## the index builds against Tantivy and FAISS alone; needs INTENDEX_EVAL_DATA
	cargo bench --bench index --no-run
	$(VENV)/bin/python benches/index.py $(INTENDEX_EVAL_DATA)

bench-cluster: setup $(VENV)/.complete ## 1 to 8 executors with a generator that sleeps
	cargo build --release --features cluster
	$(VENV)/bin/python benches/cluster.py $(INTENDEX) $(INTENDEX_MODELS)/minilm

bench-storage: setup $(VENV)/.complete $(S3_SERVER) ## object storage against pyarrow, on loopback; needs INTENDEX_EVAL_DATA
	cargo bench --bench storage --no-run
	$(VENV)/bin/python benches/storage.py $(S3_SERVER) $(INTENDEX_EVAL_DATA)

bench-scale: build $(VENV)/.complete ## memory and time of 10,000 to 200,000 documents; needs INTENDEX_EVAL_DATA
	$(VENV)/bin/python benches/scale.py $(INTENDEX) $(INTENDEX_EVAL_DATA)/scifact/corpus.parquet $(INTENDEX_MODELS)/minilm

ABLATION = $(INTENDEX) eval chunks $(INTENDEX_EVAL_DATA)/$(1) --model $(INTENDEX_MODELS)/minilm --lengths 100,150
ablation-chunks: build ## chunkers compared at equal length (jobs/ablation/chunks.md); needs INTENDEX_EVAL_DATA
	mkdir -p target/ablation
	$(call ABLATION,squad_train_sample) --half report --out target/ablation/squad.parquet
	$(call ABLATION,squad_train_sample) --half report --no-marks --out target/ablation/squad-no-marks.parquet
	$(call ABLATION,chroma_chunking) --out target/ablation/chroma.parquet
	$(call ABLATION,chroma_chunking) --no-marks --out target/ablation/chroma-no-marks.parquet

ablation-expansion: build ## what generated queries do for retrieval (jobs/ablation/expansion.md), an hour on 2 cores; needs INTENDEX_EVAL_DATA
	$(INTENDEX) build jobs/ablation/expansion.toml
	$(INTENDEX) eval expansion target/ablation/expansion $(INTENDEX_EVAL_DATA)/squad_train_sample --half report --model $(INTENDEX_MODELS)/minilm
	$(INTENDEX) eval scores target/ablation/expansion $(INTENDEX_EVAL_DATA)/squad_train_sample --half report --model $(INTENDEX_MODELS)/minilm --generator $(INTENDEX_MODELS)/qwen2.5-coder-1.5b/model.gguf

test-crash: setup ## kill real builds 200 times at random moments and compare what they publish
	INTENDEX_CRASHES=200 cargo test --test crash -- --nocapture

fuzz: setup ## 10,000 damaged job files, Parquet files and texts each
	INTENDEX_FUZZ=10000 cargo test --test fuzz -- --nocapture

lint: setup ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

schemas: ## write schemas/ from the code
	cargo run -- schema all --out schemas

bench: setup ## criterion benchmarks
	cargo bench

clean: ## remove what was built; the models stay
	cargo clean
