// Attention of single tokens over keys and values that were kept: each looks back at its own sequence.
#include "words.h"
#include "heads.h"

// Of one sequence: layers, of each the keys and then the values of each head, by position.
FN float* kept(u64 cache, const Heads& h, int layer, int is_value, int kv_head, int context) {
  u64 head = (u64)(2 * layer + is_value) * h.n_kv_heads + kv_head;
  return reinterpret_cast<float*>(cache) + head * context * h.d_head;
}

// A block is a token, whose keys and values go to its sequence's.
KERNEL remember(const u64* caches, const float* qkv, const u16* positions, Heads h, int layer, int context) {
  u32 row = blockIdx.x;
  int n = h.n_kv_heads * h.d_head;
  const float* from = qkv + (u64)row * width_of(h) + h.n_heads * h.d_head;
  for (int i = threadIdx.x; i < 2 * n; i += blockDim.x) {
    float* to = kept(caches[row], h, layer, i / n, i % n / h.d_head, context);
    to[(u64)positions[row] * h.d_head + i % h.d_head] = from[i];
  }
}

// A block is a head of a token. Each of its warps takes every so manieth group of keys and keeps sums of its
// own; they are added in the warps' order.
KERNEL attend_cached(float* out, const u64* caches, const float* qkv, const u16* positions, Heads h, int layer,
                     int context) {
  const int GROUP = 4;
  int d = h.d_head, head = blockIdx.x, row = blockIdx.y, t = threadIdx.x, lane = t & 31, warp = t / 32;
  int warps = blockDim.x / 32, last = positions[row], kv_head = head / (h.n_heads / h.n_kv_heads);
  const float* keys = kept(caches[row], h, layer, 0, kv_head, context);
  const float* values = kept(caches[row], h, layer, 1, kv_head, context);
  SHARED(float, query);
  float *sums = query + d, *tops = sums + warps * d, *totals = tops + warps, *mine = sums + warp * d;
  for (int c = t; c < d; c += blockDim.x) query[c] = qkv[(u64)row * width_of(h) + head * d + c];
  for (int c = lane; c < d; c += 32) mine[c] = 0;
  __syncthreads();
  float top = -INF, total = 0;
  for (int first = warp * GROUP; first <= last; first += warps * GROUP) {
    float scores[GROUP], highest = top, sum = 0;
    for (int j = 0; j < GROUP; ++j) {
      int key = first + j;
      float part = 0;
      if (key <= last)
        for (int c = lane; c < d; c += 32) part += query[c] * keys[(u64)key * d + c];
      scores[j] = key <= last ? warp_sum(part) * h.scale : -INF;
      highest = scores[j] > highest ? scores[j] : highest;
    }
    float keep = top == -INF ? 0.f : expf(top - highest);
    for (int j = 0; j < GROUP; ++j) {
      scores[j] = scores[j] == -INF ? 0.f : expf(scores[j] - highest);
      sum += scores[j];
    }
    for (int c = lane; c < d; c += 32) {
      float x = mine[c] * keep;
      for (int j = 0; j < GROUP && first + j <= last; ++j) x += scores[j] * values[(u64)(first + j) * d + c];
      mine[c] = x;
    }
    total = total * keep + sum;
    top = highest;
  }
  if (lane == 0) {
    tops[warp] = top;
    totals[warp] = total;
  }
  __syncthreads();
  float highest = tops[0], all = 0;
  for (int w = 1; w < warps; ++w) highest = tops[w] > highest ? tops[w] : highest;
  for (int w = 0; w < warps; ++w) all += tops[w] == -INF ? 0.f : totals[w] * expf(tops[w] - highest);
  for (int c = t; c < d; c += blockDim.x) {
    float sum = 0;
    for (int w = 0; w < warps; ++w) sum += tops[w] == -INF ? 0.f : sums[w * d + c] * expf(tops[w] - highest);
    out[((u64)row * h.n_heads + head) * d + c] = sum / all;
  }
}
