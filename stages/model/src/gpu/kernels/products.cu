// Products of matrices in f32, in tiles of shared memory.
#include "words.h"
#include "after.h"

const int TILE = 64, DEPTH = 16, PITCH = TILE + 4;

// Four numbers of a tile: along k where that is how the matrix lies, across otherwise.
template <bool ALONG>
FN void read_four(float (&out)[4], const float* x, int first, int limit, int k0, int k_end, int stride) {
  int t = threadIdx.x, row = first + (ALONG ? t / 4 : t % 16 * 4), k = k0 + (ALONG ? t % 4 * 4 : t / 16);
  for (int i = 0; i < 4; ++i) {
    int r = ALONG ? row : row + i, q = ALONG ? k + i : k;
    u64 at = ALONG ? (u64)r * stride + q : (u64)q * stride + r;
    out[i] = r < limit && q < k_end ? x[at] : 0.f;
  }
}

template <bool ALONG>
FN void write_four(float* tile, const float (&in)[4]) {
  int t = threadIdx.x;
  for (int i = 0; i < 4; ++i) {
    int row = ALONG ? t / 4 : t % 16 * 4 + i, k = ALONG ? t % 4 * 4 + i : t / 16;
    tile[k * PITCH + row] = in[i];
  }
}

// c (m, n) = a b, summed over k. A_ALONG: a lies (m, k), otherwise (k, m). B_ALONG: b lies (n, k),
// otherwise (k, n). A block makes 64 x 64 sums over `chunk` of k, a thread 4 x 4; with several chunks
// each writes a matrix of its own, which `add_parts` adds. The next tiles are read while these are used.
template <bool A_ALONG, bool B_ALONG>
FN void product(float* c, const float* a, const float* b, int m, int n, int k, int chunk, const After& after) {
  SHARED(float, left);
  float* right = left + DEPTH * PITCH;
  int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE, t = threadIdx.x;
  int first = blockIdx.z * chunk, end = first + chunk < k ? first + chunk : k;
  int a_stride = A_ALONG ? k : m, b_stride = B_ALONG ? k : n;
  float sums[4][4] = {}, next_a[4], next_b[4];
  read_four<A_ALONG>(next_a, a, row0, m, first, end, a_stride);
  read_four<B_ALONG>(next_b, b, column0, n, first, end, b_stride);
  for (int k0 = first; k0 < end; k0 += DEPTH) {
    write_four<A_ALONG>(left, next_a);
    write_four<B_ALONG>(right, next_b);
    __syncthreads();
    if (k0 + DEPTH < end) {
      read_four<A_ALONG>(next_a, a, row0, m, k0 + DEPTH, end, a_stride);
      read_four<B_ALONG>(next_b, b, column0, n, k0 + DEPTH, end, b_stride);
    }
    for (int q = 0; q < DEPTH; ++q) {
      const float* x = left + q * PITCH + t / 16 * 4;
      const float* y = right + q * PITCH + t % 16 * 4;
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) sums[i][j] += x[i] * y[j];
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      int row = row0 + t / 16 * 4 + i, column = column0 + t % 16 * 4 + j;
      if (row >= m || column >= n) continue;
      if (gridDim.z > 1) c[((u64)blockIdx.z * m + row) * n + column] = sums[i][j];
      else finish(c, row, column, n, sums[i][j], after);
    }
}

// Adds the parts of a product that was cut, one after the other, and does what follows.
KERNEL finish_parts(float* y, const float* parts, int n_parts, int m, int n, After after) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x, all = (u64)m * n;
  if (i >= all) return;
  float sum = 0;
  for (int part = 0; part < n_parts; ++part) sum += parts[part * all + i];
  finish(y, i / n, i % n, n, sum, after);
}

KERNEL product_nt(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  product<true, true>(c, a, b, m, n, k, chunk, after);
}

KERNEL product_nn(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  product<true, false>(c, a, b, m, n, k, chunk, after);
}

KERNEL product_tn(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  product<false, false>(c, a, b, m, n, k, chunk, after);
}
