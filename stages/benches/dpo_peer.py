"""Preference tuning beside TRL's: the same model, the same pairs, the loss and all that is told of it, step by step.

    python -m venv v && v/bin/pip install torch transformers trl numpy
    v/bin/python stages/benches/dpo_peer.py --tinylm target/release/tinylm

For each model a base is trained, exported, and finetuned with `objective: dpo`, all pairs in each step. TRL's
`DPOTrainer` computes the loss of the exported base on the ids of tinylm's shards, and PyTorch's AdamW updates it. TRL's
own ids end one token later where a template writes a line's end behind a turn, so they are compared up to there. A
line says the largest difference of the loss and of the six metrics over all steps, and how many prompts and answers
have TRL's ids. Exits with 1 if a loss is more than 1e-4 away.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
from pathlib import Path

try:
    import torch
    import transformers
    import trl
    from datasets import Dataset
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

from peer import Program, shards

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
logging.disable(logging.WARNING)

STEPS, LR, BETA, N = 8, 2e-3, 0.1, 24
METRICS = ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"]
SIZE = "d_model: 32, n_heads: 4, n_layers: 2, d_ff: 64, context: 128"
MODELS = {
    "llama": "preset: llama-tiny, n_kv_heads: 2",
    "gpt2": "preset: mini, n_kv_heads: 4",
}
TEMPLATES = ["chatml", "tags", "plain"]
EXPERIMENT = f"""
name: peers
stages:
  rows: {{ kind: download, with: {{ path: pairs.jsonl }} }}
  pairs: {{ kind: normalize, inputs: [rows], with: {{ format: preferences }} }}
  talk: {{ kind: download, with: {{ path: talk.jsonl }} }}
  said: {{ kind: normalize, inputs: [talk] }}
"""
STAGES = """
  {name}_tokens: {{ kind: tokenizer, inputs: [said], with: {{ vocab_size: 300, min_frequency: 1, template: {template} }} }}
  {name}_shards: {{ kind: binarize, inputs: {{ documents: pairs, tokenizer: {name}_tokens }} }}
  {name}_first: {{ kind: binarize, inputs: {{ documents: said, tokenizer: {name}_tokens }} }}
  {name}: {{ kind: pretrain, inputs: [{name}_first], with: {{ model: {{ {model}, {size} }}, train: {{ steps: 40, batch: 8, lr: 1e-2, validate_every: 0 }} }} }}
  {name}_dpo:
    kind: finetune
    inputs: {{ shards: {name}_shards, model: {name} }}
    with:
      objective: dpo
      beta: {beta}
      train: {{ steps: {steps}, batch: {n}, micro_batch: 7, lr: {lr}, schedule: constant, warmup: 0, weight_decay: 0, clip: null, validate_every: 0 }}
    watch: {{ log_every: 1 }}
"""


def rows():
    rng = random.Random(1)
    words = "who are you and what is the name of that small river near our house today".split()
    said = lambda: " ".join(rng.choices(words, k=rng.randint(1, 9)))
    for idx in range(N):
        turn = lambda role: {"role": role, "content": said()}
        prompt = [turn("user"), turn("assistant"), turn("user")] if idx % 3 else [turn("user")]
        yield {"prompt": prompt, "chosen": [turn("assistant")], "rejected": [turn("assistant")]}


def pairs(folder):
    """The ids of prompt and answers as the shards have them, up to the end of the answer."""
    documents = list(shards(folder, "train"))
    for chosen, rejected in zip(documents[::2], documents[1::2]):
        example = {}
        for name, (ids, roles) in [("chosen", chosen), ("rejected", rejected)]:
            targets = [idx for idx, role in enumerate(roles) if role & 128]
            example["prompt_ids"] = ids[: targets[0]]
            example[f"{name}_ids"] = ids[targets[0] : targets[-1] + 1]
        yield example


def same_ids(ours, theirs):
    """How many of TRL's examples are ours, but for what a template writes behind the last turn."""
    begins = lambda long, short: long[: len(short)] == short
    whole = lambda example: tuple(map(tuple, (example["prompt_ids"] + example["chosen_ids"], example["prompt_ids"] + example["rejected_ids"])))
    known = [whole(example) for example in ours]
    return sum(any(begins(a, x) and begins(b, y) for x, y in known) for a, b in map(whole, theirs))


def compare(tinylm, name, data):
    tinylm("export", f"@last/{name}", "--out", f"{name}-hf")
    model, reference = (transformers.AutoModelForCausalLM.from_pretrained(tinylm.work / f"{name}-hf") for _ in range(2))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tinylm.work / f"{name}-hf")
    config = trl.DPOConfig(output_dir=str(tinylm.work / "trl"), beta=BETA, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False, max_length=None, disable_tqdm=True)
    trainer = trl.DPOTrainer(model=model, ref_model=reference, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    ours = list(pairs(tinylm.artifact(f"{name}_shards")))
    n_same = same_ids(ours, list(trainer.train_dataset))
    inputs = trainer.data_collator(ours)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    theirs = []
    for _ in range(STEPS):
        trainer._metrics["train"].clear()
        loss = trainer._compute_loss(model, inputs, False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        theirs.append([loss.item()] + [trainer._metrics["train"][metric][-1] for metric in METRICS])
    report = json.loads(tinylm("report", "@last", "--json"))
    curves = {curve["metric"]: curve["points"] for curve in report["curves"] if curve["stage"] == f"{name}_dpo"}
    far = [max(abs(point["value"] - step[idx]) for point, step in zip(curves[metric], theirs)) for idx, metric in enumerate(["loss", *METRICS])]
    print(f"| {name} | {theirs[0][0]:.4f} to {theirs[-1][0]:.4f} | {far[0]:.1e} | {max(far[1:]):.1e} | {n_same}/{len(ours)} |", flush=True)
    return far[0] < 1e-4 and len(curves["loss"]) == STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True, type=Path)
    args = parser.parse_args()
    data = list(rows())
    with tempfile.TemporaryDirectory(prefix="dpo-peer-") as work:
        work = Path(work)
        (work / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
        talk = [row["prompt"] + row[answer] for row in data for answer in ("chosen", "rejected")]
        (work / "talk.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in talk))
        names, text = [], EXPERIMENT
        for model, shape in MODELS.items():
            for template in TEMPLATES:
                names.append(f"{model}_{template}")
                text += STAGES.format(name=names[-1], model=shape, template=template, size=SIZE, beta=BETA, steps=STEPS, n=N, lr=LR)
        (work / "peers.yaml").write_text(text)
        tinylm = Program(args.tinylm.resolve(), work)
        tinylm("run", "peers.yaml", "-q")
        print("| model | loss | difference | of metrics | TRL's ids |\n| --- | --- | --- | --- | --- |", flush=True)
        results = [compare(tinylm, name, data) for name in names]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
