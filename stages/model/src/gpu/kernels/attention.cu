// Attention inside documents, in tiles of queries and keys: scores exist for one tile at a time, and
// the backward pass makes them again from one number a query, the logarithm of its sum.
#include "words.h"
#include "heads.h"

// Asks for rows `first ..` of one head; rows behind the last are zero.
template <int TILE>
FN void ask_for(float* tile, const float* from, int stride, int first, const Heads& h) {
  int d = h.d_head, pitch = d + 1;
  for (int i = threadIdx.x; i < TILE * d; i += blockDim.x) {
    int row = i / d, column = i % d;
    float* to = tile + row * pitch + column;
    if (first + row < h.len) copy_async(to, from + (u64)(first + row) * stride + column);
    else *to = 0;
  }
}

// What this thread asked for is there; others' after a barrier.
template <int TILE>
FN void arrived(float* tile, const Heads& h) {
  if (!h.round) return;
  for (int i = threadIdx.x; i < TILE * h.d_head; i += blockDim.x) {
    float* x = tile + i / h.d_head * (h.d_head + 1) + i % h.d_head;
    *x = rounded(*x, 1);
  }
}

// The first key that any query of a tile sees.
template <int TILE>
FN int first_key(const u16* starts, int q0, int len) {
  int first = len;
  for (int q = q0; q < q0 + TILE && q < len; ++q) first = starts[q] < first ? starts[q] : first;
  return first;
}

// A block: one tile of queries of one head of one row.
template <int TILE>
FN void attend(float* out, float* log_sums, const float* qkv, const u16* starts, Mask mask, const Heads& h) {
  const int EACH = TILE / 16;
  int d = h.d_head, pitch = d + 1, stride = width_of(h), q0 = blockIdx.x * TILE, head = blockIdx.y, row = blockIdx.z;
  int kv_head = head / (h.n_heads / h.n_kv_heads), t = threadIdx.x, lane = t & 31;
  SHARED(float, q_tile);
  float *k_tile = q_tile + TILE * pitch, *v_tile = k_tile + TILE * pitch, *p = v_tile + TILE * pitch;
  float *sums = p + TILE * (TILE + 1), *tops = sums + TILE * d, *totals = tops + TILE, *keeps = totals + TILE;
  const float* token0 = qkv + (u64)row * h.len * stride;
  const u16* start = starts + (u64)row * h.len;
  ask_for<TILE>(q_tile, token0 + head * d, stride, q0, h);
  for (int i = t; i < TILE * d; i += blockDim.x) sums[i] = 0;
  for (int i = t; i < TILE; i += blockDim.x) {
    tops[i] = -INF;
    totals[i] = 0;
  }
  wait_for_copies();
  arrived<TILE>(q_tile, h);
  for (int k0 = first_key<TILE>(start, q0, h.len) / TILE * TILE; k0 < q0 + TILE && k0 < h.len; k0 += TILE) {
    ask_for<TILE>(k_tile, token0 + (h.n_heads + kv_head) * d, stride, k0, h);
    ask_for<TILE>(v_tile, token0 + (h.n_heads + h.n_kv_heads + kv_head) * d, stride, k0, h);
    wait_for_copies();
    arrived<TILE>(k_tile, h);
    arrived<TILE>(v_tile, h);
    __syncthreads();
    float s[EACH][EACH] = {};
    for (int c = 0; c < d; ++c)
      for (int i = 0; i < EACH; ++i)
        for (int j = 0; j < EACH; ++j)
          s[i][j] += q_tile[(t / 16 + 16 * i) * pitch + c] * k_tile[(t % 16 + 16 * j) * pitch + c];
    for (int i = 0; i < EACH; ++i)
      for (int j = 0; j < EACH; ++j) {
        int r = t / 16 + 16 * i, c = t % 16 + 16 * j, query = q0 + r, key = k0 + c;
        bool seen = query < h.len && key <= query && key >= start[query];
        p[r * (TILE + 1) + c] = seen ? s[i][j] * h.scale : -INF;
      }
    __syncthreads();
    for (int r = t / 32; r < TILE; r += blockDim.x / 32) {
      float score = lane < TILE ? p[r * (TILE + 1) + lane] : -INF, before = tops[r], top = warp_max(score);
      top = before > top ? before : top;
      float each = score == -INF ? 0.f : expf(score - top), total = warp_sum(each);
      float keep = before == -INF ? 1.f : expf(before - top);
      Line line = line_of(mask, row * h.len + (q0 + r < h.len ? q0 + r : 0), head);
      if (lane < TILE) p[r * (TILE + 1) + lane] = rounded(each * factor(line, k0 + lane), h.round);
      if (lane == 0) {
        tops[r] = top;
        totals[r] = totals[r] * keep + total;
        keeps[r] = keep;
      }
    }
    __syncthreads();
    for (int i = t; i < TILE * d; i += blockDim.x) {
      int r = i / d, c = i % d;
      float sum = sums[i] * keeps[r];
      for (int k = 0; k < TILE; ++k) sum += p[r * (TILE + 1) + k] * v_tile[k * pitch + c];
      sums[i] = sum;
    }
    __syncthreads();
  }
  for (int i = t; i < TILE * d; i += blockDim.x) {
    int r = i / d, c = i % d, query = q0 + r;
    if (query < h.len) out[((u64)(row * h.len + query) * h.n_heads + head) * d + c] = sums[i] / totals[r];
  }
  for (int r = t; r < TILE && q0 + r < h.len; r += blockDim.x)
    log_sums[((u64)row * h.n_heads + head) * h.len + q0 + r] = tops[r] + logf(totals[r]);
}

