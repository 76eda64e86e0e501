// What touches each number once: look-ups, activations, rotations, sums of two.
#include "words.h"

KERNEL fill(float* x, float value, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = value;
}

KERNEL add_to(float* to, const float* x, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] += x[i];
}

// The nearest bf16, ties to even; what is no number stays none, though its upper half may be infinity's.
KERNEL halves(u16* to, const float* x, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  u32 quiet = x[i] != x[i] ? 0x40u : 0u;
  to[i] = (u16)(bits_of(rounded(x[i], 1)) >> 16 | quiet);
}

// to = a * to + b * x
KERNEL blend(float* to, float a, const float* x, float b, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = a * to[i] + b * x[i];
}

// A block is a token. `added` is a table by position, or null.
KERNEL embed(float* y, const float* table, const u16* tokens, float scale, const float* added,
             const u16* positions, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  const float* from = table + (u64)tokens[token] * width;
  const float* plus = added ? added + (u64)positions[token] * width : 0;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float x = from[i] * scale + (plus ? plus[i] : 0.f);
    y[(u64)token * width + i] = x * factor(line, i);
  }
}

// Adds to each row of a table the gradients of the tokens that read it, in their order. A block is
// 32 columns of one row that was read; its 8 lines of threads take every eighth token.
KERNEL embed_backward(float* d_table, const float* d_y, const u32* order, const u32* starts,
                      const u16* ids, float scale, Mask mask, int width) {
  SHARED(float, sums);
  u32 segment = blockIdx.x, column = blockIdx.y * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
  float sum = 0;
  if (column < (u32)width)
    for (u32 i = starts[segment] + lane; i < starts[segment + 1]; i += 8) {
      u32 token = order[i];
      sum += d_y[(u64)token * width + column] * factor(line_of(mask, token, 0), column);
    }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (lane || column >= (u32)width) return;
  for (int l = 1; l < 8; ++l) sum += sums[l * 32 + threadIdx.x];
  u32 row = ids[order[starts[segment]]];
  d_table[(u64)row * width + column] += scale * sum;
}

KERNEL drop_rows(float* to, const float* x, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  for (int i = threadIdx.x; i < width; i += blockDim.x)
    to[(u64)token * width + i] = x[(u64)token * width + i] * factor(line, i);
}

KERNEL activate(float* y, const float* hidden, int kind, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    u64 at = (u64)token * width + i;
    y[at] = activation(kind, hidden[at]).value * factor(line, i);
  }
}

// The gradient of the result becomes that of the hidden values.
KERNEL activate_backward(float* d, const float* hidden, int kind, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    u64 at = (u64)token * width + i;
    d[at] *= activation(kind, hidden[at]).slope * factor(line, i);
  }
}

KERNEL gate(float* y, const float* gates, const float* up, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    u64 at = (u64)token * width + i;
    y[at] = activation(SILU, gates[at]).value * up[at] * factor(line, i);
  }
}

// The gradient of the result becomes that of `up`.
KERNEL gate_backward(float* d_gates, float* d_up, const float* gates, const float* up, Mask mask, int width) {
  u32 token = blockIdx.x;
  Line line = line_of(mask, token, 0);
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    u64 at = (u64)token * width + i;
    Curve curve = activation(SILU, gates[at]);
    float d = d_up[at] * factor(line, i);
    d_gates[at] = d * up[at] * curve.slope;
    d_up[at] = d * curve.value;
  }
}

// Turns the first `turned` heads of each row by its position and copies the rest; `to` may be `x`.
// A row of `angles` holds the cosines of half a head, then the sines; `way` is 1, or -1 to turn back.
KERNEL rotate(float* to, const float* x, const float* angles, const u16* positions, int width,
              int turned, int d_head, float way) {
  u32 token = blockIdx.x;
  int half = d_head / 2, pairs = turned * half;
  const float* cosines = angles + (u64)positions[token] * d_head;
  const float* sines = cosines + half;
  const float* from = x + (u64)token * width;
  float* row = to + (u64)token * width;
  for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
    int at = i / half * d_head + i % half;
    float a = from[at], b = from[at + half], c = cosines[i % half], s = way * sines[i % half];
    row[at] = a * c - b * s;
    row[at + half] = b * c + a * s;
  }
  for (int i = turned * d_head + threadIdx.x; i < width; i += blockDim.x) row[i] = from[i];
}

// to[i] = x[rows[i]]
KERNEL gather(float* to, const float* x, const u32* rows, int width) {
  const float* from = x + (u64)rows[blockIdx.x] * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) to[(u64)blockIdx.x * width + i] = from[i];
}

// to[rows[i]] = x[i]; no two rows are the same.
KERNEL scatter(float* to, const float* x, const u32* rows, int width) {
  float* row = to + (u64)rows[blockIdx.x] * width;
  for (int i = threadIdx.x; i < width; i += blockDim.x) row[i] = x[(u64)blockIdx.x * width + i];
}
