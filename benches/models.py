"""The models against their best peers: both run the same work in turn, and ratios are printed with their spread.

    python benches/models.py DATA MODELS [--runs 5] [--only prefill …] [--ours BINARY]

DATA is the folder of evaluation sets (for real text), MODELS that of `make models`; ours is `cargo bench --bench models`
or that benchmark, built. Peers run in the Pythons named by INTENDEX_LLAMA_PYTHON (llama-cpp-python, built for
this machine, numpy and gguf) and INTENDEX_ONNX_PYTHON (onnx, onnxruntime, tokenizers); one that is not named is left out, and said so.
The tasks are prefill, decode-1, decode-16, decode-32, work, parity, noise and embed; and of ours with an option against ours
without, shortlist and int8. A ratio above 1 means that ours, or the option, is faster. Needs pyarrow.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile

import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
SYSTEM = "You are a helpful assistant."
CHUNK = 600  # characters
OURS = ["cargo", "bench", "--quiet", "--bench", "models", "--"]


class Process:
    """A model behind a pipe. It idles while the other one works."""

    def __init__(self, *command: str):
        self.process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def chatml(messages: list[dict]) -> str:
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return turns + "<|im_start|>assistant\n"


def report(what: str, unit: str, pairs: list[tuple[dict, dict, float, float]]) -> None:
    """Each pair: our answer, the peer's, and how many units of work each did."""
    ours = [work / answer["seconds"] for answer, _, work, _ in pairs]
    peers = [work / answer["seconds"] for _, answer, _, work in pairs]
    ratios = sorted(a / b for a, b in zip(ours, peers))
    memory = [max(p[i]["peak_mib"] for p in pairs) for i in (0, 1)]
    print(
        f"{what:<34}{statistics.median(ours):>9.4g}{statistics.median(peers):>9.4g} {unit:<9}"
        f"{statistics.median(ratios):>6.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]  {memory[0]:>6.0f}{memory[1]:>7.0f}",
        flush=True,
    )


def prompt(user: str) -> dict:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    return {"system": SYSTEM, "user": user, "prompt": chatml(messages)}


def story(rows: int) -> dict:
    """A request for `rows` long texts."""
    request = prompt("Write a long story about a lighthouse keeper and the sea.")
    temperature = 0.0 if rows == 1 else 1.0
    return request | {"task": "generate", "n": rows, "max_tokens": 64, "top_p": 0.95, "temperature": temperature}


def decoder(args, name: str, gguf: pathlib.Path, peer: str, texts: list[str]) -> None:
    wanted = args.wanted
    with (
        Process(*args.ours, "decoder", gguf, "{}") as ours,
        Process(peer, HERE / "peers/llama.py", gguf, args.threads) as theirs,
    ):
        if wanted("prefill"):
            # About 512 tokens each, every one a text not read before.
            documents = iter(" ".join(texts[i : i + 6])[:2300] for i in range(0, len(texts), 6))
            pairs = []
            for _ in range(args.runs + 1):
                request = prompt(next(documents))
                a, b = ours.ask(task="prefill", **request), theirs.ask(task="prefill", **request)
                pairs.append((a, b, b["tokens"], b["tokens"]))
            report(f"{name}: prefill", "tokens/s", pairs[1:])
        for rows in (1, 16, 32):
            task = f"decode-{rows}"
            if wanted(task):
                decode(args, f"{name}: decode, {rows} rows", rows, ours, theirs)
        if wanted("work"):
            request = {"n": 5, "temperature": 0.8, "top_p": 0.95, "max_tokens": 32}
            pairs = []
            for run in range(args.runs):
                # Other chunks each time: what was read before is remembered.
                passages = [t[:CHUNK] for t in texts[run * args.chunks :][: args.chunks]]
                rendered = ours.ask(task="prompts", passages=[*passages, ""])["prompts"]
                *prompts, empty = [chatml(messages) for messages in rendered]
                a = ours.ask(task="work", passages=passages, **request)
                b = theirs.ask(task="work", prompts=prompts, empty=empty, chunks_at_once=8, **request)
                pairs.append((a, b, len(passages), len(passages)))
                print(f"  run {run}: {a['seconds']:.1f} s, peer {b['seconds']:.1f} s", flush=True)
            report(f"{name}: 5 queries and scores", "chunks/s", pairs)
        if wanted("parity"):
            parity(name, ours, theirs, texts)
    if wanted("noise"):
        noise(args, name, gguf, peer, texts)


def decode(args, what: str, rows: int, ours: Process, theirs: Process) -> None:
    pairs = []
    for _ in range(args.runs):
        a, b = ours.ask(**story(rows)), theirs.ask(**story(rows))
        pairs.append((a, b, a["tokens"], b["tokens"]))
    report(what, "tokens/s", pairs)


def shortlist(args, name: str, gguf: pathlib.Path, texts: list[str]) -> None:
    """Ours that draws from the most frequent tokens and the prompt's, against ours that draws from all."""
    with (
        Process(*args.ours, "decoder", gguf, json.dumps({"shortlist": args.shortlist})) as short,
        Process(*args.ours, "decoder", gguf, "{}") as full,
    ):
        for rows in (1, 16):
            decode(args, f"{name}: {args.shortlist} tokens, {rows} rows", rows, short, full)
        parity(f"{name}, {args.shortlist} tokens", short, full, texts)


