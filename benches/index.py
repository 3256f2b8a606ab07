"""The index builds against the libraries alone, on the same documents: Tantivy in Rust, FAISS in Python.

    python benches/index.py DATA [--chunks 100000] [--runs 5] [--only sparse dense] [--ours BINARY]

DATA is the folder of evaluation sets; the chunks are pieces of SciFact's abstracts, repeated with changed words. Vectors are
drawn around a thousand centres. Tantivy alone leaves several segments; merged, it has one, as ours has. Ours is `cargo bench --bench index` or that benchmark, built. A ratio is our time over the
peer's. Needs faiss-cpu, numpy and pyarrow.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scale import changed

CHUNK = 600  # characters
DIM = 384
FACTORY = "HNSW32"  # what `auto` is at this size
OURS = ["cargo", "bench", "--quiet", "--bench", "index", "--"]

FAISS = """
import json, resource, sys, time
import faiss, numpy
vectors = numpy.fromfile(sys.argv[1], dtype="float32").reshape(-1, int(sys.argv[2]))
start = time.perf_counter()
index = faiss.index_factory(vectors.shape[1], sys.argv[3], faiss.METRIC_INNER_PRODUCT)
if sys.argv[3].startswith("HNSW"):
    index.hnsw.efConstruction = 100
index.add(vectors)
faiss.write_index(index, sys.argv[4] + "/text.faiss")
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def write_chunks(data: pathlib.Path, count: int, path: pathlib.Path) -> None:
    rows = pq.read_table(data / "scifact/corpus.parquet", columns=["doc_id", "title", "text"]).to_pylist()
    chunks = []
    copy = 0
    while len(chunks) < count:
        for row in rows:
            text = changed(row["text"], copy)
            for i, start in enumerate(range(0, len(text), CHUNK)):
                doc_id = f"{row['doc_id']}-{copy}"
                piece = text[start : start + CHUNK]
                chunks.append({"chunk_id": f"{doc_id}#{i}", "doc_id": doc_id, "title": row["title"], "text": piece})
        copy += 1
    pq.write_table(pa.Table.from_pylist(chunks[:count]), path)


def write_vectors(count: int, path: pathlib.Path) -> None:
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((1000, DIM), dtype="float32")
    vectors = centres[generator.integers(0, 1000, count)] + generator.standard_normal((count, DIM), dtype="float32")
    (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32").tofile(path)


def timed(root: pathlib.Path, *command) -> dict:
    folder = root / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = subprocess.run([str(c) for c in [*command, folder]], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def report(what: str, root: pathlib.Path, runs: int, ours: list, theirs: list) -> None:
    pairs = [(timed(root, *ours), timed(root, *theirs)) for _ in range(runs)]
    ratios = sorted(a["seconds"] / b["seconds"] for a, b in pairs)
    seconds, memory = ([statistics.median(p[i][key] for p in pairs) for i in (0, 1)] for key in ("seconds", "peak_mib"))
    print(
        f"{what:<28}{seconds[0]:>8.1f}{seconds[1]:>8.1f}  {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        f"{memory[0]:>8.0f}{memory[1]:>8.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["sparse", "dense"])
    parser.add_argument("--ours", nargs=1, default=OURS)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())
    print(f"{args.chunks} chunks{'':<16}ours s  peer s  ratio [spread]     MiB    peer")
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        if "sparse" in args.only:
            chunks = root / "chunks.parquet"
            write_chunks(args.data, args.chunks, chunks)
            sparse = lambda mode: [*args.ours, mode, chunks]
            for mode in ("tantivy", "tantivy-merged"):
                report(f"sparse, {mode}", root, args.runs, sparse("sparse"), sparse(mode))
        if "dense" in args.only:
            vectors = root / "vectors.f32"
            write_vectors(args.chunks, vectors)
            for factory in ("Flat", FACTORY):
                of = [vectors, DIM, factory]
                report(f"dense {factory}, faiss-cpu", root, args.runs, [*args.ours, "dense", *of], [sys.executable, "-c", FAISS, *of])


if __name__ == "__main__":
    main()
