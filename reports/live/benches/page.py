"""The page that lives on a registry of 10,000 runs with 100 metrics each, and how old a point is when it arrives.

    python3 reports/live/benches/page.py --tinylm target/release/tinylm

Needs nothing but Python. The registry is filled first, with runs like one that a small training has left there. Then the
training goes on while a stream of its page is read: the age of a point is the time between the moment that the stage
measured it and its arrival here. At last the first page, a search, a condition, an order and a run's page are asked for,
each 20 times. Prints medians and the largest.
"""

import argparse
import json
import sqlite3
import statistics
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

RUNS, METRICS, POINTS = 10_000, 100, 10
EXPERIMENT = """name: bench
stages:
  corpus: { kind: download, with: { path: corpus.txt } }
  chat: { kind: normalize, inputs: [corpus], with: { format: lines } }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 300 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: mini, context: 16, d_model: 16, n_layers: 1, n_heads: 2, d_ff: 32 }
      train: { batch: 2, steps: 1000000, lr: 0.01, validate_every: 0 }
    watch: { log_every: 10 }
"""


def told(what, seconds):
    ms = sorted(1000 * value for value in seconds)
    print(f"{what:42} median {statistics.median(ms):6.0f} ms, largest {ms[-1]:6.0f} ms, of {len(ms)}", flush=True)


def ages(address, home, run, n_events=60):
    registry = sqlite3.connect(home / "registry.sqlite")
    of = urllib.parse.quote(f"/run/{run}", safe="")
    stream = urllib.request.urlopen(f"{address}stream?of={of}&since={int(time.time() * 1000)}", timeout=60)
    found = []
    while len(found) < n_events:
        line = stream.readline().decode()
        now = time.time()
        if not line.startswith("data: "):
            continue
        for name, points in (json.loads(line[6:])["points"] or {}).items():
            if not name.endswith("/loss"):
                continue
            row = registry.execute(
                "SELECT at FROM metrics WHERE execution_id = ? AND name = 'loss' AND step = ?",
                (name.split("/")[0], points["step"][-1]),
            ).fetchone()
            found.append(now - row[0] / 1000)
    return found


def fill(home):
    """Writes runs as the recorder does, in place of a week of sweeps."""
    registry = sqlite3.connect(home / "registry.sqlite")
    registry.execute("PRAGMA synchronous = OFF")
    one = lambda table, where: list(registry.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1").fetchone())
    run, stage, execution = one("runs", "1"), one("stages", "kind = 'pretrain'"), one("executions", "kind = 'pretrain'")
    put = lambda table, row: registry.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    series = registry.execute("SELECT ifnull(max(id), 0) FROM series").fetchone()[0]
    for n in range(RUNS):
        run_id, execution_id, at = f"0199-{n:08d}", f"e-{n:08d}", 1_790_000_000_000 + n * 1000
        put("runs", [run_id, f"big-run-{n:05d}", *run[2:7], "done", at, at + 900, *run[10:16], None, *run[17:]])
        put("stages", [run_id, *stage[1:6], execution_id, *stage[7:]])
        put("executions", [execution_id, run_id, *execution[2:]])
        if n % 10 == 0:
            put("tags", [run_id, "baby"])
        for metric in range(METRICS):
            series += 1
            put("series", [series, execution_id, "loss" if metric == 0 else f"metric_{metric}"])
            points = [(series, step * 100, 3 + 1 / (step + 1) + n % 97 / 100, None, at + step) for step in range(POINTS)]
            points.append((series, -1, 2.5 + n % 89 / 50, None, at + 800))
            registry.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", points)
    registry.commit()


def asked(address, path, n_times=20):
    times = []
    for _ in range(n_times):
        begun = time.perf_counter()
        urllib.request.urlopen(address + path, timeout=60).read()
        times.append(time.perf_counter() - begun)
    return times


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tinylm", required=True)
    tinylm = Path(parser.parse_args().tinylm).absolute()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "bench.yaml").write_text(EXPERIMENT)
        (folder / "corpus.txt").write_text("".join(f"the sun rose {n} times over the hill\n" for n in range(60)))
        start = lambda *words: subprocess.Popen([tinylm, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        stop = lambda: subprocess.run([tinylm, "stop"], cwd=folder, check=True, capture_output=True)
        home = folder / ".tinylm"
        training = start("run", "bench.yaml")
        time.sleep(4)
        stop()
        training.wait()
        fill(home)
        training = start("run", "bench.yaml")
        time.sleep(4)
        page = start("ui", "--port", "0")
        try:
            address = page.stdout.readline().split(";")[0].strip()
            registry = sqlite3.connect(home / "registry.sqlite")
            run = registry.execute("SELECT name FROM runs WHERE status = 'running'").fetchone()[0]
            told(f"age of a point beside {RUNS:,} runs", ages(address, home, run))
            stop()
            training.wait()
            told(f"first page, {RUNS:,} runs x {METRICS} metrics", asked(address, ""))
            told("search", asked(address, "?q=big-run-0500"))
            told("condition on a metric and a tag", asked(address, "?where=" + urllib.parse.quote('metric_7 < 2.7 and tag = "baby"')))
            told("order by a metric", asked(address, "?sort=loss"))
            told("page of a run with 100 curves", asked(address, "run/big-run-00500"))
        finally:
            page.terminate()
            training.kill()


main()