def parity(name: str, ours: Process, theirs: Process, texts: list[str]) -> None:
    same = 0
    for text in texts[:50]:
        request = prompt(f"Summarise in one sentence: {text[:400]}")
        request |= {"task": "generate", "n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 20}
        a, b = ours.ask(**request)["text"].strip(), theirs.ask(**request)["text"].strip()
        if a == b:
            same += 1
        else:
            print(f"  ours: {a!r}\n  peer: {b!r}")
    print(f"{name}: the first 20 greedy tokens agree for {same} of 50 prompts", flush=True)


def noise(args, name: str, gguf: pathlib.Path, peer: str, texts: list[str]) -> None:
    """How far the log-probabilities of texts are from those of the same weights without any rounding of activations."""

    def scores(*command) -> list[tuple[float, int]]:
        with Process(*command) as process:
            answers = [process.ask(task="score", **request) for request in requests]
        return [pair for answer in answers for pair in zip(answer["sums"], answer["tokens"])]

    def distance(found: list[tuple[float, int]]) -> float:
        assert [n for _, n in found] == [n for _, n in exact], "the same tokens"
        return math.sqrt(statistics.mean((a - b) ** 2 / n for (a, n), (b, _) in zip(found, exact)))

    requests = [
        prompt(f"Summarise in one sentence: {text[:400]}") | {"texts": [text[400 : 440 + 20 * i] for i in range(4)]}
        for text in texts[:15]
    ]
    llama = [peer, HERE / "peers/llama.py"]
    with tempfile.TemporaryDirectory() as folder:
        unquantized = pathlib.Path(folder) / "f32.gguf"
        subprocess.run([peer, HERE / "peers/dequantize.py", gguf, unquantized], check=True)
        exact = scores(*llama, unquantized, args.threads)
    ours, theirs = distance(scores(*args.ours, "decoder", gguf, "{}")), distance(scores(*llama, gguf, args.threads))
    print(f"{name}: log P a token, root mean square distance to f32: ours {ours:.4f}, llama.cpp {theirs:.4f}", flush=True)


def embedder(args, folder: pathlib.Path, peer: str, texts: list[str]) -> None:
    theirs = [peer, HERE / "peers/ort.py", folder, args.threads]
    embed(args, folder.name, [*args.ours, "embedder", folder, "{}"], theirs, texts)


def int8(args, folder: pathlib.Path, texts: list[str]) -> None:
    """Ours with linear layers in 8 bits against ours in f32."""
    ours = lambda **settings: [*args.ours, "embedder", folder, json.dumps(settings)]
    embed(args, f"{folder.name}, int8", ours(precision="int8"), ours(), texts)


def embed(args, name: str, ours: list, theirs: list, texts: list[str]) -> None:
    texts = [t[:CHUNK] for t in texts[:2000]]
    with Process(*ours) as ours, Process(*theirs) as theirs:
        pairs = []
        for _ in range(args.runs):
            a, b = ours.ask(texts=texts), theirs.ask(texts=texts, max_tokens=256)
            pairs.append((a, b, len(texts), len(texts)))
    report(f"{name}: {len(texts)} chunks", "chunks/s", pairs)
    a, b, dim = pairs[0][0]["vectors"], pairs[0][1]["vectors"], pairs[0][0]["dim"]
    cosines = [sum(x * y for x, y in zip(a[i : i + dim], b[i : i + dim])) for i in range(0, len(a), dim)]
    print(f"{name}: lowest cosine to the peer's vectors {min(cosines):.6f}", flush=True)


def is_embedder(folder: pathlib.Path) -> bool:
    config = folder / "config.json"
    return config.exists() and json.loads(config.read_text()).get("architectures") == ["BertModel"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--ours", nargs=1, default=OURS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--shortlist", type=int, default=16_384)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    texts = pq.read_table(args.data / "scifact/corpus.parquet")["text"].to_pylist()
    print(f"{'':<34}{'ours':>9}{'peer':>9} {'':<9}{'ratio':>6}  {'spread':<13} {'MiB':>6}{'peer':>7}")
    args.wanted = lambda task: not args.only or task in args.only
    folders = sorted(args.models.iterdir())
    generators = [f for f in folders if (f / "model.gguf").exists()]
    embedders = [f for f in folders if is_embedder(f)]
    if python := peer("INTENDEX_LLAMA_PYTHON", "llama.cpp"):
        for folder in generators:
            decoder(args, folder.name, folder / "model.gguf", python, texts)
    if (python := peer("INTENDEX_ONNX_PYTHON", "ONNX Runtime")) and args.wanted("embed"):
        for folder in embedders:
            embedder(args, folder, python, texts)
    for folder in generators if args.wanted("shortlist") else []:
        shortlist(args, folder.name, folder / "model.gguf", texts)
    for folder in embedders if args.wanted("int8") else []:
        int8(args, folder, texts)


def peer(variable: str, name: str) -> str | None:
    """The peer's Python."""
    python = os.environ.get(variable)
    if not python:
        print(f"LEFT OUT: {name}: {variable} is not set")
    return python


if __name__ == "__main__":
    main()
