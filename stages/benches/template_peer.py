"""Chat templates as transformers renders them, against the ids that training reads.

    python template_peer.py --tinylm ../../target/release/tinylm

For each template and algorithm: how many of a corpus' dialogues have the same ids when
`apply_chat_template(tokenize=True)` renders `chat_template.jinja` and encodes the string with
`tokenizer.json`. The `<|endoftext|>` that separates documents is in no string.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy
    import transformers
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

TEMPLATES = ["chatml", "tags", "start-end", "plain"]
ALGORITHMS = ["byte-level-bpe", "sentencepiece-bpe", "unigram", "wordpiece", "word-level"]
ODD = ["  two spaces", "\n\n\nlines", " \n both", "\ttab\t", "behind  ", "behind\n\n", "!", "naïve 日本語 🦀", "a   b\n\n\nc", "it's \"5\""]
EXPERIMENT = """
name: peers
stages:
  rows: {{ kind: download, with: {{ path: rows.jsonl }} }}
  chat: {{ kind: normalize, inputs: [rows] }}
"""
STAGES = """
  {name}: {{ kind: tokenizer, inputs: [chat], with: {{ algorithm: {algorithm}, template: {template}, vocab_size: 500, min_frequency: 1 }} }}
  {name}_shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: {name} }}, with: {{ rejected_max: 0.0 }} }}
"""


def dialogues(n=400, seed=1):
    rng = random.Random(seed)
    words = "who are you and what is the name of that small river near our house today".split()

    def said():
        return rng.choice(ODD) if rng.random() < 0.3 else " ".join(rng.choices(words, k=rng.randint(1, 12))).capitalize() + rng.choice(".?!")

    for _ in range(n):
        turns = [{"role": "system", "content": "Be kind."}] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 3)):
            turns += [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]
        yield turns


def shards(folder):
    record = numpy.dtype([("start", "<u8"), ("bytes", "<u4"), ("source", "<u2")])
    for path in sorted(folder.glob("train-*.bin")):
        ids = numpy.memmap(path, dtype=numpy.uint16, mode="r")
        starts = numpy.fromfile(path.with_suffix(".idx"), dtype=record)["start"].tolist()
        for start, end in zip(starts, starts[1:] + [len(ids)]):
            yield ids[start:end].tolist()


def same(folder, rows, template):
    """How many dialogues have the same ids, and the first that has not."""
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.chat_template = (folder / "chat_template.jinja").read_text()
    n_same, first = 0, None
    for row, trained in zip(rows, shards(folder), strict=True):
        ids = tokenizer.apply_chat_template(row, tokenize=True, return_dict=False)
        trained = trained[:-1] if template == "chatml" else trained
        n_same += ids == trained
        if ids != trained and first is None:
            first = (tokenizer.convert_ids_to_tokens(ids), tokenizer.convert_ids_to_tokens(trained))
    return n_same, first


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True)
    tinylm = Path(parser.parse_args().tinylm).resolve()
    rows = list(dialogues())
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        pairs = {f"{t}_{a}".replace("-", "_"): (t, a) for t in TEMPLATES for a in ALGORITHMS}
        text = EXPERIMENT.format() + "".join(STAGES.format(name=n, template=t, algorithm=a) for n, (t, a) in pairs.items())
        (work / "peers.yaml").write_text(text)
        subprocess.run([tinylm, "run", "peers.yaml", "-q"], check=True, cwd=work)
        for name, (template, algorithm) in pairs.items():
            path = subprocess.run([tinylm, "cache", "path", f"@last/{name}_shards"], check=True, cwd=work, capture_output=True, text=True)
            n_same, first = same(work / path.stdout.strip(), rows, template)
            print(f"{template:10} {algorithm:18} {n_same} of {len(rows)}")
            if first:
                print("  transformers", *first[0][:40], "\n  training    ", *first[1][:40])


main()
