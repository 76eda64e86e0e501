"""The data stages beside the Python way of doing the same, on one generated corpus.

    python data_peers.py --tinylm ../../target/release/tinylm --text FOLDER [--t5 FOLDER] [--mb 1000]

FOLDER holds plain text files; dialogues are made of their sentences, once, and kept in
`--work`. Every run of tinylm starts from an empty home; its peers run after it, each in a
fresh process, and so on in turn. Figures are medians in megabytes of contents a second, and
the kernel's own peaks of memory: a stage of tinylm is one process, and so is a peer.

What is compared, and what is in our disfavour:

- binarize reads Parquet, renders, encodes, and writes ids, roles and an index; the peer is
  given a list of contents in memory and only its encoding and the writing of ids is timed.
- normalize and exact dedupe read JSON and write ids, groups and reports besides the messages,
  twice; the polars script renders them as text in one lazy query. It is measured
  comparing what is compared here, case and spacing evened out, and comparing text as it is.
- minhash measures every pair that it proposes; datasketch drops what its index finds. What
  each finds is held against the exact Jaccard of all pairs, on the slice that both read.
- contamination also says how much is shared; the peer stops at the first 13 words in a row
  that a Python set of the evaluation's has. Both are given contents, and must agree.
- the tokenizer learns from as many megabytes as the released library's trainer.

The slow peers see only the first `--peer-mb` of the corpus; a megabyte a second is a
megabyte a second. A download's peer is a copy of the file and its SHA-256; binarize and
training see the whole corpus as well. Needs numpy, tokenizers, datasketch, polars and pyarrow.
"""

import argparse
import hashlib
import json
import math
import os
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

THRESHOLD = 0.8
NGRAM = 5
CONTAMINATION_NGRAM = 13
MEMORY_MB_MAX = 1000
PERMUTATIONS = 112


# The corpus.


def sentences_of(folder):
    texts = [path.read_text(errors="ignore") for path in sorted(Path(folder).rglob("*.txt"))]
    sentences = [s.strip() for text in texts for s in re.split(r"(?<=[.!?])\s+|__eou__|\n\n", text)]
    return [s for s in sentences if 10 < len(s) < 400]


def make_corpus(text_folder, path, mb, seed=1):
    """ShareGPT rows of one to four exchanges; one in ten repeats another, exactly or nearly."""
    sentences = sentences_of(text_folder)
    rng = random.Random(seed)
    written, recent = 0, []
    part = path.with_suffix(".part")
    with open(part, "w") as out:
        while written < mb * 1_000_000:
            if recent and rng.random() < 0.1:
                turns = list(rng.choice(recent))
                if rng.random() < 0.5:
                    words = turns[-1].split(" ")
                    words[rng.randrange(len(words))] = "changed"
                    turns[-1] = " ".join(words)
            else:
                n_turns = 2 * rng.randint(1, 4)
                turns = [" ".join(rng.choices(sentences, k=rng.randint(1, 4))) for _ in range(n_turns)]
                if len(recent) == 1000:
                    recent[rng.randrange(1000)] = turns
                else:
                    recent.append(turns)
            row = [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns)]
            out.write(json.dumps({"conversations": row}, ensure_ascii=False) + "\n")
            written += sum(len(turn.encode()) for turn in turns)
    part.rename(path)


def contents(corpus):
    with open(corpus) as rows:
        for row in rows:
            yield [turn["value"] for turn in json.loads(row)["conversations"]]


def content_mb(corpus):
    """Megabytes of contents; counted once and kept beside the corpus."""
    note = corpus.with_suffix(".size")
    if not note.exists():
        n_bytes = sum(len(turn.encode()) for turns in contents(corpus) for turn in turns)
        note.write_text(str(n_bytes))
    return int(note.read_text()) / 1e6


def make_slice(corpus, path, mb):
    size = 0
    with open(corpus) as rows, open(path, "w") as out:
        for row in rows:
            out.write(row)
            size += sum(len(turn["value"].encode()) for turn in json.loads(row)["conversations"])
            if size >= mb * 1e6:
                break


