"""Holds `evaluate`'s tasks against lm-evaluation-harness: the same questions, asked of the same model.

    python3 stages/benches/tasks_peer.py FOLDER TASKS.jsonl DATA... [TASK=SHOTS...] [server=URL]

FOLDER is the model as `tinylm export --to hf` writes it, TASKS.jsonl the file that `evaluate` wrote
(`tinylm cache path RUN/STAGE`), DATA the folders with the tasks' files. Needs `lm-eval`, `torch` and
`transformers` from PyPI. Prompts are put together here once more, with Python's own `random`; the
log-probability of each answer comes from lm-evaluation-harness's model, and CORE's rule (the mean loss
of the tokens where the prompts of a question part) is stated again on transformers' logits. With `server`
(such as http://127.0.0.1:8080) the harness asks `tinylm serve` of the same model through `local-completions`.
"""

import json
import pathlib
import random
import sys

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

ANSWER = "\nAnswer: "
CORE = {
    "arc_easy": (10, ANSWER), "arc_challenge": (10, ANSWER), "piqa": (10, ANSWER), "boolq": (10, ANSWER),
    "commonsense_qa": (10, " "),
}


def solved(row, between):
    if "choices" in row:
        return row["query"] + between + row["choices"][row["gold"]]
    if "context_options" in row:
        return row["context_options"][row["gold"]] + between + row["continuation"]
    return row["context"].strip() + between + row["continuation"]


def pairs(row, before, between):
    """The contexts and answers of a question."""
    if "sentence_good" in row:
        return [("", row["sentence_good"]), ("", row["sentence_bad"])]
    if "choices" in row:
        return [(before + row["query"] + between, choice) for choice in row["choices"]]
    if "context_options" in row:
        return [(before + context + between, row["continuation"]) for context in row["context_options"]]
    return [(before + row["context"].strip() + between, row["continuation"])]


def split(context, answer):
    """Spaces at the end of a context belong to the answer, as the harness has it."""
    n = len(context) - len(context.rstrip())
    return (context[:-n], context[-n:] + answer) if n else (context, answer)


def mean_losses(model, texts, is_schema):
    tokens = [model.tok_encode(context + answer) for context, answer in texts]
    bos = model.tokenizer.bos_token_id if getattr(model.tokenizer, "add_bos_token", False) else None
    tokens = [([bos] if bos is not None and ids[0] != bos else []) + ids for ids in tokens]
    step = -1 if is_schema else 1
    common = 0
    while all(len(ids) > common and ids[::step][common] == tokens[0][::step][common] for ids in tokens):
        common += 1
    losses = []
    for ids in tokens:
        start = len(ids) - common if is_schema else common
        start = max(start, 1)
        ids = torch.tensor([ids])
        with torch.no_grad():
            logits = model.model(ids[:, :-1]).logits.log_softmax(-1)
        picked = logits[0, torch.arange(ids.shape[1] - 1), ids[0, 1:]]
        losses.append(-picked[start - 1:].mean().item())
    return losses


def main():
    folder, told, *rest = sys.argv[1:]
    data = [word for word in rest if "=" not in word]
    asked_shots = dict(word.split("=") for word in rest if "=" in word)
    server = asked_shots.pop("server", None)
    if server:
        model = LocalCompletionsAPI(base_url=f"{server}/v1/completions", tokenizer=folder, num_concurrent=8, batch_size=4)
    else:
        model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    by_task = {}
    for line in open(told):
        line = json.loads(line)
        by_task.setdefault(line["task"], []).append(line)
    files = {path.stem: path for root in data for path in pathlib.Path(root).rglob("*.jsonl")}
    worst, n_answers, n_parted = 0.0, 0, 0
    for task, ours in by_task.items():
        rows = [json.loads(line) for line in open(files[task]) if line.strip()]
        random.Random(1337).shuffle(rows)
        rows = rows[: len(ours)]
        shots, between = CORE.get(task, (0, " "))
        shots = int(asked_shots.get(task, shots))
        asked, n_of = [], []
        for at, row in enumerate(rows):
            others = [idx for idx in range(len(rows)) if idx != at]
            drawn = random.Random(1234 + at).sample(others, shots)
            before = "".join(solved(rows[idx], between) + "\n\n" for idx in drawn)
            texts = pairs(row, before, between)
            asked += [split(*text) for text in texts]
            n_of.append(len(texts))
            if not server and ("choices" in row or "context_options" in row):
                losses = mean_losses(model, texts, "context_options" in row)
                is_right = losses.index(min(losses)) == row["gold"]
                n_parted += is_right != ours[at]["right_by_mean"]
        theirs = model.loglikelihood(
            [Instance("loglikelihood", {}, text, idx) for idx, text in enumerate(asked)], disable_tqdm=True
        )
        answers = [answer for line in ours for answer in line["answers"]]
        assert len(answers) == len(theirs), (task, len(answers), len(theirs))
        gap = max(abs(mine["log_probability"] - other[0]) for mine, other in zip(answers, theirs))
        worst, n_answers = max(worst, gap), n_answers + len(answers)
        print(f"{task:32} {len(ours):5} examples {len(answers):6} answers, apart by at most {gap:.1e}")
    print(f"all: {n_answers} answers, apart by at most {worst:.1e}; {n_parted} questions judged otherwise by the mean")


main()
