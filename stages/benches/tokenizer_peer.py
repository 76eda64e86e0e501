"""Holds the ids that tinylm writes against those of the released `tokenizers`.

    python tokenizer_peer.py --tinylm ../../target/release/tinylm --data FOLDER [--texts 20000]

For every kind of tokenizer, tinylm makes one (trained on what FOLDER holds, or from the
files of an existing one in it) and shards of fuzzed texts. The shards are read with
`numpy.memmap`; the artifact's `tokenizer.json` is read by the released library, which
must give the same ids for the same texts. Where the library can read an existing tokenizer
without us (its own `tokenizer.json`, its two files), those ids must be the same as well.

One difference is meant: where a text spells a special token that is an ordinary piece of
the model too (T5's `</s>`), the library writes the token's id and tinylm spells it out.
Those texts are counted apart, and must hold no special id. Exits with 1 on any other
difference. Of a `.model` it is only said how often SentencePiece's own library agrees: the
released one differs from it where marks combine, and where a text holds `▁` or `<unk>`.

Characters are those of Unicode 3.2: what later versions added is classed by each library as
the version that it was built with does. Needs numpy, tokenizers and sentencepiece.
"""

import argparse
import json
import random
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


def fuzzed(words, n, seed=1):
    """Words, strange strings and characters of every script; none blank, none with a NUL."""
    rng = random.Random(seed)
    category = unicodedata.ucd_3_2_0.category
    assigned = [chr(c) for c in range(1, 0x110000) if category(chr(c)) not in ("Cs", "Cn", "Co")]
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
  learnt: {{ kind: normalize, inputs: [corpus], with: {{ template: plain }} }}
  texts:  {{ kind: normalize, inputs: [fuzz], with: {{ template: plain, format: text, rejects_max: 0.0 }} }}
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
    settings = {name: f"{{ pretrained: {{ path: {path} }} }}" for name, path in pretrained.items()}
    for algorithm in ["byte-level-bpe", "sentencepiece-bpe", "unigram", "wordpiece", "word-level"]:
        settings[algorithm.replace("-", "_")] = f"{{ algorithm: {algorithm}, vocab_size: 2000 }}"
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


def compare(texts, folder, original, of_sentencepiece):
    """Returns how many texts differ, and what to say of them."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    generation = json.loads((folder / "generation.json").read_text())
    unknown = json.loads((folder / "tokenizer.json").read_text())["model"].get("unk_token")
    specials = {id for token, id in generation["specials"].items() if token not in (unknown, "<unk>")}
    ours = list(shards(folder))
    if len(ours) != len(texts):
        return 1, f"{len(texts)} texts became {len(ours)} documents"
    theirs = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    n_tokens, n_respelt, bad = 0, 0, []
    for text, a, b in zip(texts, ours, theirs):
        n_tokens += len(a)
        if specials.intersection(b):
            n_respelt += 1
            if specials.intersection(a):
                bad.append((text, a, b))
        elif a != b:
            bad.append((text, a, b))
        elif original and original(text) != a:
            bad.append((text, a, original(text)))
    if bad:
        text, a, b = min(bad, key=lambda case: len(case[0]))
        print(f"  {text!r}\n    tinylm {a}\n    other  {b}")
    said = f"{n_tokens} ids of {len(texts)} texts: {len(bad)} texts differ, {n_respelt} re-spelt"
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
        texts = fuzzed(words, args.texts)
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
            n, said = compare(texts, folder, originals(data, name), sentencepiece_of(data, name))
            print(f"{name:18} {said}", flush=True)
            n_bad += n
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
