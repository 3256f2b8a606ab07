"""Peak memory and time of a first build, and of a second that takes all chunks over, as the corpus grows.

Documents are real ones repeated with changed ids and words.

    python benches/scale.py INTENDEX CORPUS.parquet EMBEDDER [--documents 10000 50000 200000]

INTENDEX is the program, EMBEDDER a model folder, of which only the tokenizer is used: the job cuts by paragraphs and
builds the sparse index. Needs pyarrow.
"""

import argparse
import json
import pathlib
import re
import subprocess
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

JOB = """version = 1
name = "scale"
[corpus]
path = "{folder}/corpus.parquet"
title = "title"
[output]
path = "{folder}/index"
[models.embedder]
model = "{embedder}"
[intents]
enabled = false
[expand]
enabled = false
[dense]
enabled = false
[chunk]
method = "paragraph"
"""


def changed(text: str, copy: int) -> str:
    """Every seventh word gets the copy's number, so that the vocabulary grows as a real corpus's does."""
    words = re.split(r"(\s+)", text)
    for i in range(0, len(words), 14):
        words[i] += str(copy)
    return "".join(words)


def write_corpus(source: pa.Table, documents: int, path: pathlib.Path) -> None:
    rows = source.select(["doc_id", "title", "text"]).to_pylist()
    schema = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, documents, len(rows)):
            copy = start // len(rows)
            taken = rows[: documents - start]
            batch = [
                {"doc_id": f"{r['doc_id']}-{copy}", "title": r["title"], "text": changed(r["text"], copy)}
                for r in taken
            ]
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def build(program: str, root: pathlib.Path, generation: int, *more: str) -> dict:
    subprocess.run([program, "build", str(root / "job.toml"), "-q", *more], check=True, stdout=subprocess.DEVNULL)
    folder = root / f"index/generations/{generation}"
    run = json.loads((folder / "run.json").read_text())
    peaks = {name: t["peak_memory_bytes"] for name, t in run["stages"].items() if t["seconds"]}
    return {
        "seconds": run["seconds"],
        "peak": max(peaks.values()),
        "peaks": peaks,
        "bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
        "reused": run["stages"]["chunks"]["reused"],
    }


def line(documents: int, what: str, result: dict, first: dict) -> str:
    stages = ", ".join(f"{n} {p / 2**20:.0f}" for n, p in result["peaks"].items())
    return (
        f"{documents:>10} {what:<8}{result['reused']:>9}{result['seconds']:>10.1f}"
        f"{1e3 * result['seconds'] / documents:>8.2f}{result['peak'] / 2**20:>10.0f}"
        f"{result['peak'] / first['peak']:>7.2f}{result['bytes'] / 1e6:>9.0f}  {stages}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("corpus")
    parser.add_argument("embedder")
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    args = parser.parse_args()
    source = pq.read_table(args.corpus)
    first: dict[str, dict] = {}
    print(
        f"{'documents':>10} {'build':<8}{'reused':>9}{'seconds':>10}{'ms/doc':>8}{'peak MiB':>10}{'ratio':>7}"
        f"{'disk MB':>9}  peak MiB by stage"
    )
    for documents in args.documents:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            write_corpus(source, documents, root / "corpus.parquet")
            (root / "job.toml").write_text(JOB.format(folder=folder, embedder=args.embedder))
            # The second build takes every chunk over, so that the join of the keys is measured too.
            for generation, what, more in [(1, "first", []), (2, "second", ["--set", "sparse.text_weight=0.9"])]:
                result = build(args.program, root, generation, *more)
                print(line(documents, what, result, first.setdefault(what, result)), flush=True)


if __name__ == "__main__":
    main()
