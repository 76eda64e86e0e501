"""The transformer of tinylm with any of its settings, in plain torch: one file that depends on no other model.

Nothing is cached between tokens: contexts are short, and the whole of them is read for each new token.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TinylmConfig(PretrainedConfig):
    model_type = "tinylm"

    def __init__(self, vocab_size=256, context=64, d_model=64, n_layers=1, n_heads=1, n_kv_heads=1, d_ff=64,
                 positions="learned", rope_theta=10000.0, rope_share=1.0, norm="layer", norm_at="pre", parallel=False,
                 final_norm=True, norm_eps=1e-5, activation="gelu", bias=None, tied=False, embed_scale=1.0, **kwargs):
        self.vocab_size, self.context = vocab_size, context
        self.d_model, self.n_layers, self.d_ff = d_model, n_layers, d_ff
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.positions, self.rope_theta, self.rope_share = positions, rope_theta, rope_share
        self.parallel = parallel
        self.norm, self.norm_at, self.final_norm, self.norm_eps = norm, norm_at, final_norm, norm_eps
        self.activation, self.tied, self.embed_scale = activation, tied, embed_scale
        self.bias = bias or {part: False for part in ("norm", "qkv", "proj", "mlp", "head")}
        # The names that transformers asks any model for.
        self.hidden_size, self.num_hidden_layers, self.num_attention_heads = d_model, n_layers, n_heads
        self.max_position_embeddings = context
        super().__init__(**kwargs)


class Norm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        has_bias = config.norm == "layer" and config.bias["norm"]
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if has_bias else None
        self.is_layer, self.eps = config.norm == "layer", config.norm_eps

    def forward(self, x):
        if self.is_layer:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        d, d_ff, bias = config.d_model, config.d_ff, config.bias
        self.d_head = d // config.n_heads
        d_kv = config.n_kv_heads * self.d_head
        self.norm1, self.norm2 = Norm(config), Norm(config)
        self.qkv = nn.Linear(d, d + 2 * d_kv, bias=bias["qkv"])
        self.proj = nn.Linear(d, d, bias=bias["proj"])
        if config.activation == "swiglu":
            self.gate = nn.Linear(d, d_ff, bias=bias["mlp"])
        self.up = nn.Linear(d, d_ff, bias=bias["mlp"])
        self.down = nn.Linear(d_ff, d, bias=bias["mlp"])

    def attention(self, x, positions, visible):
        n_rows, length, d = x.shape
        n_kv = self.config.n_kv_heads
        q, k, v = self.qkv(x).split([d, n_kv * self.d_head, n_kv * self.d_head], -1)
        q, k, v = (part.view(n_rows, length, -1, self.d_head).transpose(1, 2) for part in (q, k, v))
        if self.config.positions == "rope":
            q, k = (turned(part, positions, self.config.rope_theta, self.config.rope_share) for part in (q, k))
        k, v = (part.repeat_interleave(self.config.n_heads // n_kv, 1) for part in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        return self.proj(mixed.transpose(1, 2).reshape(n_rows, length, d))

    def mlp(self, x):
        activation, up = self.config.activation, self.up(x)
        if activation == "swiglu":
            return self.down(F.silu(self.gate(x)) * up)
        if activation == "gelu-tanh":
            return self.down(F.gelu(up, approximate="tanh"))
        return self.down({"gelu": F.gelu, "relu": F.relu, "silu": F.silu}[activation](up))

    def forward(self, x, positions, visible):
        if self.config.parallel:
            return x + self.attention(self.norm1(x), positions, visible) + self.mlp(self.norm2(x))
        if self.config.norm_at == "pre":
            x = x + self.attention(self.norm1(x), positions, visible)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x, positions, visible))
        return self.norm2(x + self.mlp(x))


def turned(x, positions, theta, share):
    """Turns columns i and i + half of each head, for as many i as the share says."""
    half = x.shape[-1] // 2
    n_turned = round(half * share)
    frequencies = theta ** (-torch.arange(half, device=x.device, dtype=torch.float64) / n_turned)
    frequencies[n_turned:] = 0.0
    angle = positions[:, None, :, None] * frequencies
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def sinusoids(positions, width):
    """A sine and a cosine for each pair of columns."""
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / width)
    angle = positions[..., None] * frequencies
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


class TinylmForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = TinylmConfig
    base_model_prefix = ""
    _no_split_modules = ["Block"]

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        if config.final_norm:
            self.norm = Norm(config)
        self.head = Head(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def set_input_embeddings(self, embed):
        self.embed = embed

    def get_output_embeddings(self):
        return None

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        context = self.config.context
        mask = None if attention_mask is None else attention_mask[:, -context:]
        return {"input_ids": input_ids[:, -context:], "attention_mask": mask}

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        length = input_ids.shape[1]
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        places = torch.arange(length, device=input_ids.device)
        visible = (places[:, None] >= places) & mask[:, None, None, :].bool()
        # A padded place sees itself, or its scores would have no sum.
        visible = visible | torch.eye(length, dtype=torch.bool, device=input_ids.device)
        x = self.embed(input_ids) * self.config.embed_scale
        if self.config.positions == "learned":
            x = x + self.positions(positions)
        elif self.config.positions == "sinusoidal":
            x = x + sinusoids(positions, self.config.d_model).to(x.dtype)
        for block in self.blocks:
            x = block(x, positions, visible)
        if self.config.final_norm:
            x = self.norm(x)
        logits = self.head(x, self.embed.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutput(loss=loss, logits=logits)


class Head(nn.Module):
    """Logits by a weight of its own, or by the embedding's."""

    def __init__(self, config):
        super().__init__()
        shape = (config.vocab_size, config.d_model)
        self.weight = None if config.tied else nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.bias["head"] else None

    def forward(self, x, embed):
        return F.linear(x, embed if self.weight is None else self.weight, self.bias)
