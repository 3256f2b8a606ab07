"""Scaling and overhead of a cluster, with a generator that sleeps, so that a small machine suffices.

    python benches/cluster.py INTENDEX MODEL [SECONDS]

INTENDEX is built with `--features cluster`, MODEL an embedder's folder. A server on loopback answers every prompt after
SECONDS (default 0.2); the stage `queries` of a job of 64 shards asks it once for each of 512 chunks, one at a time for
each task. Printed: the stage's wall-clock seconds in one process, and on 1, 2, 4 and 8 executors of one task each, and the
efficiency t(1) / (n · t(n)) against one executor.
"""

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow
import pyarrow.parquet

SHARDS, DOCUMENTS = 64, 8
EXECUTORS = [1, 2, 4, 8]


class Sleeper(BaseHTTPRequestHandler):
    """A chat server that takes its time and knows one answer."""

    protocol_version = "HTTP/1.1"
    seconds = 0.2

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.seconds)
        choice = {"message": {"content": "what is this about?"}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 5}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def ports(count):
    """The first of so many free ports in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                for i in range(1, count):
                    with socket.socket() as other:
                        other.bind(("127.0.0.1", port + i))
                return port
            except OSError:
                continue


def write_job(folder, model, server):
    ids = [f"d{i}" for i in range(SHARDS * DOCUMENTS)]
    texts = [f"Comet {i} was seen in {1000 + i}." for i in range(len(ids))]
    corpus = pyarrow.table({"doc_id": ids, "text": texts})
    pyarrow.parquet.write_table(corpus, folder / "corpus.parquet")
    (folder / "job.toml").write_text(
        f"""version = 1
[corpus]
path = "corpus.parquet"
[output]
path = "out"
[models]
device = "cpu"
[models.embedder]
model = "{model}"
[models.generator]
server = "{server}"
model = "sleeper"
concurrency = 1
[expand]
queries = 1
lists = 0
[engine]
shard_documents = {DOCUMENTS}
"""
    )


class Bench:
    def __init__(self, intendex, folder):
        self.intendex, self.folder = intendex, folder

    def run(self, *arguments, **options):
        log = open(self.folder / "log", "a")
        return subprocess.Popen(
            [self.intendex, *arguments], cwd=self.folder, stdout=log, stderr=log, **options
        )

    def build(self, *arguments):
        """Seconds of a build."""
        start = time.perf_counter()
        process = self.run("build", "job.toml", *arguments)
        assert process.wait() == 0, (self.folder / "log").read_text()[-3000:]
        return time.perf_counter() - start

    def stage(self, *settings):
        """Seconds of `queries`, the start of the program left out."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        self.build("--stage", "chunks")
        idle = self.build("--stage", "chunks")
        return self.build("--stage", "queries", *settings) - idle

    def on_cluster(self, executors):
        port = ports(1)
        url = f"df://127.0.0.1:{port}"
        processes = [self.run("scheduler", "--listen", f"127.0.0.1:{port}")]
        for _ in range(executors):
            listen = f"127.0.0.1:{ports(2)}"
            processes.append(
                self.run("executor", "--scheduler", url, "--listen", listen, "--tasks", "1")
            )
            time.sleep(0.5)
        time.sleep(2)
        try:
            return self.stage("--set", f"engine.cluster={url}")
        finally:
            for process in processes:
                process.kill()
                process.wait()


def main():
    intendex, model = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
    if len(sys.argv) > 3:
        Sleeper.seconds = float(sys.argv[3])
    server = Server(("127.0.0.1", 0), Sleeper)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(intendex, pathlib.Path(folder))
        write_job(bench.folder, model, f"http://127.0.0.1:{server.server_port}/v1")
        alone = bench.stage()
        slept = SHARDS * DOCUMENTS * Sleeper.seconds
        print(f"asleep in all {slept:.1f} s; in one process {alone:.1f} s", flush=True)
        print("executors  seconds  efficiency  against one process")
        one = None
        for executors in EXECUTORS:
            seconds = bench.on_cluster(executors)
            one = one or seconds
            efficiency = one / seconds / executors
            print(f"{executors:9}  {seconds:7.1f}  {efficiency:9.0%}  {alone / seconds:8.2f}", flush=True)


if __name__ == "__main__":
    main()
