#!/usr/bin/env python3
"""Copies the Markdown documentation of a fixed selection of crates, at the versions of Cargo.lock, from cargo's own
registry to FOLDER/CRATE/FILE.md: real documents that every machine with a Rust toolchain can have.

    python3 jobs/quickstart-docs.py FOLDER
"""
import json
import pathlib
import shutil
import subprocess
import sys

SELECTION = {
    "anyhow": ["README.md"],
    "blake3": ["README.md"],
    "rayon": ["README.md", "FAQ.md"],
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    # Downloads the sources where they are missing.
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--locked", "--format-version", "1"]))
    folders = {p["name"]: pathlib.Path(p["manifest_path"]).parent for p in metadata["packages"]}
    for crate, files in SELECTION.items():
        (target / crate).mkdir(parents=True)
        for file in files:
            shutil.copyfile(folders[crate] / file, target / crate / file)
    print(f"{sum(map(len, SELECTION.values()))} documents in {target}", file=sys.stderr)


if __name__ == "__main__":
    main()
