"""The data stages beside the Python way of doing the same, on one generated corpus.

    python data_peers.py --tinylm ../../target/release/tinylm --text FOLDER [--mb 1000] [--runs 3]

FOLDER holds plain text files; dialogues are made of their sentences. Every run of
tinylm starts from an empty home, alternating with its peer; figures are medians, in
megabytes of contents a second, and peaks in megabytes. Needs numpy, tokenizers,
datasketch and (for normalize) polars.
"""

import argparse
import json
import os
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path


def make_corpus(text_folder, path, mb, seed=1):
    """ShareGPT rows of one to four exchanges; one in ten repeats another, exactly or nearly."""
    texts = [p.read_text(errors="ignore") for p in sorted(Path(text_folder).rglob("*.txt"))]
    sentences = [s.strip() for t in texts for s in re.split(r"(?<=[.!?])\s+|__eou__|\n\n", t)]
    sentences = [s for s in sentences if 10 < len(s) < 400]
    rng = random.Random(seed)
    written, recent = 0, []
    with open(path, "w") as out:
        while written < mb * 1_000_000:
            if recent and rng.random() < 0.1:
                turns = list(rng.choice(recent))
                if rng.random() < 0.5:
                    words = turns[-1].split(" ")
                    words[rng.randrange(len(words))] = "changed"
                    turns[-1] = " ".join(words)
            else:
                turns = [" ".join(rng.choices(sentences, k=rng.randint(1, 4))) for _ in range(2 * rng.randint(1, 4))]
                recent = (recent + [turns])[-1000:]
            roles = ["human", "gpt"]
            row = {"conversations": [{"from": roles[i % 2], "value": t} for i, t in enumerate(turns)]}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += sum(map(len, turns))
    return written / 1e6


EXPERIMENT = """
name: peers
stages:
  source: {{ kind: download, with: {{ path: {corpus} }} }}
  chat:   {{ kind: normalize, inputs: [source], with: {{ template: chatml }} }}
  exact:  {{ kind: dedupe, inputs: [chat], with: {{ method: exact }} }}
  near:   {{ kind: dedupe, inputs: [chat], with: {{ method: minhash, threshold: 0.8 }} }}
  bpe:    {{ kind: tokenizer, inputs: [chat], with: {{ vocab_size: 8000, sample_mb: 64 }} }}
  shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: bpe }} }}
  {t5}
"""
T5 = """t5: {{ kind: tokenizer, inputs: [chat], with: {{ pretrained: {{ path: {t5} }} }} }}
  t5_shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: t5 }} }}"""


def run_tinylm(args, corpus, work):
    """Returns wall seconds and peak megabytes by stage, and the home."""
    home = work / "home"
    shutil.rmtree(home, ignore_errors=True)
    experiment = work / "peers.yaml"
    t5 = T5.format(t5=args.t5) if args.t5 else ""
    experiment.write_text(EXPERIMENT.format(corpus=corpus, t5=t5))
    command = [args.tinylm, "--home", home, "--quiet", "run", experiment, "-j", "1", "--threads", str(args.threads)]
    subprocess.run(command, check=True)
    db = sqlite3.connect(home / "registry.sqlite")
    rows = db.execute("SELECT stage, ended_at - started_at, peak_memory_bytes, artifact FROM executions").fetchall()
    return {stage: (ms / 1e3, peak / 1e6, artifact) for stage, ms, peak, artifact in rows}, home


def artifact_folder(home, digest):
    return home / "store" / "artifacts" / digest[:2] / digest[2:]


