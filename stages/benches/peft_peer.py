"""Adapters beside Hugging Face's PEFT: ours in `PeftModel`, and PEFT's in ours.

    python -m venv v && v/bin/pip install torch transformers peft
    v/bin/python stages/benches/peft_peer.py --tinylm target/release/tinylm [--only NAME]

For each model a base is trained and finetuned with an adapter. `PeftModel` puts the exported adapter on the exported
base, and must have the probabilities that tinylm has of the finetuned model. Then PEFT makes an adapter of its own on
the same base, and tinylm, which imports both, must have PEFT's. A line says the class, and the largest difference of
log-probabilities both ways. Exits with 1 if one is above 1e-4.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

try:
    import peft
    import torch
    import transformers
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

from peer import PROMPTS, Program, dialogues

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SIZE = "d_model: 32, n_heads: 4, n_layers: 2, d_ff: 128, context: 256"
ALL = "rank: 4, alpha: 16"
# The model, our adapter, the shards it is trained on, PEFT's adapter (nothing where `import` takes no such class).
MODELS = {
    "mini": ("preset: mini, n_kv_heads: 4", ALL, "shards", dict(target_modules=["c_attn", "c_proj"], r=3)),
    "mini_part": ("preset: mini, n_kv_heads: 4", "rank: 4, on: [down]", "shards", dict(target_modules=["c_fc"], r=2, use_rslora=True)),
    "tied_new_tokens": ("preset: mini, n_kv_heads: 4, tied: true", ALL, "more", dict(target_modules=["c_attn"], modules_to_save=["wte", "lm_head"])),
    "llama": ("preset: llama-tiny, n_kv_heads: 2", ALL, "shards", dict(target_modules="all-linear", r=5, lora_alpha=7)),
    "llama_new_tokens": ("preset: llama-tiny, n_kv_heads: 2, tied: false", ALL, "more", dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "neox": ("preset: mini, positions: rope, activation: gelu, n_kv_heads: 4", ALL, "shards", dict(target_modules=["query_key_value", "dense"])),
    "starcoder2": ("preset: mini, positions: rope, n_kv_heads: 2", ALL, "shards", dict(target_modules=["k_proj", "c_fc"])),
    "lowered": ("preset: tinylm, n_kv_heads: 4", ALL, "shards", None),
    "lowered_rms": ("preset: forty-one, n_kv_heads: 4", ALL, "shards", None),
    "opt": ("preset: toiny, bias: { head: false }, n_kv_heads: 4", ALL, "shards", dict(target_modules=["v_proj", "fc1", "out_proj"])),
    "openai_gpt": ("preset: toiny, bias: { head: false }, norm_eps: 1e-6, n_kv_heads: 4", ALL, "shards", None),
    "own_code": ("preset: toiny, n_kv_heads: 4", ALL, "shards", None),
}
DATA = """
name: peers
stages:
  rows: { kind: download, with: { path: rows.jsonl } }
  chat: { kind: normalize, inputs: [rows] }
  tokens: { kind: tokenizer, inputs: [chat], with: { vocab_size: 400, min_frequency: 1 } }
"""
SHARDS = """
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens } }
  enlarged: { kind: tokenizer, with: { pretrained: { path: tokens }, special_tokens: ["<|new|>", "<|newer|>"] } }
  more: { kind: binarize, inputs: { documents: chat, tokenizer: enlarged } }
"""
TRAIN = "batch: 4, lr: 1e-2, validate_every: 0"
STAGES = """
  {name}: {{ kind: pretrain, inputs: [shards], with: {{ model: {{ {model}, {size} }}, train: {{ steps: 30, {train} }} }} }}
  {name}_tuned: {{ kind: finetune, inputs: {{ shards: {shards}, model: {name} }}, with: {{ adapter: {{ {adapter} }}, train: {{ steps: 20, {train} }} }} }}
"""
BACK = """
  {name}_base: {{ kind: download, with: {{ path: {name}-hf }} }}
  {name}_peft: {{ kind: download, with: {{ path: {name}-theirs }} }}
  {name}_in: {{ kind: import, inputs: {{ weights: {name}_base, adapter: {name}_peft }} }}
"""


def difference(tinylm, stage, model, tokenizer):
    worst = 0
    for prompt in PROMPTS:
        ids, ours = tinylm.steps(f"@last/{stage}", prompt, model.config.vocab_size)
        begin = tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([begin + ids])).logits[0, len(begin) - 1 : -1].double()
        theirs = torch.log_softmax(logits, -1).numpy()
        seen = ours > -18
        worst = max(worst, abs(ours - theirs)[seen].max())
    return worst


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()


def out(tinylm, name):
    base, adapter = tinylm.work / f"{name}-hf", tinylm.work / f"{name}-ours"
    tinylm("export", f"@last/{name}", "--out", base)
    tinylm("export", f"@last/{name}_tuned", "--to", "peft", "--out", adapter)
    model = load(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(adapter)
    if len(tokenizer) != model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    before = difference(tinylm, f"{name}_tuned", model, tokenizer)
    adapted = peft.PeftModel.from_pretrained(model, adapter).eval()
    after = difference(tinylm, f"{name}_tuned", adapted, tokenizer)
    assert before > 0.1, f"{name}: the adapter changes nothing ({before})"
    return type(model).__name__, after


def make_theirs(tinylm, name, settings):
    """An adapter with random numbers, and what it makes of the base."""
    torch.manual_seed(1)
    model = load(tinylm.work / f"{name}-hf")
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tinylm.work / f"{name}-theirs")
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--only")
    args = parser.parse_args()
    models = {name: model for name, model in MODELS.items() if args.only in (None, name)}
    with tempfile.TemporaryDirectory(prefix="peft-peer-") as work:
        work = Path(work)
        rows = "".join(json.dumps({"messages": row}) + "\n" for row in dialogues(300))
        (work / "rows.jsonl").write_text(rows)
        (work / "peers.yaml").write_text(DATA)
        tinylm = Program(args.tinylm.resolve(), work)
        tinylm("run", "peers.yaml", "-q")
        shutil.copytree(tinylm.artifact("tokens"), work / "tokens")
        text = DATA + SHARDS
        for name, (model, adapter, shards, _) in models.items():
            text += STAGES.format(name=name, model=model, size=SIZE, adapter=adapter, shards=shards, train=TRAIN)
        (work / "peers.yaml").write_text(text)
        tinylm("run", "peers.yaml", "-q")
        results = {name: list(out(tinylm, name)) for name in models}
        theirs = {name: make_theirs(tinylm, name, settings) for name, (_, _, _, settings) in models.items() if settings}
        (work / "back.yaml").write_text("name: back\nstages:" + "".join(BACK.format(name=name) for name in theirs))
        if theirs:
            tinylm("run", "back.yaml", "-q")
        for name, model in theirs.items():
            tokenizer = transformers.AutoTokenizer.from_pretrained(work / f"{name}-hf")
            results[name].append(difference(tinylm, f"{name}_in", model, tokenizer))
    print("| model | class | ours there | theirs here |\n| --- | --- | --- | --- |")
    for name, (kind, *far) in results.items():
        print(f"| {name} | {kind} | " + " | ".join(f"{x:.1e}" for x in far) + (" |" if far[1:] else " | - |"))
    sys.exit(0 if all(x < 1e-4 for _, *far in results.values() for x in far) else 1)


if __name__ == "__main__":
    main()
