"""Intent-driven chunking in numpy against ours, on vectors of the same shapes; and ours from text to chunks (`boundary`).

    cargo bench --bench chunk && python benches/chunk.py

The peer is the published method (arXiv 2602.14784) written in numpy, span by span, as its formula stands. Ours are the medians
that criterion left in target/criterion. A ratio above 1 means that ours is faster. Needs numpy.
"""

import json
import pathlib
import statistics
import time

import numpy as np

DIM, INTENTS, LONGEST, DOCUMENTS, SENTENCES = 384, 20, 24, 100, 500
LAMBDA, BETA = 0.01, 0.3
RESULTS = pathlib.Path(__file__).parent.parent / "target/criterion"


def segment(sentences: np.ndarray, intents: np.ndarray) -> int:
    """Number of chunks of the best segmentation."""
    intents = intents / np.linalg.norm(intents, axis=1, keepdims=True)
    n = len(sentences)
    best, start = np.full(n + 1, -np.inf), np.zeros(n + 1, dtype=int)
    best[0] = 0
    for j in range(1, n + 1):
        for i in range(max(0, j - LONGEST), j):
            mean = sentences[i:j].mean(axis=0)
            relevance = (intents @ mean).max() / np.linalg.norm(mean)
            value = best[i] + relevance - LAMBDA * (j - i) ** 2 - (BETA if i else 0)
            if value > best[j]:
                best[j], start[j] = value, i
    chunks, end = 0, n
    while end:
        chunks, end = chunks + 1, start[end]
    return chunks


def ours(group: str, name: str) -> float:
    """Seconds."""
    return json.loads((RESULTS / group / name / "new/estimates.json").read_text())["median"]["point_estimate"] / 1e9


def main() -> None:
    random = np.random.default_rng(1)
    intents = random.uniform(-1, 1, (INTENTS, DIM)).astype(np.float32)
    seconds = []
    for _ in range(5):
        document = random.uniform(-1, 1, (SENTENCES, DIM)).astype(np.float32)
        started = time.perf_counter()
        segment(document, intents)
        seconds.append(time.perf_counter() - started)
    peer = statistics.median(seconds) * DOCUMENTS
    print(f"numpy: {peer:.1f} s for {DOCUMENTS} documents of {SENTENCES} sentences (5 measured)")
    for method in ("paper", "boundary"):
        for how in ("one after another", "in parallel"):
            took = ours(f"{method}, {DOCUMENTS} documents of {SENTENCES} sentences", how)
            ratio = f"{peer / took:7.0f}" if method == "paper" else ""
            print(f"{method:<10}{how:<20}{took:8.4f} s{ratio}")
        lengths = [ours(f"{method}, one document", str(n)) / n * 1e6 for n in (1_000, 10_000, 100_000)]
        print(f"{method:<10}µs a sentence in documents of 1,000, 10,000 and 100,000:", *(f"{x:.2f}" for x in lengths))


if __name__ == "__main__":
    main()
