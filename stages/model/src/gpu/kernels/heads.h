// How a token's heads lie: `qkv` has its query heads, then key heads, then value heads.
#pragma once

struct Heads {
  int n_heads, n_kv_heads, d_head, len, round;
  float scale;
};

FN int width_of(const Heads& h) { return (h.n_heads + 2 * h.n_kv_heads) * h.d_head; }
