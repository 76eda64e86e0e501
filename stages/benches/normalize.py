"""Normalize beside a polars script that does the same, in turn; medians.

    python stages/benches/normalize.py CORPUS [MEGABYTES] [RUNS]

CORPUS is text with one dialogue a line, `__eou__` between turns; it is repeated, each
time a little different, until the ShareGPT-like JSON lines have so many megabytes.
Needs `pip install polars`, and `cargo build --release --benches -p tinylm-stages`.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time


def generate(corpus, megabytes, path):
    with open(corpus) as lines:
        dialogues = [line.split("__eou__") for line in lines]
    size, n = 0, 0
    with open(path, "w") as out:
        while size < megabytes * 1_000_000:
            turns = []
            for dialogue in (dialogues[(n + k) % len(dialogues)] for k in range(3)):
                for turn in dialogue:
                    if turn.strip():
                        role = "gpt" if len(turns) % 2 else "human"
                        turns.append({"from": role, "value": turn.strip() + f" ({n})"})
            row = json.dumps({"id": str(n), "conversations": turns}) + "\n"
            out.write(row)
            size += len(row)
            n += 1


def peer(path):
    """ShareGPT to ChatML with polars, exact duplicates left out, written as Parquet."""
    import polars as pl

    began = time.time()
    rows = pl.scan_ndjson(path)
    name = pl.element().struct.field("from").replace({"human": "user", "gpt": "assistant"})
    turn = pl.concat_str(
        pl.lit("<|im_start|>"), name, pl.lit("\n"), pl.element().struct.field("value"), pl.lit("<|im_end|>\n")
    )
    rows = rows.select(pl.col("conversations").list.eval(turn).list.join("").alias("text"))
    with tempfile.TemporaryDirectory() as folder:
        rows.unique(maintain_order=True).sink_parquet(folder + "/out.parquet")
    seconds = time.time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"polars {os.path.getsize(path) / 1e6 / seconds:.1f} MB/s, {seconds:.2f} s, peak memory {peak} MB")


def figure(command):
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in out.splitlines() if "MB/s" in line)
    print(line)
    return float(line.split()[1])


def binary():
    target = os.environ.get("CARGO_TARGET_DIR", "target") + "/release/deps"
    found = [os.path.join(target, f) for f in os.listdir(target) if f.startswith("normalize-") and "." not in f]
    return max(found, key=os.path.getmtime)


def main():
    if sys.argv[1] == "--peer":
        return peer(sys.argv[2])
    corpus = sys.argv[1]
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    n_runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/corpus.jsonl"
        generate(corpus, megabytes, path)
        ours, theirs = [], []
        for _ in range(n_runs):
            ours.append(figure([binary(), path]))
            theirs.append(figure([sys.executable, __file__, "--peer", path]))
        print(f"medians: normalize {statistics.median(ours):.1f} MB/s, polars {statistics.median(theirs):.1f} MB/s")


main()
