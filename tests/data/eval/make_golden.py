"""Writes golden.json: what ir-measures (pytrec_eval, so trec_eval's own C code) says of a made-up run.

    pip install ir-measures==0.4.3 pyarrow && python3 make_golden.py

The run holds what measures get wrong: scores tied exactly and in single precision only, a query without
results, results of a query without judgements, unjudged documents, graded and negative relevance, and a query
with nothing relevant. trec_eval has no RR@10 and other tools break ties otherwise, so RR@10 is its recip_rank,
nothing when below 1/10.
"""

import json
import random

import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
from ir_measures import AP, RR, R, ScoredDoc, Qrel, nDCG

MEASURES = {"ndcg@10": nDCG @ 10, "ap": AP, "r@100": R @ 100, "rr": RR}


def main():
    rng = random.Random(7)
    qrels, run = [], []
    for q in range(1, 41):
        query = f"q{q}"
        judged = rng.sample(range(1, 400), rng.choice([1, 2, 5, 30, 150]))
        grades = [0, 0] if q == 8 else [-1, 0, 1, 1, 2, 3] if q % 2 else [0, 1]
        qrels += [Qrel(query, f"d{d}", rng.choice(grades)) for d in judged]
        if q in (5, 23):
            continue
        found = rng.sample(judged, len(judged) * 2 // 3) + rng.sample(range(400, 600), rng.choice([0, 8, 120]))
        levels = rng.choice([3, 20, 10_000])
        step = 1e-9 if q % 7 == 0 else 0.25
        run += [ScoredDoc(query, f"d{d}", 1 + rng.randrange(levels) * step) for d in found]
    run += [ScoredDoc("unjudged", f"d{d}", 1.0 / d) for d in range(1, 20)]

    values = {
        name: {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, run)}
        for name, measure in MEASURES.items()
    }
    values["rr@10"] = {q: v if v >= 0.1 else 0.0 for q, v in values.pop("rr").items()}
    mean = {name: ir_measures.calc_aggregate([m], qrels, run)[m] for name, m in MEASURES.items()}
    mean["rr@10"] = sum(values["rr@10"].values()) / len(values["rr@10"])
    del mean["rr"]
    missing = len({j.query_id for j in qrels} - {s.query_id for s in run})
    with open("golden.json", "w") as out:
        json.dump({"mean": mean, "missing": missing, "queries": values}, out, indent=1, sort_keys=True)
        out.write("\n")
    with open("run.trec", "w") as out:
        for s in run:
            out.write(f"{s.query_id} Q0 {s.doc_id} 0 {s.score} golden\n")
    columns = {
        "query_id": [j.query_id for j in qrels],
        "doc_id": [j.doc_id for j in qrels],
        "relevance": pa.array([j.relevance for j in qrels], pa.int32()),
    }
    pq.write_table(pa.table(columns), "qrels.parquet")


if __name__ == "__main__":
    main()
