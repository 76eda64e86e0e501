"""Holds the ids that tinylm writes against those of the released `tokenizers`.

    python tokenizer_peer.py --tinylm ../../target/release/tinylm --data FOLDER [--texts 20000]

For every kind of tokenizer, tinylm makes one (trained on what FOLDER holds, or from the
files of an existing one in it) and shards of fuzzed texts, and of every character there is
inside, around and beside words. The shards are read with `numpy.memmap`; the artifact's
`tokenizer.json` is read by the released library, which must give the same ids for the same
texts. Where the library can read an existing tokenizer without us (its own `tokenizer.json`,
its two files), those ids must be the same as well. Two differences are known, and held to:

- Where a text spells a special token that is an ordinary piece of the model too (T5's
  `</s>`), the library writes the token's id, and tinylm the same few ids each time, which
  spell it out. Everything around them must be the same.
- WordPiece cuts at punctuation, and the released library goes by Unicode 8, release
  candidate 3 by today's. That must show for each of `PUNCTUATION_SINCE` and for nothing else.

Characters are those of Python's own Unicode, 14 in Python 3.10 and 3.11: what 16 and 17 added is
a letter to release candidate 3 and not yet to the released library.

Exits with 1 on any other difference. Of a `.model` it is only said how often SentencePiece's
own library agrees: the released one differs from it where marks combine, and where a text
holds `▁` or `<unk>`. Needs numpy, tokenizers and sentencepiece.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy
import sentencepiece
from tokenizers import ByteLevelBPETokenizer, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

STRANGE = ["\u0301", "\u00a0", "\u200b", "\u200d", "\ufeff", "\t", "\n", "\n\n", "\r\n", "\r", "  ", "   ", "\x07", "ﬁ", "①", "½",
           "…", "—", "İ", "ǅ", "▁", "▁▁", "##", "Ġ", "<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>",
           "<|endoftext|>", "<extra_id_0>", "<0x41>", "'s", "'S", "''", "'re", "!!!", "👩‍👩‍👧", "🇩🇪", "e\u0301", "한국어", "ก็", "नमस्ते"]


def ranges(text):
    ends = [[int(end, 16) for end in span.split("-")] for span in text.split()]
    return {chr(c) for span in ends for c in range(span[0], span[-1] + 1)}


# What has become punctuation since Unicode 8, or is none any more (U+166D, U+111C9).
PUNCTUATION_SINCE = ranges("""61d 9fd a76 c77 c84 166d 1b7d-1b7e 2e43-2e4f 2e52-2e5d 10ead 10f55-10f59 10f86-10f89 111c9
    1144b-1144f 1145a-1145b 1145d 11660-1166c 116b9 1183b 11944-11946 119e2 11a3f-11a46 11a9a-11a9c 11a9e-11aa2 11c41-11c45
    11c70-11c71 11ef7-11ef8 11fff 12ff1-12ff2 16e97-16e9a 16fe2 1e95e-1e95f""")


def characters():
    """Every character but the NUL that Python knows, and a thousand for private use."""
    everything = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    known = [c for c in everything if unicodedata.category(c) not in ("Cn", "Co")]
    private = [c for c in everything if unicodedata.category(c) == "Co"]
    return known + random.Random(1).sample(private, 1000)


def alone(c):
    """A character inside a word, at its start and end, between digits, and alone."""
    return f"x{c}y {c}z w{c} {c} 1{c}2"


def fuzzed(words, assigned, n, seed=1):
    """Words, strange strings and characters of every script; none blank, none with a NUL."""
    rng = random.Random(seed)
    texts = set()
    while len(texts) < n:
        parts = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.5:
                parts.append(rng.choice(words))
            elif kind < 0.7:
                parts.append(rng.choice(STRANGE))
            elif kind < 0.9:
                parts.append(chr(rng.randint(32, 126)))
            else:
                parts.append(rng.choice(assigned))
        text = rng.choice(["", " ", " "]).join(parts)
        if text.strip():
            texts.add(text)
    return sorted(texts)


# No crate knows this pattern by heart (nanochat's).
PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


def of_a_pattern(text, path):
    """Writes a tokenizer that cuts words by a pattern of its own."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.save(str(path))


