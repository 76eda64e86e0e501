"""A team's store beside boto3 on the same server of S3, and how many requests a run costs.

    pip install boto3; cargo install s3s-fs --version 0.14.1 --features binary --locked
    python3 registry/remote/benches/store_peer.py target/release/tinylm [rounds]

1 GiB that does not compress, and 2,000 files of some 4 kB, are given to a bucket and fetched into an empty home, in turn with
boto3's own `upload_file` and `download_file` of the 1 GiB alone. Prints the medians of the rounds. The requests of a run
are counted by a relay between tinylm and the server.
"""

import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import boto3
from botocore.config import Config

MB = 1_000_000
BIG = 1 << 30
EXPERIMENT = """
stages:
  big: { kind: download, with: { path: big.bin } }
  small: { kind: download, with: { path: small, files: ["*.txt"] } }
"""
TEN = "stages:\n" + "".join(
    f"  s{n}: {{ kind: download, with: {{ rows: [{{ text: row {n} }}] }} }}\n" for n in range(10)
)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Relay:
    """Passes bytes on and counts the lines that begin a request."""

    def __init__(self, to):
        self.to, self.n, self.port = to, 0, free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.to))
            for here, there, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=(here, there, counts), daemon=True).start()

    def pump(self, here, there, counts):
        try:
            while data := here.recv(1 << 16):
                if counts:
                    self.n += len(re.findall(rb"(?:GET|PUT|HEAD|POST|DELETE) \S+ HTTP/1.1\r\n", data))
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def took(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main():
    tinylm = Path(sys.argv[1]).resolve()
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(prefix="store-peer-") as work:
        work = Path(work)
        (work / "server/bucket").mkdir(parents=True)
        (work / "small").mkdir()
        (work / "x.yaml").write_text(EXPERIMENT)
        (work / "ten.yaml").write_text(TEN)
        with open(work / "big.bin", "wb") as big:
            dice = random.Random(1)
            for _ in range(BIG >> 20):
                big.write(dice.randbytes(1 << 20))
        for n in range(2000):
            (work / f"small/{n:04}.txt").write_text(f"{n} " * 800)
        port = free_port()
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        server = subprocess.Popen(
            ["s3s-fs", "--host", "127.0.0.1", "--port", str(port), "--access-key", "test", "--secret-key", "secret", work / "server"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="secret",
            region_name="us-east-1", config=Config(s3={"addressing_style": "path"}),
        )

        def run(*words, home, prefix="", at=port):
            env = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{at}"}
            if prefix:
                env |= {"TINYLM_REMOTE": f"s3://bucket/{prefix}", "TINYLM_REMOTE_MODE": "write"}
            done = subprocess.run([tinylm, "--home", home, "-q", *words], cwd=work, env=env, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)

        run("run", "x.yaml", home="home")
        told = {}
        whole = BIG + sum(path.stat().st_size for path in (work / "small").iterdir())
        for n in range(rounds):
            told.setdefault("boto3, up: 1 GiB", []).append(
                BIG / MB / took(lambda: client.upload_file(str(work / "big.bin"), "bucket", f"plain{n}/big")))
            told.setdefault("push: 1 GiB and 2,000 files", []).append(
                whole / MB / took(lambda: run("push", "@last", home="home", prefix=f"r{n}")))
            told.setdefault("boto3, down: 1 GiB", []).append(
                BIG / MB / took(lambda: client.download_file("bucket", f"plain{n}/big", str(work / "down"))))
            (work / "down").unlink()
            told.setdefault("a teammate's run: 1 GiB and 2,000 files", []).append(
                whole / MB / took(lambda: run("run", "x.yaml", home=f"mate{n}", prefix=f"r{n}")))
            subprocess.run(["rm", "-rf", work / f"mate{n}", work / f"server/bucket/plain{n}", work / f"server/bucket/r{n}"])
        for what, rates in told.items():
            print(f"{what:42} {statistics.median(rates):6.0f} MB/s   ({', '.join(f'{rate:.0f}' for rate in rates)})")
        relay = Relay(port)
        # An address of its own is a store of its own, so the relay's is used from the first.
        run("run", "ten.yaml", home="ten", prefix="ten", at=relay.port)
        for what, home in [("all ten stages are here", "ten"), ("none is, and the store has all", "other")]:
            relay.n = 0
            run("run", "ten.yaml", home=home, prefix="ten", at=relay.port)
            print(f"requests of a run of ten stages: {what}: {relay.n}")
        times = {"without a remote": [], "with one": []}
        for n in range(20):
            times["without a remote"].append(took(lambda: run("run", "ten.yaml", home="ten")))
            times["with one"].append(took(lambda: run("run", "ten.yaml", home="ten", prefix="ten", at=relay.port)))
        for what, seconds in times.items():
            print(f"a run of ten stages with nothing to do, {what}: {1000 * statistics.median(seconds):.1f} ms")
        server.kill()


main()
