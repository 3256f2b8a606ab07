"""llama.cpp as a peer: reads one JSON request a line, does the work, and answers with a JSON line.

    python benches/peers/llama.py MODEL.gguf THREADS [--sequences N] [--context N]

Prompts are read once and their keys copied to the sequences that continue them; all sequences decode in one batch.
Needs llama-cpp-python, built for this machine, and numpy.
"""

import argparse
import ctypes
import json
import resource
import sys
import time

import llama_cpp as ll
import numpy as np


class Engine:
    def __init__(self, path: str, threads: int, sequences: int, context: int):
        ll.llama_backend_init()
        ll.llama_log_set(SILENT, ctypes.c_void_p(0))
        parameters = ll.llama_model_default_params()
        self.model = ll.llama_model_load_from_file(path.encode(), parameters)
        parameters = ll.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = 2048
        parameters.n_ubatch = 512
        parameters.n_seq_max = sequences
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        parameters.kv_unified = True
        self.context = ll.llama_init_from_model(self.model, parameters)
        self.memory = ll.llama_get_memory(self.context)
        self.vocabulary = ll.llama_model_get_vocab(self.model)
        self.size = ll.llama_vocab_n_tokens(self.vocabulary)
        self.batch = ll.llama_batch_init(2048, 0, 1)
        self.common: list[int] = []

    def tokens(self, text: str) -> list[int]:
        raw = text.encode()
        room = len(raw) + 8
        found = (ll.llama_token * room)()
        count = ll.llama_tokenize(self.vocabulary, raw, len(raw), found, room, False, True)
        return list(found[:count])

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        count = ll.llama_token_to_piece(self.vocabulary, token, buffer, 256, 0, False)
        return buffer.raw[:count]

    def decode(self, entries: list[tuple[int, int, int, bool]]) -> None:
        """Each entry: token, position, sequence, whether its logits are wanted."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if ll.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode")

    def read(self, tokens: list[int], start: int, sequence: int, logits: bool) -> None:
        for at in range(0, len(tokens), 2048):
            part = tokens[at : at + 2048]
            last = at + len(part) == len(tokens)
            self.decode(
                [
                    (token, start + at + i, sequence, logits and last and i == len(part) - 1)
                    for i, token in enumerate(part)
                ]
            )

    def forget(self, sequence: int, start: int = 0) -> None:
        ll.llama_memory_seq_rm(self.memory, sequence, start, -1)

    def copy(self, source: int, target: int, end: int) -> None:
        ll.llama_memory_seq_cp(self.memory, source, target, 0, end)

    def sampler(self, seed: int, temperature: float, top_p: float):
        chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        if temperature <= 0:
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_greedy())
        else:
            # llama.cpp's own default first step; without it, sorting the vocabulary takes most of the time.
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_top_k(40))
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_top_p(top_p, 1))
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_temp(temperature))
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_dist(seed))
        return chain

    def ends(self, token: int) -> bool:
        return ll.llama_vocab_is_eog(self.vocabulary, token)


def prefill(engine: Engine, request: dict) -> dict:
    tokens = engine.tokens(request["prompt"])
    engine.forget(0)
    started = time.perf_counter()
    engine.read(tokens, 0, 0, True)
    chain = engine.sampler(0, 0.0, 1.0)
    first = ll.llama_sampler_sample(chain, engine.context, -1)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": len(tokens), "first": first}


def generate(engine: Engine, request: dict) -> dict:
    """Continues one prompt `n` times; the prompt's reading is not timed."""
    tokens = engine.tokens(request["prompt"])
    count = request["n"]
    for sequence in range(count):
        engine.forget(sequence)
    engine.read(tokens, 0, 0, True)
    for sequence in range(1, count):
        engine.copy(0, sequence, len(tokens))
    chains = [engine.sampler(i, request["temperature"], request["top_p"]) for i in range(count)]
    last = {i: ll.llama_sampler_sample(chain, engine.context, -1) for i, chain in enumerate(chains)}
    texts: list[list[int]] = [[last[i]] for i in range(count)]
    last = {i: token for i, token in last.items() if not engine.ends(token)}
    position, done = len(tokens), 0
    started = time.perf_counter()
    for _ in range(request["max_tokens"] - 1):
        if not last:
            break
        rows = list(last.items())
        engine.decode([(token, position, sequence, True) for sequence, token in rows])
        position += 1
        for row, (sequence, _) in enumerate(rows):
            token = ll.llama_sampler_sample(chains[sequence], engine.context, row)
            done += 1
            texts[sequence].append(token)
            last[sequence] = token
            if engine.ends(token):
                del last[sequence]
    seconds = time.perf_counter() - started
    for chain in chains:
        ll.llama_sampler_free(chain)
    text = b"".join(engine.piece(t) for t in texts[0])
    return {"seconds": seconds, "tokens": done, "ids": texts[0], "text": text.decode(errors="replace")}


def log_probability(engine: Engine, request: dict) -> dict:
    """Of each text after the prompt, and its tokens."""
    prompt = engine.tokens(request["prompt"])
    sums, counts = [], []
    for text in request["texts"]:
        tokens = engine.tokens(text)
        engine.forget(0)
        read = prompt + tokens[:-1]
        engine.decode([(token, at, 0, at >= len(prompt) - 1) for at, token in enumerate(read)])
        logs = (log_softmax(engine, len(prompt) - 1 + i)[token] for i, token in enumerate(tokens))
        sums.append(float(sum(logs)))
        counts.append(len(tokens))
    return {"sums": sums, "tokens": counts}


