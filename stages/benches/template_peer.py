"""Chat templates as transformers renders them, against the ids that training reads.

    python template_peer.py --tinylm ../../target/release/tinylm

For each template and algorithm a model is exported, and of a corpus' dialogues it is said how many have the same ids
when `apply_chat_template(tokenize=True)` renders the template of the export and encodes the string with its tokenizer,
and in how many the mask of `{% generation %}` covers what training predicts. The `<|endoftext|>` that separates
documents is in no string. Exits with 1 if any dialogue differs, or if the export counted otherwise.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    import transformers

    from peer import dialogues, shards
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

# Of a context that is shorter than a dialogue.
transformers.logging.set_verbosity_error()

TEMPLATES = ["chatml", "tags", "start-end", "plain"]
ALGORITHMS = ["byte-level-bpe", "sentencepiece-bpe", "unigram", "wordpiece", "word-level"]
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
