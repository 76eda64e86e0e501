"""Exports as transformers reads them, against what tinylm itself computes.

    python -m venv v && v/bin/pip install torch transformers
    v/bin/python stages/benches/hf_peer.py --tinylm target/release/tinylm [--only NAME]

For every preset and every setting that has a class of its own, a tiny model is trained, exported and loaded by
`AutoModelForCausalLM` and `AutoTokenizer` (with `trust_remote_code` only where the export says that it needs it).
A line says: the class, the claim, the largest difference of log-probabilities relative to their spread, whether the
greedy answers are the same, how many dialogues have the ids of training, and both losses on the held back ones.
Exits with 1 if any of it is not as it should be.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

try:
    import numpy
    import torch
    import transformers
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

from peer import N_TOKENS, PROMPTS, dialogues, shards, trained

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def difference(tinylm, name, model, tokenizer):
    """The largest difference of log-probabilities, over their spread."""
    worst = 0
    for prompt in PROMPTS:
        ids, ours = tinylm.steps(f"@last/{name}", prompt, model.config.vocab_size)
        begin = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([begin + ids])).logits[0, len(begin) - 1 : -1].double()
        theirs = torch.log_softmax(logits, -1).numpy()
        worst = max(worst, abs(ours - theirs).max() / (ours.max() - ours.min()))
    return worst


def same_answers(tinylm, name, model, tokenizer):
    n_same = 0
    for prompt in PROMPTS:
        words = ["-n", str(N_TOKENS), "--temperature", "0", "--json", "--chat"]
        [answer] = json.loads(tinylm("sample", f"@last/{name}", "-p", prompt, *words))
        turns = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = model.generate(**ids, do_sample=False, max_length=ids["input_ids"].shape[1] + N_TOKENS)
        text = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        n_same += text == answer["text"]
    return n_same


def loss(model, folder):
    """Of the targets of the documents that were held back, each alone."""
    nll, n = 0.0, 0
    for ids, roles in shards(folder, "validation"):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        is_target = torch.tensor([role & 128 > 0 for role in roles[1:]])
        nll, n = nll + each[is_target].sum().item(), n + is_target.sum().item()
    return nll / n


def compare(tinylm, name, documents):
    out = tinylm.work / f"{name}-hf"
    told = tinylm("export", f"@last/{name}", "--out", out).splitlines()
    trust = "its own code" in told[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, trust_remote_code=trust)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(out, trust_remote_code=trust, output_loading_info=True)
    model.eval()
    strangers = {key: sorted(value) for key, value in report.items() if value}
    trained = [ids for split in ("train", "validation") for ids, _ in shards(tinylm.artifact("shards"), split)]
    rendered = tokenizer.apply_chat_template(documents, tokenize=True, return_dict=False)
    # What separates documents is in no string, and a split keeps no order of the whole.
    n_same = sum(ids + [tokenizer.eos_token_id] in trained for ids in rendered)
    ours = json.loads((tinylm.artifact(f"{name}_loss") / "evaluation.json").read_text())["loss"]
    theirs = loss(model, tinylm.artifact("shards"))
    worst = difference(tinylm, name, model, tokenizer)
    n_answers = same_answers(tinylm, name, model, tokenizer)
    claim = told[0].split(": ", 1)[1]
    print(f"| {name} | {type(model).__name__} | {claim} | {worst:.1e} | {n_answers}/{len(PROMPTS)} | {n_same}/{len(documents)} | {ours:.6f} {theirs:.6f} |", flush=True)
    if strangers:
        print("   tensors:", strangers)
    if not re.search(r"^([\d,]+) of \1 documents", told[1]):
        print("  ", told[1])
    good = worst < 1e-5 and n_answers == len(PROMPTS) and n_same == len(documents) and abs(ours - theirs) < 1e-4
    return good and not strangers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--only")
    args = parser.parse_args()
    documents = list(dialogues(1000))
    with tempfile.TemporaryDirectory(prefix="hf-peer-") as work:
        tinylm, names = trained(args.tinylm, Path(work), args.only, documents)
        print("| model | class | claim | difference | answers | ids | loss here, there |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        results = [compare(tinylm, name, documents) for name in names]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