EXPERIMENT = """
name: peers
stages:
  corpus: {{ kind: download, with: {{ path: {data}/tinyshakespeare/input.txt }} }}
  fuzz:   {{ kind: download, with: {{ path: texts.jsonl }} }}
  learnt: {{ kind: normalize, inputs: [corpus] }}
  texts:  {{ kind: normalize, inputs: [fuzz], with: {{ format: text, rejects_max: 0.0 }} }}
"""
STAGES = """
  {name}: {{ kind: tokenizer, inputs: [learnt], with: {settings} }}
  {name}_shards: {{ kind: binarize, inputs: {{ documents: texts, tokenizer: {name} }}, with: {{ rejected_max: 0.0 }} }}
"""


def settings_of(data, work):
    """The settings of each tokenizer; some of them from files in a folder of their own."""
    gpt2, t5 = data / "gpt2_tokenizer", data / "t5_tokenizer"
    for folder, names in {
        "gpt2": [(gpt2 / "gpt2_vocab.json", "vocab.json"), (gpt2 / "gpt2_merges.txt", "merges.txt")],
        "gpt2_old": [(gpt2 / "encoder.json", "encoder.json"), (gpt2 / "vocab.bpe", "vocab.bpe")],
        "t5_model": [(t5 / "spiece.model", "spiece.model")],
    }.items():
        (work / folder).mkdir()
        for file, name in names:
            shutil.copy(file, work / folder / name)
    pretrained = {
        "gpt2": work / "gpt2",
        "gpt2_old": work / "gpt2_old",
        "t5": t5 / "tokenizer.json",
        "t5_model": work / "t5_model",
        "sentencepiece": data / "sentencepiece" / "test_model.model",
        "shakespeare": data / "bytebpe_shakespeare_8000",
        "of_a_pattern": work / "of_a_pattern.json",
    }
    of_a_pattern((data / "tinyshakespeare" / "input.txt").read_text(), pretrained["of_a_pattern"])
    settings = {name: f"{{ pretrained: {{ path: {path} }}, template: plain }}" for name, path in pretrained.items()}
    for algorithm in ["byte-level-bpe", "sentencepiece-bpe", "unigram", "wordpiece", "word-level"]:
        settings[algorithm.replace("-", "_")] = f"{{ algorithm: {algorithm}, vocab_size: 2000, template: plain }}"
    return settings


