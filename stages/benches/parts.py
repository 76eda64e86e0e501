"""A corpus in parts beside the same corpus whole: time, memory, and whether what they hold is the same.

    python parts.py --tinylm ../../target/release/tinylm [--mb 1000] [--files 64] [--parts 1 16 64]

Documents are made up: a tenth repeats an earlier one, a twentieth repeats one with a word changed, so what
`dedupe` should find is known. They stand in files of one size, as lists, which no part cuts. Each run starts
from an empty home, without parts first. A part ends behind a file by that file's digest, so a number of parts
is met only about, but for one and for all; what it came to is printed.

Seconds are those of a stage from its start to its end, its parts within them; memory is the most that any
one process of it held. Both are the registry's own. The same to the bit must be: every document of
`normalize` and `dedupe` in its order, but for the name of its source, which is of one file in a part and of
the first of several otherwise; the verdicts; the ids and roles of both splits. Needs pyarrow and numpy.
"""

import argparse
import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy  # noqa: F401, which pyarrow hands numbers over with
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.parquet
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

EXPERIMENT = """
name: parts
stages:
  corpus: {{ kind: download, with: {{ path: corpus }} }}
  talk: {{ kind: normalize, inputs: [corpus], with: {{ format: pairs{partition} }} }}
  clean: {{ kind: dedupe, inputs: [talk], with: {{ method: minhash{partition} }} }}
  sample: {{ kind: download, with: {{ path: sample.json }} }}
  sample_talk: {{ kind: normalize, inputs: [sample] }}
  words: {{ kind: tokenizer, inputs: [sample_talk], with: {{ vocab_size: 8000 }} }}
  shards: {{ kind: binarize, inputs: {{ documents: clean, tokenizer: words }}, with: {{ validation: 0.01{partition} }} }}
"""
STAGES = ["talk", "clean", "shards"]
KINDS = {"talk": "normalize", "clean": "dedupe", "shards": "binarize"}


# The corpus.


def make_corpus(folder, mb, n_files, seed=1):
    """Returns how many documents there are, repeat another, and nearly do."""
    folder.mkdir()
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(50_000)]
    recent, n_documents, n_same, n_near = [], 0, 0, 0
    for file in range(n_files):
        written, rows = 0, []
        while written < mb * 1_000_000 / n_files:
            chance = rng.random() if len(recent) == 1000 else 1
            if chance < 0.15:
                prompt, answer = rng.choice(recent)
                n_same += chance < 0.1
                if chance >= 0.1:
                    n_near += 1
                    answer = list(answer)
                    # A word of its own, so that two of these are never the same.
                    answer[rng.randrange(len(answer))] = f"changed{n_near}"
            else:
                prompt, answer = rng.choices(words, k=8), rng.choices(words, k=rng.randint(100, 300))
                if len(recent) < 1000:
                    recent.append((prompt, answer))
                else:
                    recent[rng.randrange(1000)] = (prompt, answer)
            row = json.dumps({"prompt": " ".join(prompt), "response": " ".join(answer)})
            rows.append(row)
            written += len(row)
        n_documents += len(rows)
        (folder / f"{file:05}.json").write_text("[" + ",\n".join(rows) + "]")
    return n_documents, n_same, n_near


# A run.