# tinylm.

EXPERIMENT = """
name: peers
stages:
  source:    {{ kind: download, with: {{ path: {corpus} }} }}
  chat:      {{ kind: normalize, inputs: [source] }}
  exact:     {{ kind: dedupe, inputs: [chat], with: {{ method: exact }} }}
  near:      {{ kind: dedupe, inputs: [chat], with: {minhash} }}
  bpe:       {{ kind: tokenizer, inputs: [part_chat], with: {{ vocab_size: 8000, sample_mb: 2048 }} }}
  bpe_all:   {{ kind: tokenizer, inputs: [chat], with: {{ vocab_size: 8000, sample_mb: 2048 }} }}
  unigram:   {{ kind: tokenizer, inputs: [part_chat], with: {{ algorithm: unigram, vocab_size: 8000, sample_mb: 2048 }} }}
  shards:    {{ kind: binarize, inputs: {{ documents: chat, tokenizer: bpe }} }}
  part:      {{ kind: download, with: {{ path: {part} }} }}
  part_chat: {{ kind: normalize, inputs: [part] }}
  part_near: {{ kind: dedupe, inputs: [part_chat], with: {minhash} }}
  held:      {{ kind: download, with: {{ path: {held} }} }}
  held_chat: {{ kind: normalize, inputs: [held] }}
  clean:     {{ kind: dedupe, inputs: {{ documents: chat, evaluation: held_chat }}, with: {{ method: contamination }} }}
  part_clean: {{ kind: dedupe, inputs: {{ documents: part_chat, evaluation: held_chat }}, with: {{ method: contamination }} }}
  {t5}
"""
MINHASH = f"{{ method: minhash, threshold: {THRESHOLD}, ngram: {NGRAM}, permutations: {PERMUTATIONS} }}"
T5 = """t5: {{ kind: tokenizer, inputs: [chat], with: {{ pretrained: {{ path: {t5} }} }} }}
  t5_shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: t5 }} }}"""


class Run:
    """One run of tinylm: seconds and peak megabytes by stage, and where its artifacts are."""

    def __init__(self, args, corpus, part, held):
        self.home = args.work / "home"
        shutil.rmtree(self.home, ignore_errors=True)
        experiment = args.work / "peers.yaml"
        t5 = T5.format(t5=args.t5) if args.t5 else ""
        experiment.write_text(EXPERIMENT.format(corpus=corpus, part=part, held=held, minhash=MINHASH, t5=t5))
        command = [args.tinylm, "--home", self.home, "--quiet", "run", experiment]
        command += ["-j", "1", "--threads", str(args.threads)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        db = sqlite3.connect(self.home / "registry.sqlite")
        query = "SELECT stage, ended_at - started_at, peak_memory_bytes, artifact FROM executions"
        rows = db.execute(query).fetchall()
        db.close()
        self.stages = {stage: (max(ms, 1) / 1e3, peak / 1e6) for stage, ms, peak, _ in rows}
        self.digests = {stage: artifact for stage, _, _, artifact in rows}

    def folder(self, stage):
        digest = self.digests[stage]
        return self.home / "store" / "artifacts" / digest[:2] / digest[2:] / "files"

    def count(self, stage, name):
        return json.loads((self.folder(stage) / "stats.json").read_text())[name]

    def dropped(self):
        """The rows of the slice that were dropped. Of those with one id, the first is kept."""
        import polars

        rows = defaultdict(list)
        ids = polars.read_parquet(self.folder("part_chat") / "documents-*.parquet", columns=["id"])["id"]
        for row, id in enumerate(ids.bin.encode("hex")):
            rows[id].append(row)
        dropped = Counter(polars.read_ndjson(self.folder("part_near") / "duplicates.jsonl")["id"])
        return {row for id, n in dropped.items() for row in rows[id][-n:]}


# The peers. Each prints one line of JSON: `seconds`, and whatever it found.


def peer_binarize(slice, tokenizer_json, out):
    """Batches of contents through `tokenizers`, ids appended as uint16."""
    import numpy
    from tokenizers import Tokenizer

    texts = [turn for turns in contents(slice) for turn in turns]
    tokenizer = Tokenizer.from_file(tokenizer_json)
    start, n_tokens = time.perf_counter(), 0
    with open(out, "wb") as file:
        for first in range(0, len(texts), 8192):
            for encoding in tokenizer.encode_batch_fast(texts[first : first + 8192], add_special_tokens=False):
                ids = numpy.array(encoding.ids, dtype=numpy.uint16)
                n_tokens += len(ids)
                ids.tofile(file)
    return {"seconds": time.perf_counter() - start, "tokens": n_tokens}


def peer_train(slice):
    """The released library's trainer, with the settings that ours has by default."""
    from tokenizers import ByteLevelBPETokenizer

    texts = [turn for turns in contents(slice) for turn in turns]
    start = time.perf_counter()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=8000, min_frequency=2, show_progress=False)
    return {"seconds": time.perf_counter() - start, "vocabulary": tokenizer.get_vocab_size()}


