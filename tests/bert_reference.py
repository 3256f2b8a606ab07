"""BERT and nomic-bert in numpy (float64), as their papers and published code define them; what src/model/bert is checked by.

    python3 tests/bert_reference.py FOLDER < SEQUENCES.json

SEQUENCES: a list of {"ids": [token, …], "second": place of the second text of a pair}. Prints a JSON object: `means`,
the mean of the last layer's outputs, by sequence; with a masked-language-model head `terms`, SPLADE's weights by token;
with a classification head `scores`.
"""

import json
import math
import pathlib
import sys

import numpy as np

TYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + size]), {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            values = np.frombuffer(data[8 + size + start : 8 + size + end], TYPES[about["dtype"]])
            tensors[name.replace("gamma", "weight").replace("beta", "bias")] = values.reshape(about["shape"]).astype(np.float64)
    return tensors


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def silu(x):
    return x / (1 + np.exp(-x))


class Model:
    def __init__(self, folder: pathlib.Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = read(folder / "model.safetensors")
        self.nomic = self.config["model_type"] == "nomic_bert"
        self.prefix = "bert." if "bert.embeddings.word_embeddings.weight" in self.w else ""
        self.heads = self.config["n_head" if self.nomic else "num_attention_heads"]
        self.epsilon = self.config["layer_norm_epsilon" if self.nomic else "layer_norm_eps"]

    def get(self, name):
        return self.w[self.prefix + name]

    def linear(self, x, name):
        bias = self.w.get(self.prefix + name + ".bias", 0.0)
        return x @ self.get(name + ".weight").T + bias

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        return x * self.get(name + ".weight") + self.get(name + ".bias")

    def rotate(self, x):  # [heads, n, d]
        n, d = x.shape[1:]
        frequency = self.config["rotary_emb_base"] ** (-np.arange(0, d, 2) / d)
        angle = np.outer(np.arange(n), frequency)
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    def attention(self, q, k, v):
        split = lambda x: x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
        q, k, v = split(q), split(k), split(v)
        if self.nomic:
            q, k = self.rotate(q), self.rotate(k)
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)

    def outputs(self, ids, second):
        n = len(ids)
        x = self.get("embeddings.word_embeddings.weight")[ids]
        x = x + self.get("embeddings.token_type_embeddings.weight")[(np.arange(n) >= second).astype(int)]
        if self.nomic:
            x = self.norm(x, "emb_ln")
            for i in range(self.config["n_layer"]):
                layer = f"encoder.layers.{i}."
                q, k, v = np.split(self.linear(x, layer + "attn.Wqkv"), 3, -1)
                x = self.norm(x + self.linear(self.attention(q, k, v), layer + "attn.out_proj"), layer + "norm1")
                wide = self.linear(x, layer + "mlp.fc11") * silu(self.linear(x, layer + "mlp.fc12"))
                x = self.norm(x + self.linear(wide, layer + "mlp.fc2"), layer + "norm2")
            return x
        x = x + self.get("embeddings.position_embeddings.weight")[:n]
        x = self.norm(x, "embeddings.LayerNorm")
        for i in range(self.config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}."
            q, k, v = (self.linear(x, f"{layer}attention.self.{part}") for part in ("query", "key", "value"))
            mixed = self.linear(self.attention(q, k, v), layer + "attention.output.dense")
            x = self.norm(x + mixed, layer + "attention.output.LayerNorm")
            wide = gelu(self.linear(x, layer + "intermediate.dense"))
            x = self.norm(x + self.linear(wide, layer + "output.dense"), layer + "output.LayerNorm")
        return x

    def terms(self, x):
        head = "cls.predictions."
        prefix, self.prefix = self.prefix, ""
        x = self.norm(gelu(self.linear(x, head + "transform.dense")), head + "transform.LayerNorm")
        self.prefix = prefix
        bias = self.w.get(head + "bias", self.w.get(head + "decoder.bias"))
        logits = x @ self.get("embeddings.word_embeddings.weight").T + bias
        weights = np.log1p(np.maximum(logits, 0)).max(0)
        return {int(i): float(weights[i]) for i in np.flatnonzero(weights > 0)}

    def score(self, x):
        pooled = np.tanh(self.linear(x[0], "pooler.dense"))
        return float(pooled @ self.w["classifier.weight"][0] + self.w["classifier.bias"][0])


def main():
    model = Model(pathlib.Path(sys.argv[1]))
    outputs = [model.outputs(np.array(s["ids"]), s["second"]) for s in json.load(sys.stdin)]
    answer = {"means": [x.mean(0).tolist() for x in outputs]}
    if "cls.predictions.transform.dense.weight" in model.w:
        answer["terms"] = [model.terms(x) for x in outputs]
    if "classifier.weight" in model.w:
        answer["scores"] = [model.score(x) for x in outputs]
    json.dump(answer, sys.stdout)


main()
