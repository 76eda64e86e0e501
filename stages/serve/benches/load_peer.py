"""`tinylm serve` under load, beside llama.cpp's server with the same model, in turn.

    python -m venv v && v/bin/pip install 'llama-cpp-python[server]' numpy
    v/bin/python stages/serve/benches/load_peer.py target/release/tinylm TOKENIZER.JSON [rounds]

A model of llama's shape (42M beside a vocabulary of 32,000 such as T5's) is made, exported to GGUF, and asked to go on with
short texts by 1, 8 and 32 clients at once, each with the next request as soon as it has its answer: 48 tokens, as
a stream. Prints the medians of the rounds: requests and tokens a second, time to the first token, memory. As it is
started without a word, `tinylm serve` answers eight at once; with `--slots 32` it keeps 32 dialogues in memory.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

EXPERIMENT = """
name: load
stages:
  rows: {{ kind: download, with: {{ rows: [{{ prompt: how are you, response: fine }}, {{ prompt: who is there, response: nobody }}] }} }}
  chat: {{ kind: normalize, inputs: [rows] }}
  tokens: {{ kind: tokenizer, with: {{ pretrained: {{ path: {tokenizer} }}, template: start-end }} }}
  shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: tokens }}, with: {{ validation: 0 }} }}
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: {{ preset: llama-tiny, d_model: 512, n_layers: 8, n_heads: 8, n_kv_heads: 8, d_ff: 1376, context: 512 }}
      train: {{ steps: 1, batch: 1, validate_every: 0 }}
"""
N_TOKENS = 48
STOPS = []
WORDS = "the river near our small house is who are you and what name today that".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, command, cwd):
        self.port = free_port()
        self.process = subprocess.Popen([*command, "--port", str(self.port)], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models").read()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{command[0]} does not answer")

    def memory(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024

    def stop(self):
        self.process.kill()
        self.process.wait()


def one(port, prompt, seed, out):
    # Every answer is as long as it may be.
    bias = {str(id): -100 for id in STOPS}
    body = {"prompt": prompt, "max_tokens": N_TOKENS, "stream": True, "temperature": 0.8, "seed": seed, "logit_bias": bias}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    begun, first, n = time.perf_counter(), None, 0
    for line in urllib.request.urlopen(request):
        if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["finish_reason"] is None:
            first = first or time.perf_counter() - begun
            n += 1
    out.append((first, n))


def load(server, n_clients, seconds):
    told, end = [], time.perf_counter() + seconds

    def client(idx):
        turn = 0
        while time.perf_counter() < end:
            at = (idx * 31 + turn * 7) % len(WORDS)
            one(server.port, " ".join((WORDS * 3)[at : at + 12]), idx * 1000 + turn, told)
            turn += 1

    begun = time.perf_counter()
    threads = [threading.Thread(target=client, args=(idx,)) for idx in range(n_clients)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    took = time.perf_counter() - begun
    return len(told) / took, sum(n for _, n in told) / took, statistics.median(first for first, n in told if first)


def main():
    tinylm, tokenizer = (Path(word).resolve() for word in sys.argv[1:3])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with tempfile.TemporaryDirectory(prefix="load-peer-") as work:
        (Path(work) / "load.yaml").write_text(EXPERIMENT.format(tokenizer=tokenizer))
        subprocess.run([tinylm, "run", "load.yaml", "-q"], cwd=work, check=True)
        subprocess.run([tinylm, "export", "@last/model", "--to", "gguf", "--out", "gguf"], cwd=work, check=True, capture_output=True)
        # As in the peers of GGUF: buffers for AMX end llama.cpp on virtual machines that do not grant it.
        folder = subprocess.run([tinylm, "cache", "path", "@last/model"], cwd=work, check=True, capture_output=True, text=True).stdout
        STOPS.extend(json.loads((Path(work) / folder.strip() / "generation.json").read_text())["stop_ids"])
        start = (
            "import llama_cpp.llama_cpp as l; d = l.llama_model_default_params\n"
            "def f():\n p = d(); p.use_extra_bufts = False; return p\n"
            "l.llama_model_default_params = f\n"
            "import runpy; runpy.run_module('llama_cpp.server', run_name='__main__')"
        )
        commands = {
            "llama.cpp": [sys.executable, "-c", start, "--model", "gguf/model.gguf", "--n_ctx", "512", "--n_threads", "2", "--verbose", "false", "--interrupt_requests", "false"],
            "tinylm": [tinylm, "serve", "@last/model", "--threads", "2"],
            "tinylm --slots 32": [tinylm, "serve", "@last/model", "--slots", "32", "--threads", "2"],
        }
        results = {}
        for _ in range(rounds):
            for name, command in commands.items():
                server = Server(command, work)
                one(server.port, "warm up", 1, [])
                for n_clients in (1, 8, 32):
                    results.setdefault((n_clients, name), []).append((*load(server, n_clients, 5), server.memory()))
                    print(name, n_clients, results[n_clients, name][-1], file=sys.stderr, flush=True)
                server.stop()
        print("| clients | server | requests/s | tokens/s | first token, ms | memory, MB |\n|---|---|---|---|---|---|")
        for (n_clients, name), rows in sorted(results.items()):
            requests, tokens, first, memory = (statistics.median(column) for column in zip(*rows))
            print(f"| {n_clients} | {name} | {requests:.1f} | {tokens:.0f} | {1000 * first:.0f} | {memory:.0f} |")


main()
