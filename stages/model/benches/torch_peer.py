"""The training step of `train_step.rs` in PyTorch: same model, batch, AdamW and clipping.

usage: torch_peer.py MODEL PRECISION eager|compile [STEPS] [THREADS]

MODEL is mini, m41 or forty-one; PRECISION f32 or bf16 (autocast). One a process, so that the
peak memory is its own. Needs `pip install torch` and as many free cores as threads (two).
"""

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
}


class Block(nn.Module):
    def __init__(self, d, heads, ff, norm, approximate):
        super().__init__()
        self.heads, self.approximate = heads, approximate
        self.norm1, self.norm2 = norm(d), norm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, ff), nn.Linear(ff, d)

    def forward(self, x):
        b, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate=self.approximate))


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        _, t, d, heads, layers, ff, vocab = SHAPES[name]
        forty = name == "forty-one"
        norm = nn.RMSNorm if forty else nn.LayerNorm
        self.scale = math.sqrt(d) if forty else 1.0
        self.embed = nn.Embedding(vocab, d)
        table = torch.zeros(t, d)
        if forty:
            angle = torch.arange(t)[:, None] / 10000 ** (torch.arange(0, d, 2) / d)
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
        self.positions = nn.Parameter(table, requires_grad=not forty)
        approximate = "none" if forty else "tanh"
        self.blocks = nn.ModuleList(Block(d, heads, ff, norm, approximate) for _ in range(layers))
        self.norm = norm(d)
        self.head = nn.Linear(d, vocab, bias=forty)

    def forward(self, x, y):
        x = self.embed(x) * self.scale + self.positions
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))


def main(name, precision, mode, steps="8", threads="2"):
    torch.manual_seed(0)
    torch.set_num_threads(int(threads))
    rows, t, *_, vocab = SHAPES[name]
    model = Model(name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    x, y = torch.randint(0, vocab, (rows, t)), torch.randint(0, vocab, (rows, t))
    run = torch.compile(model) if mode == "compile" else model
    seconds, cpu = [], 0
    for step in range(WARM_UP + int(steps)):
        if step == WARM_UP:
            cpu = time.process_time()
        since = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = run(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - since)
    cpu = (time.process_time() - cpu) / int(steps)
    seconds = sorted(seconds[WARM_UP:])
    median, best = seconds[len(seconds) // 2], seconds[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 1_000_000
    n = sum(p.numel() for p in parameters) / 1e6
    print(
        f"torch {torch.__version__} {mode} {name} {precision} ({n:.1f}M, {rows} x {t}): "
        f"{rows * t / median:.0f} tokens/s (best {rows * t / best:.0f}, {rows * t / cpu:.0f} per CPU second), peak {peak} MB, loss {loss.item():.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
