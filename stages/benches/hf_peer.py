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

from peer import N_TOKENS, PROMPTS, Program, dialogues, shards

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

# A preset and what is changed of it.
MODELS = {
    "toiny": ("toiny", ""),
    "tinylm": ("tinylm", ""),
    "jojo": ("jojo", ""),
    "mini": ("mini", ""),
    "forty_one": ("forty-one", "d_ff: 80"),
    "llama_tiny": ("llama-tiny", "n_kv_heads: 2, d_ff: 80"),
    "mini_relu": ("mini", "activation: relu, norm_eps: 1e-6"),
    "mini_silu_tied": ("mini", "activation: silu, tied: true, bias: { qkv: false, proj: false }"),
    "tinylm_no_head_bias": ("tinylm", "bias: { head: false }"),
    "mini_grouped": ("mini", "n_kv_heads: 2"),
    "mini_scaled_tied": ("mini", "tied: true, embed_scale: 3"),
    "mini_rms": ("mini", "norm: rms, bias: { norm: false }"),
    "mini_rms_head_grouped": ("mini", "norm: rms, bias: { norm: false, head: true }, n_kv_heads: 2, activation: relu"),
    "toiny_no_head_bias": ("toiny", "bias: { head: false }"),
    "post_learned": ("toiny", "positions: learned, bias: { head: false }, activation: gelu, tied: true"),
    "post_other_eps": ("toiny", "bias: { head: false }, norm_eps: 1e-6"),
    "no_final_norm": ("mini", "final_norm: false"),
    "llama_all_biases": ("llama-tiny", "n_kv_heads: 2, bias: { qkv: true, proj: true, mlp: true }, tied: false"),
    "llama_qkv_bias": ("llama-tiny", "n_kv_heads: 2, bias: { qkv: true }"),
    "llama_scaled": ("llama-tiny", "n_kv_heads: 2, embed_scale: 4, rope_theta: 500"),
    "arcee": ("llama-tiny", "n_kv_heads: 2, activation: gelu-tanh, bias: { qkv: true }"),
    "neox": ("mini", "positions: rope, activation: gelu"),
    "pythia": ("mini", "positions: rope, rope_share: 0.25, parallel: true, activation: gelu"),
    "neox_half": ("mini", "positions: rope, rope_share: 0.5"),
    "starcoder2": ("mini", "positions: rope, n_kv_heads: 2, activation: relu"),
    "starcoder2_no_bias": ("mini", "positions: rope, n_kv_heads: 2, bias: { qkv: false, proj: false, mlp: false, norm: false }"),
    "stablelm": ("mini", "positions: rope, activation: swiglu, n_kv_heads: 2, bias: { proj: false, mlp: false }"),
    "stablelm_half": ("mini", "positions: rope, rope_share: 0.5, activation: swiglu, bias: { proj: false, mlp: false }"),
    "llama_half": ("llama-tiny", "rope_share: 0.5"),
    "parallel": ("mini", "parallel: true"),
    "olmo_like": ("mini", "positions: rope, activation: swiglu, bias: { qkv: false, proj: false, mlp: false, norm: false }"),
    "ctrl": ("tinylm", "activation: relu, norm_eps: 1e-6, embed_scale: 5.656854249492381"),
    "rope_head_bias": ("llama-tiny", "n_kv_heads: 2, bias: { head: true }"),
    "swiglu_learned": ("mini", "activation: swiglu, tied: true"),
    "post_rms": ("toiny", "norm: rms, bias: { norm: false }"),
    "post_final_norm": ("toiny", "final_norm: true"),
}
SIZE = "d_model: 32, n_heads: 4, n_layers: 2, context: 256"
EXPERIMENT = """
name: peers
stages:
  rows: { kind: download, with: { path: rows.jsonl } }
  chat: { kind: normalize, inputs: [rows] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 400, min_frequency: 1 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0.1 } }
"""
STAGES = """
  {name}:
    kind: pretrain
    inputs: [shards]
    with: {{ model: {{ preset: {preset}, {size}{edits} }}, train: {{ steps: 30, batch: 4, lr: 1e-2, validate_every: 0 }} }}
  {name}_loss: {{ kind: evaluate, inputs: {{ model: {name}, shards: shards }}, with: {{ continuations: 0 }} }}
"""


def size(preset, edits):
    kv = "" if "n_kv_heads" in edits else ", n_kv_heads: 4"
    d_ff = "" if "d_ff" in edits else ", d_ff: 128"
    return SIZE + kv + d_ff, f", {edits}" if edits else ""


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
    models = {name: model for name, model in MODELS.items() if args.only in (None, name)}
    documents = list(dialogues(1000))
    with tempfile.TemporaryDirectory(prefix="hf-peer-") as work:
        work = Path(work)
        (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in documents))
        text = EXPERIMENT
        for name, (preset, edits) in models.items():
            sizes, edits = size(preset, edits)
            text += STAGES.format(name=name, preset=preset, size=sizes, edits=edits)
        (work / "peers.yaml").write_text(text)
        tinylm = Program(args.tinylm.resolve(), work)
        tinylm("run", "peers.yaml", "-q")
        print("| model | class | claim | difference | answers | ids | loss here, there |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        results = [compare(tinylm, name, documents) for name in models]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