class Run:
    def __init__(self, args, partition):
        self.args, self.home = args, args.work / "home"
        shutil.rmtree(self.home, ignore_errors=True)
        experiment = args.work / "parts.yaml"
        experiment.write_text(EXPERIMENT.format(partition=partition))
        command = [args.tinylm, "--home", self.home, "--quiet", "run", experiment]
        command += ["--threads", str(args.threads)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        db = sqlite3.connect(self.home / "registry.sqlite")
        rows = db.execute("SELECT stage, ended_at - started_at, peak_memory_bytes, artifact FROM executions").fetchall()
        db.close()
        self.seconds = {stage: ms / 1e3 for stage, ms, _, _ in rows}
        self.digests = {stage: artifact for stage, _, _, artifact in rows}
        self.n_parts = sum(stage.startswith("talk/part-") for stage, *_ in rows)
        self.peak_mb = {
            stage: max(peak or 0 for of, _, peak, _ in rows if of.split("/")[0] == stage) / 1e6 for stage in STAGES
        }

    def files(self, stage, pattern):
        digest = self.digests[stage]
        return sorted((self.home / "store" / "artifacts" / digest[:2] / digest[2:] / "files").glob(pattern))

    def stats(self):
        return json.loads(self.files("clean", "stats.json")[0].read_text())

    def contents(self):
        """What must be the same in any number of parts, each as a digest."""
        held = {}
        for stage in ["talk", "clean"]:
            held[f"documents of {KINDS[stage]}"] = rows_digest(self.files(stage, "documents-*.parquet"))
        held["verdicts"] = bytes_digest(self.files("clean", "duplicates*.jsonl"))
        for split in ["train", "validation"]:
            for what, ending in [("ids", "bin"), ("roles", "roles")]:
                held[f"{what} of {split}"] = bytes_digest(self.files("shards", f"{split}-*.{ending}"))
        return held


def bytes_digest(files):
    digest = hashlib.sha256()
    assert files
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def rows_digest(files):
    """Of the columns of all rows, however they are cut into files and row groups."""
    digests = {}
    for file in files:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            for name, column in zip(batch.schema.names, batch.columns):
                if name != "source":
                    feed(digests, name, column)
    assert digests
    lines = [f"{name} {digest.hexdigest()}" for name, digest in sorted(digests.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def feed(digests, name, column):
    """What a column says, in streams that do not show where it was cut: what is absent, lengths, bytes."""

    def update(what, values):
        digests.setdefault(f"{name} {what}", hashlib.sha256()).update(values)

    kind, types = column.type, pyarrow.types
    if types.is_dictionary(kind):
        return feed(digests, name, column.dictionary_decode())
    update("absent", column.is_null().to_numpy(zero_copy_only=False).tobytes())
    if types.is_list(kind) or types.is_large_list(kind):
        update("lengths", compute.list_value_length(column).cast("int64").fill_null(0).to_numpy().tobytes())
        return feed(digests, f"{name}[]", column.flatten())
    if types.is_struct(kind):
        for field, inner in zip(kind, column.flatten()):
            feed(digests, f"{name}.{field.name}", inner)
        return None
    if types.is_boolean(kind) or types.is_primitive(kind):
        return update("bytes", column.drop_null().to_numpy(zero_copy_only=False).tobytes())
    column = column.drop_null()
    update("lengths", compute.binary_length(column).cast("int64").to_numpy().tobytes())
    return update("bytes", b"".join(column.cast("binary").to_pylist()))


# The table.


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tinylm", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--parts", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="a folder to work below, with room for four times as much")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        args.work = Path(work)
        is_sound = measure(args)
    sys.exit(not is_sound)


def measure(args):
    n_documents, n_same, n_near = make_corpus(args.work / "corpus", args.mb, args.files)
    shutil.copyfile(args.work / "corpus" / "00000.json", args.work / "sample.json")
    n_bytes = sum(file.stat().st_size for file in (args.work / "corpus").iterdir())
    print(f"{n_bytes / 1e6:.0f} MB in {args.files} files: {n_documents} documents, {n_same} repeated, {n_near} nearly", flush=True)

    print(f"\n{'':10}" + "".join(f"{KINDS[stage]:>22}" for stage in STAGES) + f"{'the same':>12}")
    whole, is_sound = None, True
    for n_parts in [0, *args.parts]:
        # A part of a byte ends behind every file, one of a petabyte behind none but the last.
        size = {0: "", 1: "1000TB", args.files: "1"}.get(n_parts, str(n_bytes // max(n_parts, 1)))
        run = Run(args, size and f", partition: {size}")
        contents = run.contents()
        whole = whole or contents
        differ = [what for what, digest in contents.items() if digest != whole[what]]
        is_sound = is_sound and not differ
        name = f"{run.n_parts} parts" if n_parts else "whole"
        cells = [f"{run.seconds[stage]:.1f} s, {run.peak_mb[stage]:.0f} MB" for stage in STAGES]
        verdict = "NOT: " + ", ".join(differ) if differ else "yes" if n_parts else ""
        print(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells) + f"{verdict:>12}", flush=True)
    found = run.stats()
    print(f"\ndedupe: {found['exact_duplicates']} repeated of {n_same}, {found['near_duplicates']} nearly of {n_near}")
    is_sound = is_sound and found["exact_duplicates"] == n_same
    print(f"the same to the bit in any number of parts: {'yes' if is_sound else 'NO'}")
    return is_sound


if __name__ == "__main__":
    main()
