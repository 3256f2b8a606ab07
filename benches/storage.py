"""Object storage against pyarrow's S3FileSystem, on the same files of the same server on loopback.

    python benches/storage.py SERVER DATA [--ours BINARY] [--delay 0 20] [--runs 5] [--mb 60]

SERVER is s3s-fs, DATA the folder of evaluation sets. Three tasks: `read`, all documents of a corpus of several Parquet files (ids,
titles and texts of SciFact, repeated with changed words, beside a column of bytes that nobody asks for); `upload` and `download`, a
folder of two large files and 200 small ones (the peer's copies in eight threads). With a delay, what passes between client and server is late by so many milliseconds,
half of them each way, as in a network (a server of the same region answers in 10 to 50). A ratio is our time over the peer's; medians of paired runs
and their spread. Ours flushes what it downloads to the disk, the peer does not; and it reads the ids of a corpus first, and then all, to find those that
occur twice. This server hashes a file for every request of a part of it, so that requests cost it, as they cost time in a network.
"""

import argparse
import asyncio
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq

from scale import changed

OURS = ["cargo", "bench", "--quiet", "--bench", "storage", "--"]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
FILES = 4  # of the corpus
SMALL, SMALL_BYTES = 200, 256 << 10

PEER = """
import concurrent.futures, json, os, resource, sys, time
import pyarrow.dataset, pyarrow.fs
endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
start = time.perf_counter()
s3 = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1")
task, first, second = sys.argv[1:4]
def files(filesystem, folder):
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True))
    return [info.path for info in found if info.is_file]
def copy(source, target, **filesystems):
    pyarrow.fs.copy_files(source, target, **filesystems)
rows = 0
local = pyarrow.fs.LocalFileSystem()
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    if task == "read":
        dataset = pyarrow.dataset.dataset(files(s3, first), filesystem=s3, format="parquet")
        for batch in dataset.to_batches(columns=["doc_id", "title", "text"]):
            rows += batch.num_rows
    else:
        ends = (local, s3) if task == "upload" else (s3, local)
        work = [
            pool.submit(copy, path, second + path[len(first):], source_filesystem=ends[0], destination_filesystem=ends[1])
            for path in files(ends[0], first)
        ]
        rows = len([one.result() for one in work])
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "rows": rows, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


class Late:
    """A port whose bytes come and go through another, late."""

    def __init__(self, port, seconds):
        self.target, self.seconds, self.port = port, seconds, None
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.serve(ready)), daemon=True).start()
        ready.wait()

    async def serve(self, ready):
        server = await asyncio.start_server(self.connect, "127.0.0.1", 0, limit=1 << 22)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    async def connect(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=1 << 22)
        await asyncio.gather(self.pass_on(reader, other_writer), self.pass_on(other_reader, writer))

    async def pass_on(self, reader, writer):
        queue = asyncio.Queue(64)

        async def receive():
            while True:
                data = await reader.read(1 << 20)
                await queue.put((time.monotonic() + self.seconds, data))
                if not data:
                    return

        async def send():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - time.monotonic()))
                if not data:
                    return writer.close()
                writer.write(data)
                await writer.drain()

        try:
            await asyncio.gather(receive(), send())
        except OSError:
            writer.close()


def write_corpus(data, megabytes, folder):
    rows = pq.read_table(data / "scifact/corpus.parquet", columns=["doc_id", "title", "text"]).to_pylist()
    folder.mkdir(parents=True)
    per_file = megabytes * 1_000_000 // FILES
    copy = 0
    for number in range(FILES):
        written, writer = 0, None
        while written < per_file:
            copies = [{**row, "doc_id": f"{row['doc_id']}-{copy}", "text": changed(row["text"], copy)} for row in rows]
            # As wide as the texts: not to be read.
            table = pa.Table.from_pylist([{**row, "html": os.urandom(len(row["text"]) // 2)} for row in copies])
            writer = writer or pq.ParquetWriter(folder / f"part-{number}.parquet", table.schema, compression="zstd")
            writer.write_table(table, row_group_size=2_000)
            written += sum(len(row["text"]) for row in copies)
            copy += 1
        writer.close()


def write_files(megabytes, folder):
    folder.mkdir(parents=True)
    for number in range(2):
        with open(folder / f"large-{number}", "wb") as file:
            for _ in range(megabytes // 2):
                file.write(os.urandom(1_000_000))
    for number in range(SMALL):
        (folder / f"small-{number:03}").write_bytes(os.urandom(SMALL_BYTES))


def run(command, port):
    environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pair(task, ours, port, folder, root):
    """The same work by both; what the one has written goes before the other writes it again."""
    results = []
    for name, command in [("ours", ours), ("peer", [sys.executable, "-c", PEER])]:
        if task == "read":
            places = ["s3://bucket/corpus"] if name == "ours" else ["bucket/corpus", "-"]
        elif task == "upload":
            shutil.rmtree(root / "bucket/up", ignore_errors=True)
            (root / "bucket/up").mkdir()
            places = [str(folder / "files"), "s3://bucket/up" if name == "ours" else "bucket/up"]
        else:
            shutil.rmtree(folder / "down", ignore_errors=True)
            (folder / "down").mkdir()
            places = ["s3://bucket/files" if name == "ours" else "bucket/files", str(folder / "down")]
        results.append(run([*command, task, *places], port))
        if task == "download":
            for file in (folder / "files").iterdir():
                assert file.read_bytes() == (folder / "down" / file.name).read_bytes(), file
    if task == "read":
        assert results[0]["rows"] == results[1]["rows"], results
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--ours")
    parser.add_argument("--delay", type=float, nargs="+", default=[0, 20])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mb", type=int, default=60)
    arguments = parser.parse_args()
    ours = [arguments.ours, "--bench"] if arguments.ours else OURS
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        root = folder / "root"
        write_corpus(arguments.data, arguments.mb, root / "bucket/corpus")
        write_files(arguments.mb, folder / "files")
        shutil.copytree(folder / "files", root / "bucket/files")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        keys = ["--access-key", KEYS["AWS_ACCESS_KEY_ID"], "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"]]
        command = [arguments.server, "--host", "127.0.0.1", "--port", str(port), *keys, str(root)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            print(f"{'task':<10}{'delay ms':>9}{'ours s':>9}{'peer s':>9}{'ratio':>20}{'MiB':>7}{'peer':>7}")
            for delay in arguments.delay:
                through = Late(port, delay / 2000).port if delay else port
                for task in ["read", "upload", "download"]:
                    pairs = [pair(task, ours, through, folder, root) for _ in range(arguments.runs)]
                    ratios = [own["seconds"] / peer["seconds"] for own, peer in pairs]
                    middle = [statistics.median(one[i]["seconds"] for one in pairs) for i in (0, 1)]
                    memory = [max(one[i]["peak_mib"] for one in pairs) for i in (0, 1)]
                    spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
                    print(
                        f"{task:<10}{delay:>9.0f}{middle[0]:>9.2f}{middle[1]:>9.2f}{spread:>20}{memory[0]:>7.0f}{memory[1]:>7.0f}",
                        flush=True,
                    )
        finally:
            server.kill()


if __name__ == "__main__":
    main()
