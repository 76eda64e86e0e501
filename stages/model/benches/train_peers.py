"""Training beside PyTorch: the same steps, in turn, on the same two threads.

    python -m venv v && v/bin/pip install torch numpy
    cargo bench -p tinylm-model --bench train_step --no-run     # prints the program's path
    v/bin/python stages/model/benches/train_peers.py PROGRAM [NAME=VALUE ...], with

    rounds=3  steps=3  threads=2  models=mini,m41,forty-one  precisions=f32,bf16  modes=eager,compile
    dropout=0  documents=1  accumulate=1

Each of them is started once, takes its warm-up steps and waits; then a round is some steps of
ours, of PyTorch eager and of torch.compile, one after the other, so that all three see the same
machine. Prints the medians over the rounds, and the ratio of each round's numbers, its median
beside what the project aims at. Wants a machine with nothing else to do.
"""

import json
import os
import statistics
import subprocess
import sys
import time

DEFAULTS = {
    "rounds": "3", "steps": "3", "threads": "2", "models": "mini,m41,forty-one",
    "precisions": "f32,bf16", "modes": "eager,compile",
    "dropout": "0", "documents": "1", "accumulate": "1",
}

# What tokens per second are to be, compared with eager; torch.compile is to be passed.
AIMS = {
    ("mini", "f32"): 1.3, ("m41", "f32"): 1.08, ("forty-one", "f32"): 1.1,
    ("mini", "bf16"): 1.5, ("m41", "bf16"): 1.25, ("forty-one", "bf16"): 1.25,
}
MEMORY_AIM = 0.65


class Trainer:
    """A program that takes its steps when a line tells it to."""

    def __init__(self, command, settings):
        args = [f"{name}={value}" for name, value in settings.items()] + ["wait=yes"]
        self.results = []
        self.process = subprocess.Popen(
            command + args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def round(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.startswith("{"):
            sys.exit(f"{self.process.args}: {line.strip() or 'ended without a result'}")
        self.results.append(json.loads(line))

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def speeds(self):
        return [result["tokens_per_second"] for result in self.results]

    def peak(self):
        return self.results[-1]["peak_mb"]


def compare(program, model, precision, asked):
    shared = {name: asked[name] for name in ["steps", "threads", "dropout", "documents", "accumulate"]}
    shared |= {"model": model, "precision": precision}
    peer = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_peer.py")]
    trainers = {"ours": Trainer([program], shared)}
    for mode in asked["modes"].split(","):
        trainers[mode] = Trainer(peer, shared | {"mode": mode})
        # Not two at once: compiling would share the cores with the others' warm-up.
        trainers[mode].round()
        trainers[mode].results.clear()
    for _ in range(int(asked["rounds"])):
        for trainer in trainers.values():
            trainer.round()
    for trainer in trainers.values():
        trainer.end()
    return trainers


def row(model, precision, trainers):
    ours = trainers["ours"]
    cells = [model, precision, f"{statistics.median(ours.speeds()):.0f}"]
    for mode, trainer in trainers.items():
        if mode != "ours":
            ratio = statistics.median(a / b for a, b in zip(ours.speeds(), trainer.speeds()))
            aim = AIMS[model, precision] if mode == "eager" else 1.0
            memory = ours.peak() / trainer.peak()
            cells += [
                f"{statistics.median(trainer.speeds()):.0f}",
                f"{ratio:.2f} (aim {aim}{'' if ratio >= aim else ', MISSED'})",
                f"{ours.peak()} / {trainer.peak()} = {memory:.2f}"
                + ("" if memory <= MEMORY_AIM else f" (aim {MEMORY_AIM}, MISSED)"),
            ]
    return "| " + " | ".join(cells) + " |"


def main():
    program, asked, since = sys.argv[1], dict(DEFAULTS), time.time()
    for arg in sys.argv[2:]:
        name, value = arg.split("=")
        if name not in DEFAULTS:
            sys.exit(f"there is no `{name}` to set")
        asked[name] = value
    head = ["model", "precision", "ours, tokens/s"]
    for mode in asked["modes"].split(","):
        head += [mode, f"to {mode}", "peak MB"]
    print(" ".join(f"{name}={value}" for name, value in asked.items()))
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|", flush=True)
    for model in asked["models"].split(","):
        for precision in asked["precisions"].split(","):
            print(row(model, precision, compare(program, model, precision, asked)), flush=True)
    print(f"{(time.time() - since) / 60:.1f} minutes")


main()