def originals(data, name):
    """How the library encodes with an existing tokenizer without us, where it can."""
    if name == "t5":
        tokenizer = Tokenizer.from_file(str(data / "t5_tokenizer" / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    if name in ("gpt2", "gpt2_old", "shakespeare"):
        folder = data / ("bytebpe_shakespeare_8000" if name == "shakespeare" else "gpt2_tokenizer")
        files = [folder / f"{'' if name == 'shakespeare' else 'gpt2_'}{file}" for file in ("vocab.json", "merges.txt")]
        tokenizer = ByteLevelBPETokenizer(*map(str, files))
        return lambda text: tokenizer.encode(text).ids
    return None


def sentencepiece_of(data, name):
    path = {"t5_model": "t5_tokenizer/spiece.model", "sentencepiece": "sentencepiece/test_model.model"}.get(name)
    return path and sentencepiece.SentencePieceProcessor(model_file=str(data / path)).encode


def shards(folder):
    """The ids of each document of the training split, without the mark at its end."""
    record = numpy.dtype([("start", "<u8"), ("bytes", "<u4"), ("source", "<u2")])
    for path in sorted(folder.glob("train-*.bin")):
        ids = numpy.memmap(path, dtype=numpy.uint16, mode="r")
        starts = numpy.fromfile(path.with_suffix(".idx"), dtype=record)["start"].tolist()
        for start, end in zip(starts, starts[1:] + [len(ids)]):
            yield ids[start : end - 1].tolist()


def artifact(command, work, stage):
    said = subprocess.run([*command, "cache", "path", f"@last/{stage}"], check=True, cwd=work, capture_output=True, text=True)
    return Path(said.stdout.strip())


class Spellings:
    """The ids in which a special token is spelt out, seen once and held to everywhere."""

    def __init__(self, tokenizer, folder):
        generation = json.loads((folder / "generation.json").read_text())
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        unknown = model.get("unk_token") or "<unk>"
        self.unknown = tokenizer.token_to_id(unknown)
        self.specials = {id: token for token, id in generation["specials"].items() if token != unknown}
        self.tokenizer = tokenizer
        self.known = {}

    def learn(self, ours, theirs):
        """Looks at a text where one special token came out, once."""
        [place] = [place for place, id in enumerate(theirs) if id in self.specials]
        spelt = ours[place : len(ours) - (len(theirs) - place - 1)]
        # What the vocabulary has no piece for, as T5's has none for `<`, is unknown.
        pieces = [".+" if id == self.unknown else re.escape(self.tokenizer.id_to_token(id)) for id in spelt]
        if re.fullmatch("".join(pieces), self.specials[theirs[place]]) and not self.specials.keys() & set(spelt):
            self.known[theirs[place]] = spelt

    def put_into(self, ids):
        return [spelt for id in ids for spelt in self.known.get(id, [id])]


def compare(texts, folder, original, of_sentencepiece, anew):
    """Returns how many texts differ, and what to say of them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ours = list(shards(folder))
    if len(ours) != len(texts):
        return 1, f"{len(texts)} texts became {len(ours)} documents"
    theirs = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    spellings = Spellings(tokenizer, folder)
    n_specials = [sum(id in spellings.specials for id in ids) for ids in theirs]
    for a, b, n in zip(ours, theirs, n_specials):
        if n == 1:
            spellings.learn(a, b)
    bad, apart = [], set()
    for text, a, b in zip(texts, ours, theirs):
        if a != spellings.put_into(b):
            if anew.isdisjoint(text):
                bad.append((text, a, b))
            else:
                apart.add(text)
        elif original and a != spellings.put_into(original(text)):
            bad.append((text, a, original(text)))
    if bad:
        text, a, b = min(bad, key=lambda case: len(case[0]))
        print(f"  {text!r}\n    tinylm {a}\n    other  {b}")
    n_tokens, n_respelt = sum(map(len, ours)), sum(n > 0 for n in n_specials)
    said = f"{n_tokens} ids of {len(texts)} texts: {len(bad)} texts differ, {n_respelt} re-spelt"
    if anew:
        alike = [c for c in anew if alone(c) not in apart]
        said += f", {len(apart)} hold one of {len(anew)} characters classed anew"
        bad += alike
        if alike:
            said += f", of which {len(alike)} make no difference: {sorted(alike)}"
    if original:
        said += "; the original's too"
    if of_sentencepiece:
        n_agreed = sum(of_sentencepiece(text) == ids for text, ids in zip(texts, ours))
        said += f"; {n_agreed} as SentencePiece itself"
    return len(bad), said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tinylm", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--texts", type=int, default=20_000)
    args = parser.parse_args()
    data = args.data.resolve()

    with tempfile.TemporaryDirectory(prefix="tokenizer-peer-") as folder:
        work = Path(folder)
        words = (data / "tinyshakespeare" / "input.txt").read_text().split()
        assigned = characters()
        texts = fuzzed(words, assigned, args.texts) + [alone(c) for c in assigned]
        lines = [json.dumps({"text": text}) for text in texts]
        (work / "texts.jsonl").write_text("\n".join(lines) + "\n")
        settings = settings_of(data, work)
        experiment = EXPERIMENT.format(data=data)
        experiment += "".join(STAGES.format(name=name, settings=text) for name, text in settings.items())
        (work / "peers.yaml").write_text(experiment)
        command = [args.tinylm.resolve(), "--home", work / "home", "--quiet"]
        subprocess.run([*command, "run", "peers.yaml"], check=True, cwd=work, stdout=subprocess.DEVNULL)
        n_bad = 0
        for name in settings:
            folder = artifact(command, work, f"{name}_shards")
            anew = PUNCTUATION_SINCE if name == "wordpiece" else set()
            n, said = compare(texts, folder, originals(data, name), sentencepiece_of(data, name), anew)
            print(f"{name:18} {said}", flush=True)
            n_bad += n
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
