"""The training step of `train_step.rs` in PyTorch: same model, batch, AdamW and clipping.

usage: torch_peer.py [NAME=VALUE ...], with

    model=mini      mini, m41, forty-one, 124m
    rows=0          of a batch, instead of the model's own
    precision=f32   f32, bf16 (autocast)
    mode=eager      eager, compile
    device=cpu      or cuda: on a GPU `compile` is mode="reduce-overhead", which replays CUDA graphs
    steps=8  threads=2  dropout=0  documents=1  accumulate=1  wait=no

which mean what they mean there. One a process, so that the peak memory is its own. Needs
`pip install torch` and as many free cores as threads.
"""

import json
import math
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

WARM_UP = 2

#            rows len  d    heads layers ff    vocab
SHAPES = {
    "mini": (16, 128, 256, 4, 4, 1024, 8000),
    "m41": (8, 256, 512, 8, 8, 2048, 16000),
    "forty-one": (32, 80, 420, 6, 6, 2000, 32105),
    "124m": (64, 1024, 768, 12, 12, 3072, 50257),
}

DEFAULTS = {
    "model": "mini", "rows": 0, "precision": "f32", "mode": "eager", "steps": 8, "threads": 2,
    "dropout": 0.0, "documents": 1, "accumulate": 1, "wait": "no", "device": "cpu",
}


class Block(nn.Module):
    def __init__(self, d, heads, ff, norm, approximate, dropout):
        super().__init__()
        self.heads, self.approximate, self.dropout = heads, approximate, dropout
        self.norm1, self.norm2 = norm(d), norm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, ff), nn.Linear(ff, d)

    def forward(self, x, mask):
        b, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout, is_causal=mask is None
        )
        x = x + self.drop(self.proj(y.transpose(1, 2).reshape(b, t, c)))
        hidden = self.drop(F.gelu(self.up(self.norm2(x)), approximate=self.approximate))
        return x + self.drop(self.down(hidden))

    def drop(self, x):
        return F.dropout(x, self.dropout) if self.dropout else x


class Model(nn.Module):
    def __init__(self, name, dropout):
        super().__init__()
        _, t, d, heads, layers, ff, vocab = SHAPES[name]
        forty = name == "forty-one"
        norm = nn.RMSNorm if forty else nn.LayerNorm
        self.scale = math.sqrt(d) if forty else 1.0
        self.dropout = dropout
        self.embed = nn.Embedding(vocab, d)
        table = torch.zeros(t, d)
        if forty:
            angle = torch.arange(t)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
        self.positions = nn.Parameter(table, requires_grad=not forty)
        approximate = "none" if forty else "tanh"
        blocks = (Block(d, heads, ff, norm, approximate, dropout) for _ in range(layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm(d)
        self.head = nn.Linear(d, vocab, bias=forty)

    def forward(self, x, y, at, mask):
        positions = self.positions if at is None else self.positions[at]
        x = self.embed(x) * self.scale + positions
        if self.dropout:
            x = F.dropout(x, self.dropout)
        for block in self.blocks:
            x = block(x, mask)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


class Training:
    def __init__(self, asked):
        torch.manual_seed(0)
        rows, t, *_, vocab = SHAPES[asked["model"]]
        rows = asked["rows"] or rows
        self.device = torch.device(asked["device"])
        model = Model(asked["model"], asked["dropout"]).to(self.device)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        ids = lambda: torch.randint(0, vocab, (rows, t)).to(self.device)
        self.micro_batches = [(ids(), ids()) for _ in range(asked["accumulate"])]
        # Documents of about the same length: each sees only itself, and its positions begin at 0.
        self.at, self.mask = None, None
        if asked["documents"] > 1:
            place = torch.arange(t, device=self.device)
            document = place // -(-t // asked["documents"])
            self.at = place % -(-t // asked["documents"])
            causal = place[:, None] >= place[None, :]
            self.mask = causal & (document[:, None] == document[None, :])
        self.run = self.compiled(model) if asked["mode"] == "compile" else model
        self.is_bf16 = asked["precision"] == "bf16"
        self.n_tokens = rows * t * asked["accumulate"]

    def compiled(self, model):
        is_gpu = self.device.type == "cuda"
        return torch.compile(model, mode="reduce-overhead" if is_gpu else "default")

    def peak_bytes(self):
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def step(self):
        for x, y in self.micro_batches:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.is_bf16):
                loss = self.run(x, y, self.at, self.mask)
            (loss / len(self.micro_batches)).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def round(self, n_steps):
        seconds = []
        for _ in range(n_steps):
            since = time.perf_counter()
            self.loss = self.step().item()
            seconds.append(time.perf_counter() - since)
        seconds.sort()
        return {
            "tokens_per_second": round(self.n_tokens / seconds[n_steps // 2], 1),
            "best": round(self.n_tokens / seconds[0], 1),
            "peak_mb": self.peak_bytes() // 1_000_000,
        }


def parse(args):
    asked = dict(DEFAULTS)
    for arg in args:
        name, value = arg.split("=")
        asked[name] = type(DEFAULTS[name])(value)
    return asked


def main():
    asked = parse(sys.argv[1:])
    torch.set_num_threads(asked["threads"])
    training = Training(asked)
    for _ in range(WARM_UP):
        training.step()
    if asked["wait"] == "yes":
        for _ in sys.stdin:
            print(json.dumps(training.round(asked["steps"])), flush=True)
        return
    measured = training.round(asked["steps"])
    n = sum(p.numel() for p in training.parameters) / 1e6
    told = " ".join(f"{name}={value}" for name, value in asked.items())
    print(f"torch {torch.__version__} {told} ({n:.1f}M): {measured}, loss {training.loss:.4f}")


if __name__ == "__main__":
    main()
