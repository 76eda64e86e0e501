"""Exports as llama.cpp reads them, against what tinylm itself computes.

    python -m venv v && v/bin/pip install llama-cpp-python numpy
    v/bin/python stages/benches/gguf_peer.py --tinylm target/release/tinylm [--only NAME] [--tokenizer tokenizer.json]

For every architecture and every tokenizer that has a form there, a tiny model is trained and exported. A line says: the
architecture, the claim, the largest difference of log-probabilities relative to their spread for each sort of numbers,
whether the greedy text is the same, and of how many of 1,000 dialogues llama.cpp makes the ids of training, out of
the string that the file's own template renders. `--tokenizer` adds models that speak by a file of that kind (T5's,
GPT-2's). Exits with 1 if any of it is not as it should be.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

try:
    import jinja2.sandbox
    import llama_cpp
    import numpy
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

from peer import PROMPTS, Program, dialogues, shards

# A preset, what is changed of it, how a tokenizer is made (or its file), and a template.
WIDE = "d_model: 256, d_ff: 512"
NARROW = "d_model: 64, d_ff: 128"
MODELS = {
    "mini": ("mini", "", "byte-level-bpe", "chatml"),
    "jojo": ("jojo", "", "byte-level-bpe", "plain"),
    "grouped": ("mini", "n_kv_heads: 2", "byte-level-bpe", "tags"),
    "tinylm": ("tinylm", "", "byte-level-bpe", "start-end"),
    "tinylm_tanh": ("tinylm", "activation: gelu-tanh", "byte-level-bpe", "chatml"),
    "forty_one": ("forty-one", "activation: gelu-tanh", "byte-level-bpe", "chatml"),
    "llama": ("llama-tiny", "n_kv_heads: 2", "byte-level-bpe", "chatml"),
    "llama_biases": ("llama-tiny", "bias: { qkv: true, proj: true, mlp: true }", "byte-level-bpe", "chatml"),
    "llama_head": ("llama-tiny", "tied: false, bias: { qkv: true, head: true }", "byte-level-bpe", "chatml"),
    "turning": ("mini", "positions: rope", "byte-level-bpe", "chatml"),
    "turning_grouped": ("mini", "positions: rope, n_kv_heads: 2, tied: true", "byte-level-bpe", "chatml"),
    "gated": ("mini", "positions: rope, activation: swiglu, n_kv_heads: 2, bias: { proj: false, mlp: false }", "byte-level-bpe", "chatml"),
    "gated_tied": ("mini", "positions: rope, activation: swiglu, tied: true, bias: { proj: false, mlp: false }", "byte-level-bpe", "chatml"),
    "pythia": ("mini", "positions: rope, rope_share: 0.25, parallel: true", "byte-level-bpe", "chatml"),
    "neox_tied": ("mini", "positions: rope, rope_share: 0.5, tied: true", "byte-level-bpe", "chatml"),
    "stablelm_half": ("mini", "positions: rope, rope_share: 0.5, activation: swiglu, bias: { proj: false, mlp: false }", "byte-level-bpe", "chatml"),
    "pieces": ("llama-tiny", "", "sentencepiece-bpe", "chatml"),
    "pieces_tags": ("llama-tiny", "", "sentencepiece-bpe", "tags"),
    "pieces_ends": ("llama-tiny", "", "sentencepiece-bpe", "start-end"),
    "unigram": ("llama-tiny", "", "unigram", "start-end"),
    "unigram_chatml": ("llama-tiny", "", "unigram", "chatml"),
    "wide": ("llama-tiny", WIDE, "byte-level-bpe", "chatml"),
    "words": ("llama-tiny", "", "wordpiece", "chatml"),
    "words_tags": ("llama-tiny", "", "wordpiece", "tags"),
}
# K-quants are of blocks of 256, so that only `wide` has any. Log-probabilities, relative to their spread. llama.cpp's own f32 is a table of halves where GELU is.
ALLOWED = {"f32": 2e-4, "f16": 2e-3, "bf16": 1e-2, "q8_0": 2e-2, "q4_0": 2e-1, "q6_k": 2e-2, "q5_k": 5e-2, "q4_k": 1e-1}
EXPERIMENT = """
name: peers
stages:
  rows: { kind: download, with: { path: rows.jsonl } }
  chat: { kind: normalize, inputs: [rows] }
"""
TRAINED = "inputs: [chat], with: {{ algorithm: {}, template: {}, vocab_size: 500, min_frequency: 1 }}"
GIVEN = "with: {{ pretrained: {{ path: {} }}, template: {} }}"
STAGES = """
  {name}_tokens: {{ kind: tokenizer, {tokenizer} }}
  {name}_shards: {{ kind: binarize, inputs: {{ documents: chat, tokenizer: {name}_tokens }}, with: {{ validation: 0.1 }} }}
  {name}:
    kind: pretrain
    inputs: [{name}_shards]
    with: {{ model: {{ preset: {preset}, n_heads: 4, n_layers: 2, context: 256{edits} }}, train: {{ steps: 30, batch: 4, lr: 1e-2, validate_every: 0 }} }}
