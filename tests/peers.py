"""Reads a published generation with other people's software and compares it to what Intendex said of it.

    pip install faiss-cpu tantivy==0.27.0 pyarrow
    python3 tests/peers.py GENERATION [--results RESULTS.json] [--schemas schemas]

RESULTS.json holds searches as Intendex answered them (tests/peers.rs writes such a file):

    {"dense":  [{"index": "text", "vector": [...], "ids": [...], "scores": [...]}],
     "sparse": [{"terms": [{"term": "dig", "count": 1.0}], "ids": [...], "scores": [...]}]}

`schemas` holds a file for each dataset, `{"fields": [{"name": …, "type": …, "nullable": …}]}`, the type as pyarrow
writes it, but for the element and length of vectors. Exits with 1 and says what differs, unless everything agrees.
"""

import argparse
import json
import math
import pathlib
import re
import sys

TOLERANCE = 1e-5
VECTOR = "fixed_size_list<item: element not null>[dim]"


def compare(what, found, expected):
    """Both are lists of (id, score). Ids of nearly equal scores may change places."""
    if len(found) != len(expected):
        return [f"{what}: {len(found)} results, Intendex has {len(expected)}"]
    scores = dict(expected)
    problems = []
    for rank, ((_, score), (_, ours)) in enumerate(zip(found, expected), 1):
        if not math.isclose(score, ours, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            problems.append(f"{what}: rank {rank} has score {score}, Intendex has {ours}")
    last = expected[-1][1] if expected else 0.0
    for name, score in found:
        tied_with_last = math.isclose(score, last, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if name not in scores and not tied_with_last:
            problems.append(f"{what}: {name} is not among the results of Intendex")
    return problems


def check_dense(generation, searches):
    import faiss
    import numpy

    problems = []
    for number, search in enumerate(searches):
        name = search["index"]
        index = faiss.read_index(str(generation / "dense" / f"{name}.faiss"))
        ids = (generation / "dense" / f"{name}.ids").read_text(encoding="utf-8").split("\n")[:-1]
        if index.ntotal != len(ids):
            problems.append(f"dense/{name}: {index.ntotal} vectors, {len(ids)} ids")
        vector = numpy.array([search["vector"]], dtype="float32")
        scores, rows = index.search(vector, len(search["ids"]))
        found = [(ids[row], float(score)) for row, score in zip(rows[0], scores[0])]
        problems += compare(f"dense/{name}, search {number}", found, list(zip(search["ids"], search["scores"])))
    return problems


def check_sparse(generation, searches):
    import tantivy

    index = tantivy.Index.open(str(generation / "sparse"))
    searcher = index.searcher()
    problems = []
    if searcher.num_segments != 1:
        problems.append(f"sparse: {searcher.num_segments} segments")
    for number, search in enumerate(searches):
        clauses = [
            (
                tantivy.Occur.Should,
                tantivy.Query.boost_query(
                    tantivy.Query.term_query(index.schema, "text", term["term"], "freq"), term["count"]
                ),
            )
            for term in search["terms"]
        ]
        hits = searcher.search(tantivy.Query.boolean_query(clauses), max(len(search["ids"]), 1)).hits
        found = [(searcher.doc(address)["chunk_id"][0], score) for score, address in hits]
        problems += compare(f"sparse, search {number}", found, list(zip(search["ids"], search["scores"])))
    return problems


def general(spelled):
    """A vector's type without its element and length, which depend on the job and the embedder."""
    return re.sub(r"^fixed_size_list<item: (float|halffloat) not null>\[\d+\]$", VECTOR, spelled)


def check_schemas(generation, schemas):
    import pyarrow.parquet

    problems = []
    for schema_file in sorted(schemas.rglob("*.json")):
        schema = json.loads(schema_file.read_text(encoding="utf-8"))
        if "fields" not in schema:
            continue
        wanted = schema["fields"]
        dataset = schema_file.relative_to(schemas).with_suffix("")
        for part in sorted((generation / dataset).glob("*.parquet")):
            found = [
                {"name": field.name, "type": general(str(field.type)), "nullable": field.nullable}
                for field in pyarrow.parquet.read_schema(part)
            ]
            # The job's own columns come last.
            known = found[: len(wanted)] if schema["passthrough"] else found
            if known != wanted:
                problems.append(f"{part}: {found} is not {wanted}")
    for part in sorted(generation.rglob("*.parquet")):
        dataset = part.parent.relative_to(generation)
        if not (schemas / dataset).with_suffix(".json").exists():
            problems.append(f"{part}: there is no {dataset}.json in {schemas}")
        pyarrow.parquet.read_table(part).validate(full=True)
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generation", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--schemas", type=pathlib.Path)
    args = parser.parse_args()

    problems, done = [], []
    if args.results:
        results = json.loads(args.results.read_text(encoding="utf-8"))
        problems += check_dense(args.generation, results["dense"])
        problems += check_sparse(args.generation, results["sparse"])
        done.append(f"{len(results['dense'])} dense and {len(results['sparse'])} sparse searches")
    if args.schemas:
        problems += check_schemas(args.generation, args.schemas)
        done.append("schemas")
    if not done:
        parser.error("nothing to check: give --results, --schemas or both")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{args.generation}: {', '.join(done)}: {'agree' if not problems else f'{len(problems)} differences'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