// The products of each query's result with its gradient. A warp is a query of a head.
KERNEL attend_deltas(float* deltas, const float* out, const float* d_out, Heads h, int n) {
  int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (i >= n) return;
  float sum = 0;
  for (int c = lane; c < h.d_head; c += 32) sum += out[(u64)i * h.d_head + c] * d_out[(u64)i * h.d_head + c];
  sum = warp_sum(sum);
  int token = i / h.n_heads, head = i % h.n_heads, row = token / h.len;
  if (lane == 0) deltas[((u64)row * h.n_heads + head) * h.len + token % h.len] = sum;
}

// Of the tiles in shared memory: probabilities (some dropped) to p, slopes of the scores to slopes.
template <int TILE>
FN void slopes_of(float* p, float* slopes, const float* q_tile, const float* k_tile, const float* v_tile, const float* d_tile,
                  const float* log_sums, const float* deltas, const u16* start, int q0, int k0, int row, int head,
                  const Mask& mask, const Heads& h) {
  const int EACH = TILE / 16;
  int d = h.d_head, pitch = d + 1, t = threadIdx.x;
  float s[EACH][EACH] = {}, d_p[EACH][EACH] = {};
  for (int c = 0; c < d; ++c)
    for (int i = 0; i < EACH; ++i)
      for (int j = 0; j < EACH; ++j) {
        int r = (t / 16 + 16 * i) * pitch + c, k = (t % 16 + 16 * j) * pitch + c;
        s[i][j] += q_tile[r] * k_tile[k];
        d_p[i][j] += d_tile[r] * v_tile[k];
      }
  for (int i = 0; i < EACH; ++i) {
    int r = t / 16 + 16 * i, query = q0 + r;
    u64 at = ((u64)row * h.n_heads + head) * h.len + query;
    Line line = line_of(mask, row * h.len + (query < h.len ? query : 0), head);
    for (int j = 0; j < EACH; ++j) {
      int c = t % 16 + 16 * j, key = k0 + c;
      bool seen = query < h.len && key <= query && key >= start[query];
      float share = seen ? expf(s[i][j] * h.scale - log_sums[at]) : 0.f, kept = seen ? factor(line, key) : 0.f;
      p[r * (TILE + 1) + c] = rounded(share * kept, h.round);
      slopes[r * (TILE + 1) + c] = seen ? rounded(share * (d_p[i][j] * kept - deltas[at]) * h.scale, h.round) : 0.f;
    }
  }
}

// A block: one tile of keys and values of one head of one row, over all queries that see them.
template <int TILE>
FN void attend_keys(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                    const u16* starts, const Mask& mask, const Heads& h) {
  int d = h.d_head, pitch = d + 1, stride = width_of(h), k0 = blockIdx.x * TILE, kv_head = blockIdx.y, row = blockIdx.z;
  int group = h.n_heads / h.n_kv_heads, t = threadIdx.x;
  SHARED(float, q_tile);
  float *k_tile = q_tile + TILE * pitch, *v_tile = k_tile + TILE * pitch, *d_tile = v_tile + TILE * pitch;
  float *p = d_tile + TILE * pitch, *slopes = p + TILE * (TILE + 1), *d_k = slopes + TILE * (TILE + 1), *d_v = d_k + TILE * d;
  u64 token0 = (u64)row * h.len;
  const u16* start = starts + token0;
  int k_at = (h.n_heads + kv_head) * d, v_at = k_at + h.n_kv_heads * d;
  ask_for<TILE>(k_tile, qkv + token0 * stride + k_at, stride, k0, h);
  ask_for<TILE>(v_tile, qkv + token0 * stride + v_at, stride, k0, h);
  for (int i = t; i < TILE * d; i += blockDim.x) d_k[i] = d_v[i] = 0;
  wait_for_copies();
  arrived<TILE>(k_tile, h);
  arrived<TILE>(v_tile, h);
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (int q0 = k0; q0 < h.len; q0 += TILE) {
      if (first_key<TILE>(start, q0, h.len) >= k0 + TILE) continue;
      ask_for<TILE>(q_tile, qkv + token0 * stride + head * d, stride, q0, h);
      ask_for<TILE>(d_tile, d_out + (token0 * h.n_heads + head) * d, h.n_heads * d, q0, h);
      wait_for_copies();
      arrived<TILE>(q_tile, h);
      arrived<TILE>(d_tile, h);
      __syncthreads();
      slopes_of<TILE>(p, slopes, q_tile, k_tile, v_tile, d_tile, log_sums, deltas, start, q0, k0, row, head, mask, h);
      __syncthreads();
      for (int i = t; i < TILE * d; i += blockDim.x) {
        int key = i / d, c = i % d;
        float to_k = d_k[i], to_v = d_v[i];
        for (int r = 0; r < TILE; ++r) {
          to_v += p[r * (TILE + 1) + key] * d_tile[r * pitch + c];
          to_k += slopes[r * (TILE + 1) + key] * q_tile[r * pitch + c];
        }
        d_k[i] = to_k;
        d_v[i] = to_v;
      }
      __syncthreads();
    }
  for (int i = t; i < TILE * d; i += blockDim.x) {
    int key = k0 + i / d;
    if (key >= h.len) continue;
    float* to = d_qkv + (token0 + key) * stride + i % d;
    to[k_at] = d_k[i];
    to[v_at] = d_v[i];
  }
}

