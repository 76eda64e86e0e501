"""Chat templates as transformers renders them, against the ids that training reads.

    python template_peer.py --tinylm ../../target/release/tinylm

For each template and algorithm a model is exported, and of a corpus' dialogues it is said how many have the same ids
when `apply_chat_template(tokenize=True)` renders the template of the export and encodes the string with its tokenizer,
and in how many the mask of `{% generation %}` covers what training predicts. The `<|endoftext|>` that separates
documents is in no string. Exits with 1 if any dialogue differs, or if the export counted otherwise.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import numpy
    import transformers
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

# Of a context that is shorter than a dialogue.
transformers.logging.set_verbosity_error()

TEMPLATES = ["chatml", "tags", "start-end", "plain"]
ALGORITHMS = ["byte-level-bpe", "sentencepiece-bpe", "unigram", "wordpiece", "word-level"]
ODD = ["  two spaces", "\n\n\nlines", " \n both", "\ttab\t", "behind  ", "behind\n\n", "!", "naïve 日本語 🦀", "a   b\n\n\nc", "it's \"5\""]
EXPERIMENT = """
name: peers
stages:
  rows: { kind: download, with: { path: rows.jsonl } }
  chat: { kind: normalize, inputs: [rows] }
"""
STAGES = """
  {name}: {{ kind: tokenizer, inputs: [chat], with: {{ algorithm: {algorithm}, template: {template}, vocab_size: 500, min_frequency: 1 }} }}
  {name}_shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: {name} }}, with: {{ rejected_max: 0.0 }} }}
  {name}_model:
    kind: pretrain
    inputs: [{name}_shards]
    with: {{ model: {{ preset: mini, d_model: 8, n_heads: 1, n_layers: 1, d_ff: 8 }}, train: {{ steps: 1, batch: 1, validate_every: 0 }} }}
"""


def dialogues(n, seed=1):
    """Small talk in which three contents of ten begin, end or consist of something odd."""
    rng = random.Random(seed)
    words = "who are you and what is the name of that small river near our house today".split()

    def said():
        return rng.choice(ODD) if rng.random() < 0.3 else " ".join(rng.choices(words, k=rng.randint(1, 12))).capitalize() + rng.choice(".?!")

    for _ in range(n):
        turns = [{"role": "system", "content": "Be kind."}] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 3)):
            turns += [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]
        yield turns


def shards(folder, split):
    """The ids of each document of a split, and the roles beside them."""
    record = numpy.dtype([("start", "<u8"), ("bytes", "<u4"), ("source", "<u2")])
    for path in sorted(folder.glob(f"{split}-*.bin")):
        ids = numpy.fromfile(path, dtype=numpy.uint16)
        roles = numpy.fromfile(path.with_suffix(".roles"), dtype=numpy.uint8)
        starts = numpy.fromfile(path.with_suffix(".idx"), dtype=record)["start"].tolist()
        for start, end in zip(starts, starts[1:] + [len(ids)]):
            yield ids[start:end].tolist(), roles[start:end].tolist()


def same(tokenizer, rows, trained, template):
    """How many dialogues have the same ids, how many the same mask, and the first with others."""
    n_ids, n_masks, first = 0, 0, None
    for row, (ids, roles) in zip(rows, trained, strict=True):
        if template == "chatml":
            ids, roles = ids[:-1], roles[:-1]
        read = tokenizer.apply_chat_template(row, return_dict=True, return_assistant_tokens_mask=True)
        n_ids += read["input_ids"] == ids
        n_masks += read["assistant_masks"] == [role >> 7 for role in roles]
        if read["input_ids"] != ids and first is None:
            first = (tokenizer.convert_ids_to_tokens(read["input_ids"]), tokenizer.convert_ids_to_tokens(ids))
    return n_ids, n_masks, first


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True)
    tinylm = Path(parser.parse_args().tinylm).resolve()
    rows = list(dialogues(400))
    good = True
    with tempfile.TemporaryDirectory(prefix="template-peer-") as work:
        work = Path(work)
        (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        pairs = {f"{t}_{a}".replace("-", "_"): (t, a) for t in TEMPLATES for a in ALGORITHMS}
        text = EXPERIMENT + "".join(STAGES.format(name=n, template=t, algorithm=a) for n, (t, a) in pairs.items())
        (work / "peers.yaml").write_text(text)

        def said(*args):
            return subprocess.run([tinylm, *args], check=True, cwd=work, capture_output=True, text=True).stdout

        said("run", "peers.yaml", "-q")
        for name, (template, algorithm) in pairs.items():
            trained = shards(work / said("cache", "path", f"@last/{name}_shards").strip(), "train")
            told = said("export", f"@last/{name}_model", "--out", name)
            counted = re.search(r"([\d,]+) of [\d,]+ documents have", told)
            tokenizer = transformers.AutoTokenizer.from_pretrained(work / name)
            n_ids, n_masks, first = same(tokenizer, rows, trained, template)
            print(f"{template:10} {algorithm:18} ids {n_ids}, masks {n_masks} of {len(rows)}; the export counted {counted[1]}", flush=True)
            if first:
                print("  transformers", *first[0][:40], "\n  training    ", *first[1][:40])
            good &= n_ids == n_masks == len(rows) == int(counted[1].replace(",", ""))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