class Row:
    def __init__(self, chunk: int, index: int, sequence: int, chain, position: int):
        self.chunk, self.index, self.sequence, self.chain, self.position = chunk, index, sequence, chain, position
        self.tokens: list[int] = []
        self.text = b""


def work(engine: Engine, request: dict) -> dict:
    """Samples `n` questions for each passage and scores each, given the passage and given nothing.

    The common beginning is read once; each passage once, for its samples and its scores; the questions of as many
    passages as there are sequences are decoded together.
    """
    prompts = [engine.tokens(p) for p in request["prompts"]]
    empty = engine.tokens(request["empty"])
    count, most = request["n"], request["max_tokens"]
    started = time.perf_counter()
    ll.llama_memory_clear(engine.memory, True)
    common = 0
    while all(len(p) > common + 1 and p[common] == empty[common] for p in prompts) and common < len(empty) - 1:
        common += 1
    shared, none = 0, 1
    engine.read(empty[:common], 0, shared, False)
    engine.copy(shared, none, common)
    engine.read(empty[common:], common, none, True)
    prior = log_softmax(engine, -1)
    at_once = request["chunks_at_once"]
    sampled = scored = 0
    questions: list[list[str]] = []
    for first in range(0, len(prompts), at_once):
        group = prompts[first : first + at_once]
        rows, firsts = [], []
        for chunk, prompt in enumerate(group):
            base = 2 + chunk * (count + 1)
            engine.copy(shared, base, common)
            engine.read(prompt[common:], common, base, True)
            firsts.append(log_softmax(engine, -1))
            for index in range(count):
                sequence = base + 1 + index
                engine.copy(base, sequence, len(prompt))
                chain = engine.sampler(first * 100 + chunk * 10 + index, request["temperature"], request["top_p"])
                row = Row(chunk, index, sequence, chain, len(prompt))
                rows.append(row)
                push(engine, row, ll.llama_sampler_sample(chain, engine.context, -1), most)
        sampled += run(engine, [r for r in rows if r.text is not None and not finished(r)], most)
        texts = [clean(r.text) for r in rows]
        questions.extend([texts[i : i + count] for i in range(0, len(texts), count)])
        for row in rows:
            ll.llama_sampler_free(row.chain)
            engine.forget(row.sequence)
        scored += score(engine, group, texts, count, firsts, prior, len(empty), none)
        for chunk in range(len(group)):
            engine.forget(2 + chunk * (count + 1))
    return {
        "seconds": time.perf_counter() - started,
        "sampled": sampled,
        "scored": scored,
        "questions": questions[:3],
    }


def push(engine: Engine, row: Row, token: int, most: int) -> None:
    row.tokens.append(token)
    piece = b"" if engine.ends(token) else engine.piece(token)
    row.text += piece
    row.done = engine.ends(token) or b"\n" in row.text or len(row.tokens) >= most


def finished(row: Row) -> bool:
    return row.done


def run(engine: Engine, rows: list[Row], most: int) -> int:
    sampled = 0
    while rows:
        engine.decode([(r.tokens[-1], r.position, r.sequence, True) for r in rows])
        for place, row in enumerate(rows):
            row.position += 1
            push(engine, row, ll.llama_sampler_sample(row.chain, engine.context, place), most)
            sampled += 1
        rows = [r for r in rows if not r.done]
    return sampled


def clean(text: bytes) -> str:
    return text.decode(errors="replace").split("\n")[0].strip()


def log_softmax(engine: Engine, place: int) -> np.ndarray:
    logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(engine.context, place), shape=(engine.size,))
    top = logits.max()
    return logits - top - np.log(np.exp(logits - top).sum())


def score(engine, group, texts, count, firsts, prior, empty, none) -> int:
    """log P of each question after its passage and after nothing, all of a batch of tokens at once."""
    jobs = []
    for place, text in enumerate(texts):
        tokens = engine.tokens(text)
        chunk = place // count
        base = 2 + chunk * (count + 1)
        if tokens:
            jobs.append((tokens, base, len(group[chunk]), base + 1 + place % count, firsts[chunk]))
            jobs.append((tokens, none, empty, base + 1 + place % count, prior))
    scored = 0
    for half in (0, 1):
        batch, targets = [], []
        for tokens, source, start, sequence, first in jobs[half::2]:
            engine.copy(source, sequence, start)
            total = first[tokens[0]]
            for i, token in enumerate(tokens[:-1]):
                targets.append(tokens[i + 1])
                batch.append((token, start + i, sequence, True))
            scored += len(tokens)
        for at in range(0, len(batch), 256):
            engine.decode(batch[at : at + 256])
            for place, target in enumerate(targets[at : at + 256]):
                log_softmax(engine, place)[target]
        for *_, sequence, _ in jobs[half::2]:
            engine.forget(sequence)
    return scored


@ll.llama_log_callback
def SILENT(level, text, data):
    pass


TASKS = {"prefill": prefill, "generate": generate, "score": log_probability, "work": work}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--context", type=int, default=16384)
    args = parser.parse_args()
    engine = Engine(args.model, args.threads, args.sequences, args.context)
    for line in sys.stdin:
        request = json.loads(line)
        answer = TASKS[request["task"]](engine, request)
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
