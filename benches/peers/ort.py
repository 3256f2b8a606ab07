"""ONNX Runtime as a peer: a BERT sentence embedder (mean pooling, normalised) in fp32.

    python benches/peers/ort.py FOLDER THREADS

Reads one JSON request a line and answers with a JSON line. The graph is made from the folder's safetensors with the
fused operators that ONNX Runtime's own transformer optimizer would put there (Attention, SkipLayerNormalization,
BiasGelu). Texts are sorted by length and padded within a batch. Needs onnx, onnxruntime, numpy and tokenizers.
"""

import json
import pathlib
import resource
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

BATCH = 32


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + o for o in entry["data_offsets"])
        tensor = np.frombuffer(raw[start:end], types[entry["dtype"]]).reshape(entry["shape"])
        tensors[name.removeprefix("bert.")] = tensor
    return tensors


def graph(folder: pathlib.Path) -> bytes:
    config = json.loads((folder / "config.json").read_text())
    weights = read(folder / "model.safetensors")
    epsilon = config["layer_norm_eps"]
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def node(kind: str, inputs: list[str], output: str, domain: str = "com.microsoft", **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def both(name: str) -> tuple[str, str]:
        return constant(f"{name}.weight", weights[f"{name}.weight"]), constant(f"{name}.bias", weights[f"{name}.bias"])

    embeddings = [constant(f"{n}s", weights[f"embeddings.{n}_embeddings.weight"]) for n in ("word", "position", "token_type")]
    scale, shift = both("embeddings.LayerNorm")
    nodes.append(
        helper.make_node(
            "EmbedLayerNormalization",
            ["ids", "types", *embeddings, scale, shift, "mask"],
            ["x", "lengths"],
            domain="com.microsoft",
            epsilon=epsilon,
        )
    )
    x = "x"
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}."
        parts = [f"{at}attention.self.{n}" for n in ("query", "key", "value")]
        weight = constant(f"{at}qkv", np.concatenate([weights[f"{p}.weight"].T for p in parts], axis=1))
        bias = constant(f"{at}qkv.bias", np.concatenate([weights[f"{p}.bias"] for p in parts]))
        mixed = node("Attention", [x, weight, bias, "lengths"], f"{at}mixed", num_heads=config["num_attention_heads"])

        def product(name: str, y: str) -> str:
            weight = constant(f"{name}.t", weights[f"{name}.weight"].T)
            return node("MatMul", [y, weight], f"{name}.y", domain="")

        y = product(f"{at}attention.output.dense", mixed)
        scale, shift = both(f"{at}attention.output.LayerNorm")
        bias = constant(f"{at}out.bias", weights[f"{at}attention.output.dense.bias"])
        x = node("SkipLayerNormalization", [y, x, scale, shift, bias], f"{at}middle", epsilon=epsilon)
        y = product(f"{at}intermediate.dense", x)
        bias = constant(f"{at}up.bias", weights[f"{at}intermediate.dense.bias"])
        y = node("BiasGelu", [y, bias], f"{at}gelu")
        y = product(f"{at}output.dense", y)
        scale, shift = both(f"{at}output.LayerNorm")
        bias = constant(f"{at}down.bias", weights[f"{at}output.dense.bias"])
        x = node("SkipLayerNormalization", [y, x, scale, shift, bias], f"{at}end", epsilon=epsilon)
    integers = [helper.make_tensor_value_info(n, TensorProto.INT32, ["b", "s"]) for n in ("ids", "types", "mask")]
    output = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["b", "s", config["hidden_size"]])
    model = helper.make_model(
        helper.make_graph(nodes, "bert", integers, [output], constants),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    return model.SerializeToString()


def embed(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    encodings = tokenizer.encode_batch(texts)
    order = sorted(range(len(texts)), key=lambda i: -len(encodings[i].ids))
    vectors = [None] * len(texts)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        longest = len(encodings[rows[0]].ids)
        ids = np.zeros((len(rows), longest), np.int32)
        mask = np.zeros_like(ids)
        for r, i in enumerate(rows):
            ids[r, : len(encodings[i].ids)] = encodings[i].ids
            mask[r, : len(encodings[i].ids)] = 1
        states = session.run(None, {"ids": ids, "types": np.zeros_like(ids), "mask": mask})[0]
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        for r, i in enumerate(rows):
            vectors[i] = pooled[r]
    return np.stack(vectors)


def main() -> None:
    folder, threads = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph(folder), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    for line in sys.stdin:
        request = json.loads(line)
        tokenizer.enable_truncation(request["max_tokens"])
        started = time.perf_counter()
        vectors = embed(session, tokenizer, request["texts"])
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mib": peak, "vectors": vectors.flatten().tolist()}), flush=True)


if __name__ == "__main__":
    main()