def in_child(function, *args):
    """Runs `function` in a process of its own; returns what it returns, seconds, peak megabytes."""
    read, write = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        value = function(*args)
        os.write(write, json.dumps(value).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        value = json.loads(pipe.read() or "null")
    _, _, usage = os.wait4(pid, 0)
    return value, time.perf_counter() - start, usage.ru_maxrss / 1e3


def contents(corpus):
    with open(corpus) as rows:
        for row in rows:
            yield [turn["value"] for turn in json.loads(row)["conversations"]]


def peer_binarize(corpus, tokenizer_json, out):
    """Batches of contents through `tokenizers`, ids appended as uint16."""
    import numpy
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    n_tokens, batch = 0, []

    def flush(file):
        nonlocal n_tokens
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            ids = numpy.array(encoding.ids, dtype=numpy.uint16)
            n_tokens += len(ids)
            file.write(ids.tobytes())
        batch.clear()

    with open(out, "wb") as file:
        for turns in contents(corpus):
            batch.extend(turns)
            if len(batch) >= 8192:
                flush(file)
        flush(file)
    return n_tokens


def words_of(turns):
    return re.findall(r"[^\W_]+", " ".join(turns).lower())


def shingles(turns, n=5):
    words = words_of(turns)
    n = min(n, len(words))
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)} if words else set()


def peer_minhash(corpus, limit_mb):
    """datasketch, first one kept; returns rows, megabytes and which rows were dropped."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=0.8, num_perm=112)
    dropped, size = [], 0
    rows = 0
    for idx, turns in enumerate(contents(corpus)):
        size += sum(map(len, turns))
        if size > limit_mb * 1e6:
            break
        rows += 1
        minhash = MinHash(num_perm=112)
        minhash.update_batch([s.encode() for s in shingles(turns)])
        if lsh.query(minhash):
            dropped.append(idx)
        else:
            lsh.insert(idx, minhash)
    return {"rows": rows, "mb": size / 1e6, "dropped": len(dropped)}


def peer_exact(corpus, out):
    """polars: read, render ChatML, drop repetitions, write Parquet."""
    import polars

    frame = polars.scan_ndjson(corpus)
    tag = {"human": "user", "gpt": "assistant"}
    turn = polars.element().struct
    rendered = (
        polars.format(
            "<|im_start|>{}\n{}<|im_end|>\n",
            turn.field("from").replace(tag),
            turn.field("value"),
        )
    )
    frame = frame.select(text=polars.col("conversations").list.eval(rendered).list.join(""))
    frame = frame.unique(subset=[polars.col("text")], keep="first", maintain_order=True)
    frame.collect(engine="streaming").write_parquet(out)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tinylm", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--t5", help="a folder with T5's tokenizer.json")
    parser.add_argument("--mb", type=float, default=1000)
    parser.add_argument("--peer-mb", type=float, default=20, help="datasketch sees only so much")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    args.tinylm = Path(args.tinylm).resolve()
    args.t5 = args.t5 and Path(args.t5).resolve()

    work = Path(tempfile.mkdtemp(prefix="peers-"))
    corpus = work / "corpus.jsonl"
    mb = make_corpus(args.text, corpus, args.mb)
    print(f"{mb:.0f} MB of contents in {work}", flush=True)
    figures = {}

    def note(name, seconds, peak, size=mb):
        figures.setdefault(name, []).append((size / seconds, peak))
        print(f"  {name:24} {size / seconds:8.1f} MB/s  {peak:7.0f} MB", flush=True)

    for _ in range(args.runs):
        stages, home = run_tinylm(args, corpus, work)
        for stage, (seconds, peak, _) in stages.items():
            note(stage, max(seconds, 1e-3), peak)
        for tokenizer in ["bpe"] + (["t5"] if args.t5 else []):
            json_path = artifact_folder(home, stages[tokenizer][2]) / "tokenizer.json"
            _, seconds, peak = in_child(peer_binarize, str(corpus), str(json_path), str(work / "peer.bin"))
            note(f"tokenizers {tokenizer}", seconds, peak)
        found, seconds, peak = in_child(peer_minhash, str(corpus), args.peer_mb)
        note("datasketch", seconds, peak, found["mb"])
        _, seconds, peak = in_child(peer_exact, str(corpus), str(work / "peer.parquet"))
        note("polars", seconds, peak)

    print("\nmedians")
    for name, values in figures.items():
        speed, peak = (statistics.median(column) for column in zip(*values))
        print(f"  {name:24} {speed:8.1f} MB/s  {peak:7.0f} MB")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