// A block: one tile of queries of one head of one row, over all keys that they see.
template <int TILE>
FN void attend_queries(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                       const u16* starts, const Mask& mask, const Heads& h) {
  int d = h.d_head, pitch = d + 1, stride = width_of(h), q0 = blockIdx.x * TILE, head = blockIdx.y, row = blockIdx.z;
  int kv_head = head / (h.n_heads / h.n_kv_heads), t = threadIdx.x;
  SHARED(float, q_tile);
  float *k_tile = q_tile + TILE * pitch, *v_tile = k_tile + TILE * pitch, *d_tile = v_tile + TILE * pitch;
  float *p = d_tile + TILE * pitch, *slopes = p + TILE * (TILE + 1), *d_q = slopes + TILE * (TILE + 1);
  u64 token0 = (u64)row * h.len;
  const u16* start = starts + token0;
  ask_for<TILE>(q_tile, qkv + token0 * stride + head * d, stride, q0, h);
  ask_for<TILE>(d_tile, d_out + (token0 * h.n_heads + head) * d, h.n_heads * d, q0, h);
  for (int i = t; i < TILE * d; i += blockDim.x) d_q[i] = 0;
  wait_for_copies();
  arrived<TILE>(q_tile, h);
  arrived<TILE>(d_tile, h);
  for (int k0 = first_key<TILE>(start, q0, h.len) / TILE * TILE; k0 < q0 + TILE && k0 < h.len; k0 += TILE) {
    ask_for<TILE>(k_tile, qkv + token0 * stride + (h.n_heads + kv_head) * d, stride, k0, h);
    ask_for<TILE>(v_tile, qkv + token0 * stride + (h.n_heads + h.n_kv_heads + kv_head) * d, stride, k0, h);
    wait_for_copies();
    arrived<TILE>(k_tile, h);
    arrived<TILE>(v_tile, h);
    __syncthreads();
    slopes_of<TILE>(p, slopes, q_tile, k_tile, v_tile, d_tile, log_sums, deltas, start, q0, k0, row, head, mask, h);
    __syncthreads();
    for (int i = t; i < TILE * d; i += blockDim.x) {
      int r = i / d, c = i % d;
      float sum = d_q[i];
      for (int k = 0; k < TILE; ++k) sum += slopes[r * (TILE + 1) + k] * k_tile[k * pitch + c];
      d_q[i] = sum;
    }
    __syncthreads();
  }
  for (int i = t; i < TILE * d; i += blockDim.x) {
    int query = q0 + i / d;
    if (query < h.len) d_qkv[(token0 + query) * stride + head * d + i % d] = d_q[i];
  }
}

// Tiles of 32, and of 16 for heads too wide for those.
KERNEL attend_32(float* out, float* log_sums, const float* qkv, const u16* starts, Mask mask, Heads h) {
  attend<32>(out, log_sums, qkv, starts, mask, h);
}

KERNEL attend_16(float* out, float* log_sums, const float* qkv, const u16* starts, Mask mask, Heads h) {
  attend<16>(out, log_sums, qkv, starts, mask, h);
}

KERNEL attend_keys_32(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                      const u16* starts, Mask mask, Heads h) {
  attend_keys<32>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

KERNEL attend_keys_16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                      const u16* starts, Mask mask, Heads h) {
  attend_keys<16>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

KERNEL attend_queries_32(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                         const u16* starts, Mask mask, Heads h) {
  attend_queries<32>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

KERNEL attend_queries_16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                         const u16* starts, Mask mask, Heads h) {
  attend_queries<16>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}
