"""sentence-transformers and transformers' generate on a GPU, as `benches/gpu.py` asks for them: a JSON request a line.

    python benches/peers/torch_models.py embedder|decoder FOLDER

Needs torch, transformers and sentence-transformers. The embedder runs in fp16, the decoder in bf16.
"""

import json
import sys
import time

import torch


def embedder(folder: str):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cuda")
    model.half()

    def answer(request: dict) -> dict:
        torch.cuda.synchronize()
        start = time.perf_counter()
        vectors = model.encode(request["texts"], batch_size=request["batch"], normalize_embeddings=True)
        seconds = time.perf_counter() - start
        kept = vectors[: request["keep"]].astype(float).ravel().tolist()
        return {"seconds": seconds, "dim": vectors.shape[1], "vectors": kept}

    return answer


def decoder(folder: str):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").cuda().eval()

    def generate(request: dict) -> int:
        tokens = 0
        for batch in batches(request["prompts"], request["batch"]):
            inputs = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False).to("cuda")
            length = request["max_tokens"]
            out = model.generate(
                **inputs,
                do_sample=True,
                temperature=request["temperature"],
                top_p=request["top_p"],
                top_k=0,
                num_return_sequences=request["n"],
                max_new_tokens=length,
                min_new_tokens=length,
                pad_token_id=tokenizer.pad_token_id,
            )
            tokens += out.shape[0] * (out.shape[1] - inputs["input_ids"].shape[1])
            tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :])
        return tokens

    def score(request: dict) -> None:
        pairs = [(p, t) for p, texts in zip(request["prompts"], request["texts"]) for t in texts]
        pairs += [(request["empty"], t) for texts in request["texts"] for t in texts]
        pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        for batch in batches(pairs, request["score_batch"]):
            texts = tokenizer([t for _, t in batch], add_special_tokens=False)["input_ids"]
            inputs = tokenizer([p for p, _ in batch], add_special_tokens=False)["input_ids"]
            rows = [p + t for p, t in zip(inputs, texts)]
            longest, most = max(map(len, rows)), max(map(len, texts))
            ids = torch.tensor([[0] * (longest - len(r)) + r for r in rows], device="cuda")
            mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device="cuda")
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=most + 1).logits[:, :-1].float()
            logs = logits.log_softmax(-1).gather(2, ids[:, -most:, None])[..., 0]
            keep = torch.tensor([[0.0] * (most - len(t)) + [1.0] * len(t) for t in texts], device="cuda")
            (logs * keep).sum(1).tolist()

    def answer(request: dict) -> dict:
        with torch.inference_mode():
            torch.cuda.synchronize()
            start = time.perf_counter()
            tokens = generate(request)
            torch.cuda.synchronize()
            middle = time.perf_counter()
            if request["texts"]:
                score(request)
                torch.cuda.synchronize()
            end = time.perf_counter()
        return {"seconds": end - start, "generating": middle - start, "scoring": end - middle, "tokens": tokens}

    return answer


def batches(items: list, size: int):
    return (items[i : i + size] for i in range(0, len(items), size))


def main() -> None:
    kind, folder = sys.argv[1:]
    answer = embedder(folder) if kind == "embedder" else decoder(folder)
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = answer(request)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            found = {"seconds": None}
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