"""


def difference(tinylm, name, model):
    """The largest difference of log-probabilities, over their spread, and the greedy texts."""
    worst, n_same = 0, 0
    for prompt in PROMPTS:
        ids, ours = tinylm.steps(f"@last/{name}", prompt, model.n_vocab())
        begin = model.tokenize(prompt.encode(), add_bos=False, special=False)
        bos = tinylm.bos(name)
        begin = ([bos] if bos is not None else []) + begin
        model.reset()
        model.eval(begin + ids[:-1])
        logits = numpy.array(model.scores[len(begin) - 1 : len(begin) + len(ids) - 1], dtype=numpy.float64)
        theirs = logits - numpy.log(numpy.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
        worst = max(worst, abs(ours - theirs).max() / (ours.max() - ours.min()))
        n_same += theirs.argmax(-1).tolist() == ids
    return worst, n_same


def same_ids(tinylm, name, model, documents):
    """How many dialogues have the ids of training when the file's template and tokenizer read them."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(model.metadata["tokenizer.chat_template"])
    ends = {None, int(model.metadata["tokenizer.ggml.eos_token_id"])}
    trained = set()
    for split in ("train", "validation"):
        for ids, _ in shards(tinylm.artifact(f"{name}_shards"), split):
            trained.add(tuple(ids))
            if ids[-1] in ends:
                trained.add(tuple(ids[:-1]))
    n_same, first = 0, None
    for document in documents:
        text = template.render(messages=document)
        ids = tuple(model.tokenize(text.encode(), add_bos=False, special=True))
        n_same += ids in trained
        if ids not in trained and first is None:
            first = (text, [model.detokenize([id], special=True) for id in ids])
    return n_same, first


class Exporter(Program):
    def bos(self, name):
        return json.loads((self.artifact(name) / "generation.json").read_text())["bos_id"]


def opened(path):
    # Buffers in the layout of AMX end llama.cpp with a protection fault on virtual machines that show
    # AMX and do not grant it, whatever file is read.
    usual = llama_cpp.llama_cpp.llama_model_default_params

    def without_extra_buffers():
        params = usual()
        params.use_extra_bufts = False
        return params

    llama_cpp.llama_cpp.llama_model_default_params = without_extra_buffers
    try:
        return model(path)
    finally:
        llama_cpp.llama_cpp.llama_model_default_params = usual


def model(path):
    return llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=2, n_batch=256)


def compare(tinylm, name, documents):
    gaps, n_answers = {}, {}
    for numbers, allowed in ALLOWED.items():
        out = tinylm.work / f"{name}-{numbers}"
        told = tinylm("export", f"@last/{name}", "--to", "gguf", "--precision", numbers, "--out", out).splitlines()
        model = opened(out / "model.gguf")
        gaps[numbers], n_answers[numbers] = difference(tinylm, name, model)
        if numbers == "f32":
            claim = told[0].split(": ", 1)[1]
            architecture = told[0].split(":")[0].split(",")[0]
            n_same, first = same_ids(tinylm, name, model, documents)
    shown = ", ".join(f"{numbers} {gap:.1e}" for numbers, gap in gaps.items())
    print(f"| {name} | {architecture} | {claim} | {shown} | {n_answers['f32']}/{len(PROMPTS)} | {n_same}/{len(documents)} |", flush=True)
    if first:
        print("  ", first)
    is_near = claim.startswith("approximate")
    good = all(is_near or gaps[numbers] < allowed for numbers, allowed in ALLOWED.items())
    return good and (is_near or n_answers["f32"] == len(PROMPTS))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--only")
    parser.add_argument("--tokenizer", type=Path, action="append", default=[])
    args = parser.parse_args()
    for path in args.tokenizer:
        for template in ["start-end", "chatml", "tags", "plain"]:
            MODELS[f"{path.resolve().parent.name}_{template.replace('-', '_')}"] = ("llama-tiny", "", path.resolve(), template)
    models = {name: model for name, model in MODELS.items() if not args.only or args.only in name}
    documents = list(dialogues(1000))
    with tempfile.TemporaryDirectory(prefix="gguf-peer-") as work:
        work = Path(work)
        (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in documents))
        text = EXPERIMENT
        for name, (preset, edits, algorithm, template) in models.items():
            usual = ["" if "d_model" in edits else NARROW, "" if "n_kv_heads" in edits else "n_kv_heads: 4"]
            edits = "".join(f", {edit}" for edit in [edits, *usual] if edit)
            tokenizer = (GIVEN if isinstance(algorithm, Path) else TRAINED).format(algorithm, template)
            text += STAGES.format(name=name, preset=preset, edits=edits, tokenizer=tokenizer)
        (work / "peers.yaml").write_text(text)
        tinylm = Exporter(args.tinylm.resolve(), work)
        tinylm("run", "peers.yaml", "-q")
        print("| model | architecture | claim | difference | greedy | ids |\n| --- | --- | --- | --- | --- | --- |", flush=True)
        results = [compare(tinylm, name, documents) for name in models]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
