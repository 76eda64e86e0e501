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
