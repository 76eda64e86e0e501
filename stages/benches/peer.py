"""What the peers of exports share: dialogues, shards, and the program itself. Needs numpy alone, since two libraries
with threads of their own (torch, llama.cpp) do not always bear each other in one process."""

import json
import random
import subprocess
import sys

import numpy

ODD = ["  two spaces", "\n\n\nlines", " \n both", "\ttab\t", "behind  ", "behind\n\n", "!", "naïve 日本語 🦀", "a   b\n\n\nc", "it's \"5\""]
PROMPTS = ["who are you", "The name of", "a", "Near our house ."]
N_TOKENS = 24

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


class Program:
    def __init__(self, path, work):
        self.path, self.work = path, work

    def __call__(self, *args):
        done = subprocess.run([self.path, *args], cwd=self.work, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, args))}\n{done.stdout}{done.stderr}")
        return done.stdout

    def artifact(self, stage):
        return self.work / self("cache", "path", f"@last/{stage}").strip()

    def steps(self, model, prompt, n_vocab):
        """The ids of a greedy continuation and the log-probabilities of all tokens at each step."""
        words = ["-n", str(N_TOKENS), "--nonstop", "--text", "--temperature", "0", "--json", "--show-steps", str(n_vocab)]
        [answer] = json.loads(self("sample", model, "-p", prompt, *words))
        table = numpy.zeros((len(answer["steps"]), n_vocab))
        for row, step in zip(table, answer["steps"]):
            for candidate in step["candidates"]:
                row[candidate["id"]] = candidate["probability"]
        return [step["id"] for step in answer["steps"]], numpy.log(table)


def size(preset, edits):
    kv = "" if "n_kv_heads" in edits else ", n_kv_heads: 4"
    d_ff = "" if "d_ff" in edits else ", d_ff: 128"
    return SIZE + kv + d_ff, f", {edits}" if edits else ""


def trained(path, work, only, documents):
    """The program, in a folder where all models, or one of them, are trained, and their names."""
    models = {name: model for name, model in MODELS.items() if only in (None, name)}
    (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in documents))
    text = EXPERIMENT
    for name, (preset, edits) in models.items():
        sizes, edits = size(preset, edits)
        text += STAGES.format(name=name, preset=preset, size=sizes, edits=edits)
    (work / "peers.yaml").write_text(text)
    tinylm = Program(path.resolve(), work)
    tinylm("run", "peers.yaml", "-q")
    return tinylm, list(models)