def words_of(turns):
    return re.findall(r"[^\W_]+", " ".join(turns).lower())


def shingles(turns):
    words = words_of(turns)
    n = min(NGRAM, len(words))
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)} if words else set()


def peer_minhash(slice):
    """datasketch, the first one kept."""
    from datasketch import MinHash, MinHashLSH

    rows = list(contents(slice))
    start = time.perf_counter()
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    dropped = []
    for row, turns in enumerate(rows):
        minhash = MinHash(num_perm=PERMUTATIONS)
        minhash.update_batch([shingle.encode() for shingle in shingles(turns)])
        if lsh.query(minhash):
            dropped.append(row)
        else:
            lsh.insert(row, minhash)
    return {"seconds": time.perf_counter() - start, "dropped": dropped}


def peer_contamination(slice, held):
    """Thirteen words in a row, or a shorter text whole, looked up in a set of the evaluation's."""

    def grams(turns):
        words = words_of(turns)
        n = min(CONTAMINATION_NGRAM, len(words))
        return (tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if words else ()

    rows = list(contents(slice))
    start = time.perf_counter()
    known = {gram for turns in contents(held) for gram in grams(turns)}
    n_dropped = sum(any(gram in known for gram in grams(turns)) for turns in rows)
    return {"seconds": time.perf_counter() - start, "dropped": n_dropped}


def peer_download(corpus, out):
    """A copy of a local file, and its digest."""
    start = time.perf_counter()
    shutil.copyfile(corpus, out)
    with open(out, "rb") as file:
        hashlib.file_digest(file, "sha256")
    return {"seconds": time.perf_counter() - start}


def peer_normalize(corpus, out):
    """polars: read, render ChatML, write Parquet."""
    import polars

    start = time.perf_counter()
    rendered_by_polars(corpus).sink_parquet(out, compression="zstd")
    return {"seconds": time.perf_counter() - start}


def rendered_by_polars(corpus):
    import polars

    turn = polars.element().struct
    rendered = polars.format(
        "<|im_start|>{}\n{}<|im_end|>\n",
        turn.field("from").replace({"human": "user", "gpt": "assistant"}),
        turn.field("value"),
    )
    frame = polars.scan_ndjson(corpus)
    return frame.select(text=polars.col("conversations").list.eval(rendered).list.join(""))


def peer_exact(corpus, out, how):
    """polars: read, render ChatML, drop repetitions, write Parquet."""
    import polars

    start = time.perf_counter()
    frame = rendered_by_polars(corpus)
    key = polars.col("text")
    if how == "evened":
        key = key.str.to_lowercase().str.replace_all(r"\s+", " ")
    frame = frame.with_columns(key=key).unique(subset=["key"], keep="first", maintain_order=True).drop("key")
    frame = frame.collect(engine="streaming")
    frame.write_parquet(out, compression="zstd")
    return {"seconds": time.perf_counter() - start, "kept": frame.height}


PEERS = {
    "binarize": peer_binarize, "train": peer_train, "minhash": peer_minhash, "exact": peer_exact,
    "contamination": peer_contamination, "download": peer_download, "normalize": peer_normalize,
}


def peer(args, name, *words):
    """Runs a peer in a fresh process; returns what it says, and its peak in megabytes."""
    command = [sys.executable, __file__, "--peer", name, *map(str, words)]
    threads = str(args.threads)
    env = os.environ | {"RAYON_NUM_THREADS": threads, "POLARS_MAX_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"the peer `{name}` failed")
    return json.loads(said), usage.ru_maxrss / 1e3


# What should be dropped.


def truth(slice):
    """The rows that overlap by the threshold with an earlier one that is kept, by measuring.

    Two sets that overlap by t share one of their rarest (1 - t) of all n-grams, so only
    rows that do are measured: none is missed.
    """
    sets = [shingles(turns) for turns in contents(slice)]
    counts = Counter(shingle for row in sets for shingle in row)
    by_rare, dropped = defaultdict(list), set()
    for row, grams in enumerate(sets):
        ordered = sorted(grams, key=lambda gram: (counts[gram], gram))
        prefix = ordered[: len(grams) - math.ceil(THRESHOLD * len(grams)) + 1]
        for other in {other for gram in prefix for other in by_rare[gram]}:
            common = len(grams & sets[other])
            if common / (len(grams) + len(sets[other]) - common) >= THRESHOLD:
                dropped.add(row)
                break
        else:
            for gram in prefix:
                by_rare[gram].append(row)
    return dropped


def rates(found, wanted):
    common = len(found & wanted)
    return common / max(len(wanted), 1), common / max(len(found), 1)


# The table.


class Figures:
    def __init__(self):
        self.values = defaultdict(list)

    def note(self, name, mb, seconds, peak):
        self.values[name].append((mb / seconds, peak))
        print(f"  {name:28} {mb / seconds:8.1f} MB/s  {peak:7.0f} MB", flush=True)

    def median(self, name):
        return tuple(statistics.median(column) for column in zip(*self.values[name]))

    def row(self, what, ours, theirs, aim):
        if ours not in self.values or theirs not in self.values:
            return
        (speed, peak), (their_speed, their_peak) = self.median(ours), self.median(theirs)
        ratio = speed / their_speed
        verdict = "" if aim is None else f"{aim:5.1f}  {'yes' if ratio >= aim else 'NO'}"
        print(f"{what:24} {speed:9.1f} {their_speed:9.1f} {ratio:7.2f} {peak:8.0f} {their_peak:8.0f}  {verdict}")

    def alone(self, what, ours):
        speed, peak = self.median(ours)
        print(f"{what:24} {speed:9.1f} {'':17} {peak:8.0f}")

    def highest_peak(self, stages):
        return max(peak for stage in stages for _, peak in self.values[stage])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--text", required=True, type=Path)
    parser.add_argument("--t5", type=Path, help="a folder with T5's tokenizer.json")
    parser.add_argument("--mb", type=float, default=1000)
    parser.add_argument("--peer-mb", type=float, default=40, help="the slow peers see only so much")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "tinylm-peers")
    args = parser.parse_args()
    args.tinylm, args.work = args.tinylm.resolve(), args.work.resolve()
    args.t5 = args.t5 and args.t5.resolve()
    args.work.mkdir(parents=True, exist_ok=True)

    corpus = args.work / f"corpus-{args.mb:g}.jsonl"
    if not corpus.exists():
        make_corpus(args.text, corpus, args.mb)
    part = args.work / f"part-{args.peer_mb:g}-of-{args.mb:g}.jsonl"
    if not part.exists():
        make_slice(corpus, part, args.peer_mb)
    mb, part_mb = content_mb(corpus), content_mb(part)
    held = args.work / f"held-of-{args.mb:g}.jsonl"
    if not held.exists():
        make_slice(corpus, held, args.peer_mb / 10)
    print(f"{mb:.0f} MB of contents, of which slow peers see {part_mb:.0f}, in {args.work}", flush=True)

    kept = {}
    figures, tokenizers = Figures(), ["bpe"] + (["t5"] if args.t5 else [])
    out = args.work / "peer.out"
    for idx in range(args.runs):
        print(f"run {idx + 1} of {args.runs}", flush=True)
        run = Run(args, corpus, part, held)
        for stage, (seconds, peak) in run.stages.items():
            if not stage.startswith("held"):
                figures.note(stage, part_mb if stage.startswith("part") or stage in ("bpe", "unigram") else mb, seconds, peak)
        both = [run.stages["chat"], run.stages["exact"]]
        figures.note("chat + exact", mb, sum(s for s, _ in both), max(peak for _, peak in both))
        for name in tokenizers:
            found, peak = peer(args, "binarize", part, run.folder(name) / "tokenizer.json", out)
            figures.note(f"tokenizers {name}", part_mb, found["seconds"], peak)
        found, peak = peer(args, "download", corpus, out)
        figures.note("peer download", mb, found["seconds"], peak)
        found, peak = peer(args, "normalize", corpus, out)
        figures.note("peer normalize", mb, found["seconds"], peak)
        contaminated, peak = peer(args, "contamination", part, held)
        figures.note("peer contamination", part_mb, contaminated["seconds"], peak)
        found, peak = peer(args, "train", part)
        figures.note("peer train", part_mb, found["seconds"], peak)
        for how in ["evened", "as it is"]:
            found, peak = peer(args, "exact", corpus, out, how)
            figures.note(f"peer exact, {how}", mb, found["seconds"], peak)
            kept[f"polars, {how}"] = found["kept"]
        minhash, peak = peer(args, "minhash", part)
        figures.note("peer minhash", part_mb, minhash["seconds"], peak)

    print(f"\n{'':24} {'ours':>9} {'theirs':>9} {'':7} {'ours':>8} {'theirs':>8}")
    print(f"{'medians':24} {'MB/s':>9} {'MB/s':>9} {'ratio':>7} {'peak MB':>8} {'peak MB':>8}    aim  reached")
    figures.row("download, a local file", "source", "peer download", None)
    figures.row("normalize", "chat", "peer normalize", None)
    figures.alone("exact", "exact")
    figures.row("binarize, 8k BPE", "shards", "tokenizers bpe", 20)
    figures.row("binarize, T5", "t5_shards", "tokenizers t5", 5)
    figures.row("normalize + exact", "chat + exact", "peer exact, evened", 1)
    figures.row("  texts as they are", "chat + exact", "peer exact, as it is", 1)
    figures.row("minhash, the slice", "part_near", "peer minhash", 10)
    figures.row("minhash, all", "near", "peer minhash", 10)
    figures.row("contamination, all", "clean", "peer contamination", None)
    figures.row("train 8k BPE", "bpe", "peer train", None)
    figures.row("train 8k BPE, all", "bpe_all", "peer train", None)
    figures.alone("train 8k unigram", "unigram")
    highest = figures.highest_peak(run.stages.keys() - {"held", "held_chat"})
    print(f"highest peak of any stage: {highest:.0f} MB, below {MEMORY_MB_MAX}: {'yes' if highest < MEMORY_MB_MAX else 'NO'}")

    kept["tinylm"] = run.count("exact", "documents_kept")
    print("exact: kept " + ", ".join(f"{n} by {name}" for name, n in kept.items()))
    n_contaminated = run.count("part_clean", "contaminated")
    print(f"contamination on the slice: dropped {n_contaminated} by tinylm, {contaminated['dropped']} by the set")
    wanted = truth(part)
    for name, found in [("tinylm", run.dropped()), ("datasketch", set(minhash["dropped"]))]:
        recall, precision = rates(found, wanted)
        print(f"minhash on the slice: {name:10} recall {recall:.4f}, precision {precision:.4f} of {len(wanted)}")
    out.unlink()
    shutil.rmtree(run.home)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(PEERS[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
