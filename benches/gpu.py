"""The models on a GPU against sentence-transformers (fp16) and transformers' generate (bf16): both run the same work in turn.

    python benches/gpu.py DATA EMBEDDER GENERATOR [--ours BINARY] [--runs 5] [--chunks 256] [--passages 20000]

DATA is the folder of evaluation sets (for real text), EMBEDDER a folder of a sentence embedder, GENERATOR one of a decoder; where
that has no weights, random ones of its config.json's shapes are made. Ours is the benchmark `models`, built by
`make bench-gpu-build`. Needs pyarrow, torch, transformers and sentence-transformers. A ratio above 1 means that ours is faster.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import pyarrow.parquet as pq
import torch
from models import CHUNK, HERE, Process, chatml

PEER = [sys.executable, HERE / "peers/torch_models.py"]
N, MAX_TOKENS = 5, 32
KEPT = 1000  # vectors that are compared


def matrix_rate() -> float:
    """FLOP/s of a large bf16 product."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - start)


def report(what: str, unit: str, ours: list[float], peers: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(ours, peers))
    print(
        f"{what:<44}{statistics.median(ours):>10.5g}{statistics.median(peers):>10.5g} {unit:<9}"
        f"{statistics.median(ratios):>6.2f}  [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
        flush=True,
    )


def best(peer: Process, key: str, sizes: list[int], **request) -> int:
    """The peer's fastest batch size."""
    peer.ask(**request | {key: sizes[0]})  # what only a first call takes is not counted
    found = [(peer.ask(**request | {key: size})["seconds"], size) for size in sizes]
    print(f"  peer's seconds by {key}: {found}", flush=True)
    return min((seconds, size) for seconds, size in found if seconds)[1]


def embed(args, texts: list[str]) -> None:
    settings = json.dumps({"device": args.device})
    with Process(*args.ours, "embedder", args.embedder, settings) as ours, Process(*PEER, "embedder", args.embedder) as peer:
        size = best(peer, "batch", [64, 256, 1024], texts=texts[:4096], keep=0)
        pairs = []
        ours.ask(texts=texts[:4096], keep=0)
        for _ in range(args.runs):
            request = {"texts": texts, "keep": KEPT}
            pairs.append((ours.ask(**request), peer.ask(**request, batch=size)))
        a, b = (torch.tensor(answer["vectors"]).reshape(-1, answer["dim"]) for answer in pairs[0])
        lowest = torch.nn.functional.cosine_similarity(a, b).min().item()
        alone = ours.ask(texts=texts[:1], keep=1)["vectors"]
        own = torch.nn.functional.cosine_similarity(a[0], torch.tensor(alone), dim=0).item()
    seconds = [[pair[i]["seconds"] for pair in pairs] for i in (0, 1)]
    report("embedding", "chunks/s", *[[len(texts) / s for s in of] for of in seconds])
    print(f"  lowest cosine to the peer's {lowest:.6f}; a text alone and in a batch {own:.7f}", flush=True)


def generate(args, texts: list[str], rate: float) -> None:
    folder = weights(args.generator)
    settings = json.dumps({"device": args.device})
    with Process(*args.ours, "decoder", folder, settings) as ours, Process(*PEER, "decoder", folder) as peer:
        shape = {"n": N, "max_tokens": MAX_TOKENS, "temperature": 0.8, "top_p": 0.95}

        def requests(chunks: list[str]) -> tuple[dict, dict]:
            *mine, empty = ours.ask(task="prompts", passages=[*chunks, ""])["prompts"]
            # A question a person might ask of something, five times: the shapes are those of real ones.
            questions = [[f"what does the study say about {c[i * 20 : i * 20 + 30].strip()}?" for i in range(N)] for c in chunks]
            both = {"texts": questions} | shape
            theirs = {"prompts": [chatml(messages) for messages in mine], "empty": chatml(empty)}
            return {"task": "given", "prompts": mine, "empty": empty} | both, theirs | both

        # Other chunks each time: what was read before is remembered.
        first, *rest = [texts[i * args.chunks :][: args.chunks] for i in range(args.runs + 1)]
        mine, theirs = requests(first[:128])
        size = best(peer, "batch", [16, 32, 64, 128], **theirs | {"texts": []})
        scores = best(peer, "score_batch", [32, 128], **theirs | {"batch": size, "max_tokens": 1})
        ours.ask(**mine)
        pairs = []
        for chunks in rest:
            mine, theirs = requests(chunks)
            pairs.append((ours.ask(**mine), peer.ask(**theirs, batch=size, score_batch=scores)))
        for what, part in (("prompts read, texts written", "generating"), ("with scores", "seconds")):
            of = [[args.chunks / pair[i][part] for pair in pairs] for i in (0, 1)]
            report(what, "chunks/s", *of)
        of = [[pair[i]["tokens"] / pair[i]["generating"] for pair in pairs] for i in (0, 1)]
        report("tokens written, prompts' reading included", "tokens/s", *of)
        prefill(ours, folder, texts, rate)


def prefill(ours: Process, folder: pathlib.Path, texts: list[str], rate: float) -> None:
    """Prompts of some thousand tokens that share nothing, each read for one token."""
    config = json.loads((folder / "config.json").read_text())
    long = [" ".join(texts[i : i + 10]) for i in range(0, min(len(texts), 160), 10)]
    requests = [[{"role": "user", "content": f"{i} {text}"}] for i, text in enumerate(long)]
    request = {"task": "given", "prompts": requests, "empty": requests[0], "texts": [[] for _ in long]}
    answer = ours.ask(**request, n=1, max_tokens=1, temperature=0, top_p=1)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = sum(len(tokenizer(chatml(r))["input_ids"]) for r in requests)
    width = config["hidden_size"]
    head = width // config["num_attention_heads"]
    layer = width * (2 * width + 2 * head * config["num_key_value_heads"] + 3 * config["intermediate_size"])
    flops = 2 * tokens * layer * config["num_hidden_layers"]
    speed = tokens / answer["generating"]
    share = flops / answer["generating"] / rate
    print(f"prompts of {tokens // len(long)} tokens that share nothing: {speed:.0f} tokens/s, {share:.0%} of the matrix rate", flush=True)


def weights(folder: pathlib.Path) -> pathlib.Path:
    """The folder, once it has weights."""
    if list(folder.glob("*.safetensors")):
        return folder
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    target = folder.parent / f"{folder.name}-random"
    model.save_pretrained(target)
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    print(f"random weights of {sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion parameters", flush=True)
    del model
    torch.cuda.empty_cache()
    return target


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("embedder", type=pathlib.Path)
    parser.add_argument("generator", type=pathlib.Path)
    parser.add_argument("--ours", nargs="+", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=256)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--only", choices=["embed", "generate"], nargs="+", default=["embed", "generate"])
    args = parser.parse_args()
    texts = [t[:CHUNK] for t in pq.read_table(args.data / "scifact/corpus.parquet")["text"].to_pylist()]
    rate = matrix_rate()
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} TFLOP/s in bf16, of a product of 8192 by 8192", flush=True)
    print(f"{'':<44}{'ours':>10}{'peer':>10} {'':<9}{'ratio':>6}", flush=True)
    if "embed" in args.only:
        many = texts * (args.passages // len(texts) + 1)
        # No two are the same, as a real corpus's are not.
        embed(args, [f"{i} {text}" for i, text in enumerate(many[: args.passages])])
    if "generate" in args.only:
        generate(args, texts, rate)


if __name__ == "__main__":
    main()
