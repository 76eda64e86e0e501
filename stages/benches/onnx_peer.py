"""Exports as onnxruntime runs them, against what tinylm itself computes.

    python -m venv v && v/bin/pip install onnx onnxruntime tokenizers numpy
    v/bin/python stages/benches/onnx_peer.py --tinylm target/release/tinylm [--only NAME]

For every preset and every setting a tiny model is trained, exported, checked by `onnx.checker` and run. A line says:
the largest difference of log-probabilities, of tokens fed one by one from those fed at once, and of prompts in a batch
filled on the left from those alone; then whether the greedy answers are the same. Where optimum is installed, its
`ORTModelForCausalLM` answers too. Exits with 1 if any of it is not as it should be.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

try:
    import numpy
    import onnx
    import onnxruntime
    import tokenizers
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))
try:
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM
except ImportError as error:
    ORTModelForCausalLM = None
    print(f"SKIPPED optimum: {error}")

from peer import N_TOKENS, PROMPTS, dialogues, trained

ALLOWED = 1e-4


class Graph:
    """A model, whose cache this class keeps as other programs do."""

    def __init__(self, folder):
        path = folder / "onnx" / "model.onnx"
        onnx.checker.check_model(onnx.load(path), full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        config = json.loads((folder / "config.json").read_text())
        self.n_layers = config["num_hidden_layers"]
        self.cache_shape = config["num_key_value_heads"], 0, config["head_dim"]

    def empty(self, n_rows):
        return [numpy.zeros((n_rows, *self.cache_shape), dtype=numpy.float32)] * 2 * self.n_layers

    def __call__(self, ids, mask, past):
        """The logits of some rows of new ids, and the cache behind them. The mask is of all ids, the old too."""
        positions = numpy.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :]
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        names = [f"{idx}.{what}" for idx in range(self.n_layers) for what in ("key", "value")]
        inputs |= {f"past_key_values.{name}": cache for name, cache in zip(names, past)}
        logits, *present = self.session.run(["logits"] + [f"present.{name}" for name in names], inputs)
        return logits, present

    def row(self, ids):
        ids = numpy.array([ids])
        return self(ids, numpy.ones_like(ids), self.empty(1))[0][0]

    def one_by_one(self, ids):
        past, rows = self.empty(1), []
        for n, token in enumerate(ids, 1):
            logits, past = self(numpy.array([[token]]), numpy.ones((1, n), dtype=numpy.int64), past)
            rows.append(logits[0, 0])
        return numpy.array(rows)

    def greedy(self, prompts):
        """Continuations of prompts of several lengths in one batch, filled on the left with what must not count."""
        n_most = max(map(len, prompts))
        ids = numpy.array([[7] * (n_most - len(prompt)) + prompt for prompt in prompts])
        mask = numpy.array([[0] * (n_most - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        past, steps, made = self.empty(len(prompts)), [], []
        for _ in range(N_TOKENS):
            logits, past = self(ids, mask, past)
            steps.append(logits[:, -1])
            ids = steps[-1].argmax(-1)[:, None]
            made.append(ids)
            mask = numpy.concatenate([mask, numpy.ones_like(ids)], -1)
        return numpy.concatenate(made, -1), numpy.stack(steps, 1)


def logs(logits):
    logits = logits.astype(numpy.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


def optimums(folder, prompts):
    """The continuations that optimum makes."""
    model = ORTModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = None
    made = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=N_TOKENS)
        made.append(out[0, len(prompt) :].tolist())
    return made


def compare(tinylm, name):
    out = tinylm.work / f"{name}-onnx"
    tinylm("export", f"@last/{name}", "--to", "onnx", "--out", out)
    graph = Graph(out)
    tokenizer = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    n_vocab = tokenizer.get_vocab_size()
    prompts = [tokenizer.encode(prompt).ids for prompt in PROMPTS]
    ours = [tinylm.steps(f"@last/{name}", prompt, n_vocab) for prompt in PROMPTS]
    gaps = numpy.zeros(3)
    for prompt, (ids, expected) in zip(prompts, ours):
        whole = graph.row(prompt + ids[:-1])
        here = abs(logs(whole[len(prompt) - 1 :]) - expected).max()
        cached = abs(graph.one_by_one(prompt + ids[:-1]) - whole).max()
        gaps = numpy.maximum(gaps, [here, cached, 0])
    made, steps = graph.greedy(prompts)
    for row, (ids, expected) in zip(steps, ours):
        gaps[2] = max(gaps[2], abs(logs(row) - expected).max())
    answers = [ids for ids, _ in ours]
    n_same = sum(row.tolist() == ids for row, ids in zip(made, answers))
    theirs = optimums(out, prompts) if ORTModelForCausalLM else answers
    n_theirs = sum(row == ids for row, ids in zip(theirs, answers))
    shown = " | ".join(f"{gap:.1e}" for gap in gaps)
    print(f"| {name} | {shown} | {n_same}/{len(prompts)} | {n_theirs if ORTModelForCausalLM else '-'}/{len(prompts)} |", flush=True)
    return max(gaps) < ALLOWED and n_same == n_theirs == len(prompts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnx-peer-") as work:
        tinylm, names = trained(args.tinylm, Path(work), args.only, list(dialogues(200)))
        print("| model | difference | one by one | filled | greedy | optimum |\n| --- | --- | --- | --- | --- | --- |", flush=True)
        results = [compare(tinylm, name) for name in names]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
