// Products in bf16 on tensor cores: operands lie in memory as f32 and are rounded on their way into shared memory;
// sums are f32.
//
// They take that way through registers, where they are rounded once. `cp.async` would spare the registers and leave f32
// in shared memory: twice the room, twice the reads, and a rounding by every warp that uses a number.
#include "words.h"
#include "after.h"

namespace tensor {
// A block makes 128 x 128 sums, a warp 64 x 32 of them, from tiles of 128 rows and 32 of k.
const int SIDE = 128, DEPTH = 32, ROWS = 64, COLUMNS = 32;
const int TILE_WORDS = SIDE * 24;

// A word of a tile is a pair of neighbours along k. A matrix that lies along k keeps a row's pairs together, so that
// what a thread reads it also writes together; one that lies across keeps a pair's rows together. Either is padded so
// that the lanes of a warp, which read eight rows of four pairs of words, meet in no bank: 24 g + 2 t counts 16 lanes
// (a read of two words is made by half a warp at a time) through all banks in twos, 132 * 2 t + g counts 32 lanes.
template <bool ALONG>
FN int place(int row, int pair) {
  return ALONG ? row * 24 + pair : pair * 132 + row;
}

// A thread takes four neighbours of each of four lines of a matrix: the lines are rows where it lies along k, and two
// pairs of k where it lies across. Half a warp has rows that are two apart, again for the banks' sake.
template <bool ALONG>
FN int row_of(int i) {
  int t = threadIdx.x;
  return ALONG ? (t / 8 * 2 & 31 | t / 128) + 32 * i : t % 32 * 4;
}

template <bool ALONG>
FN int k_of(int i) {
  int t = threadIdx.x;
  return ALONG ? t % 8 * 4 : t / 32 * 2 + i / 2 * 16 + i % 2;
}

// What a thread reads of a matrix, and how much of it there is still, in lines and in neighbours.
struct Source {
  const float* x;
  int stride, lines, neighbours;
  bool wide;  // four neighbours can be read at once
};

template <bool ALONG>
FN Source source(const float* x, int row0, int n_rows, int k0, int k_end, int stride) {
  int row = row0 + row_of<ALONG>(0), k = k0 + k_of<ALONG>(0);
  bool wide = stride % 4 == 0 && (u64)x % 16 == 0;
  if (ALONG) return {x + (u64)row * stride + k, stride, n_rows - row, k_end - k, wide};
  return {x + (u64)k * stride + row, stride, k_end - k, n_rows - row, wide};
}

// The thread's sixteen numbers of a tile, zeros beyond the edges; then it stands before the next tile.
template <bool ALONG>
FN void fetch(float (&out)[4][4], Source& from) {
  for (int i = 0; i < 4; ++i) {
    int line = ALONG ? 32 * i : i / 2 * 16 + i % 2;
    const float* x = from.x + (u64)line * from.stride;
    bool inside = line < from.lines && 0 < from.neighbours;
    for (int j = 0; j < 4; ++j) out[i][j] = 0;
    if (inside && from.wide) read_four(out[i], x);
    if (inside && !from.wide)
      for (int j = 0; j < 4; ++j)
        if (j < from.neighbours) out[i][j] = x[j];
  }
  from.x += ALONG ? (u64)DEPTH : (u64)DEPTH * from.stride;
  (ALONG ? from.neighbours : from.lines) -= DEPTH;
}

template <bool ALONG>
FN void put(u32* tile, const float (&in)[4][4]) {
  if (ALONG) {
    for (int i = 0; i < 4; ++i)
      write_two(tile + place<ALONG>(row_of<ALONG>(i), k_of<ALONG>(i) / 2), pack(in[i][0], in[i][1]), pack(in[i][2], in[i][3]));
  } else {
    for (int i = 0; i < 4; i += 2) {
      u32 words[4];
      for (int j = 0; j < 4; ++j) words[j] = pack(in[i][j], in[i + 1][j]);
      write_four(tile + place<ALONG>(row_of<ALONG>(i), k_of<ALONG>(i) / 2), words);
    }
  }
}

// The lane's pairs of a row for one `mma`. They are neighbours, which `mma` takes for pairs that are eight of k apart:
// a sum has no order of k but the one that both operands agree on.
template <bool ALONG>
FN void pairs(u32& first, u32& second, const u32* tile, int row, int k) {
  int pair = k / 2 + threadIdx.x % 4 * 2;
  if (ALONG) {
    read_two(first, second, tile + place<ALONG>(row, pair));
  } else {
    first = tile[place<ALONG>(row, pair)];
    second = tile[place<ALONG>(row, pair + 1)];
  }
}

// Adds what a warp's rows and columns of two tiles make over sixteen of k.
template <bool A_ALONG, bool B_ALONG>
FN void multiply(float (&sums)[4][4][4], const u32* left, const u32* right, int row, int column, int k) {
  int group = threadIdx.x % 32 / 4;
  u32 b[4][2];
  for (int j = 0; j < 4; ++j) pairs<B_ALONG>(b[j][0], b[j][1], right, column + 8 * j + group, k);
  for (int i = 0; i < 4; ++i) {
    u32 a[4];
    pairs<A_ALONG>(a[0], a[2], left, row + 16 * i + group, k);
    pairs<A_ALONG>(a[1], a[3], left, row + 16 * i + group + 8, k);
    for (int j = 0; j < 4; ++j) mma(sums[i][j], a, b[j]);
  }
}

// Blocks that run at the same time make neighbouring tiles, in bands of eight rows of them, and find in the cache what
// the others have read.
struct Corner {
  int row, column;
};

FN Corner corner_of_block() {
  int band = 8 * gridDim.x, i = blockIdx.y * gridDim.x + blockIdx.x, first = i / band * 8;
  int n_rows = gridDim.y - first < 8 ? gridDim.y - first : 8;
  return {(first + i % band % n_rows) * SIDE, i % band / n_rows * SIDE};
}

// Hands a warp's sums out, sixteen rows at a time through shared memory, so that a row's neighbours write together.
FN void hand_out(float* c, u32* shared, const float (&sums)[4][4][4], int row0, int column0, int m, int n, const After& after) {
  const int PITCH = 40;
  int lane = threadIdx.x & 31, group = lane / 4, column = column0 + lane;
  u32* mine = shared + threadIdx.x / 32 * 16 * PITCH;
  for (int i = 0; i < 4; ++i) {
    __syncthreads();
    for (int j = 0; j < 4; ++j)
      for (int half = 0; half < 2; ++half)
        write_two(mine + (group + 8 * half) * PITCH + 8 * j + lane % 4 * 2, bits_of(sums[i][j][2 * half]),
                  bits_of(sums[i][j][2 * half + 1]));
    __syncthreads();
    for (int r = 0; r < 16; ++r) {
      int row = row0 + 16 * i + r;
      if (row >= m || column >= n) continue;
      float sum = of_bits(mine[r * PITCH + lane]);
      if (gridDim.z > 1) c[((u64)blockIdx.z * m + row) * n + column] = sum;
      else finish(c, row, column, n, sum, after);
    }
  }
}

// As `product` in `products.cu`. One pair of tiles is written while the other is multiplied: a matrix's next tile is on
// its way through registers for half of that, and the other matrix's for the other half, because there are no registers
// for both.
template <bool A_ALONG, bool B_ALONG>
FN void product(float* c, const float* a, const float* b, int m, int n, int k, int chunk, const After& after) {
  SHARED(u32, tiles);
  Corner corner = corner_of_block();
  int warp = threadIdx.x / 32, row = warp % 2 * ROWS, column = warp / 2 * COLUMNS;
  bool idle = corner.row + row >= m || corner.column + column >= n;
  int first = blockIdx.z * chunk, end = first + chunk < k ? first + chunk : k;
  Source left = source<A_ALONG>(a, corner.row, m, first, end, A_ALONG ? k : m);
  Source right = source<B_ALONG>(b, corner.column, n, first, end, B_ALONG ? k : n);
  float sums[4][4][4] = {}, next[4][4];
  fetch<A_ALONG>(next, left);
  put<A_ALONG>(tiles, next);
  fetch<B_ALONG>(next, right);
  put<B_ALONG>(tiles + TILE_WORDS, next);
  __syncthreads();
  int now = 0;
  for (int k0 = first; k0 < end; k0 += DEPTH) {
    const u32* here = tiles + now;
    u32* there = tiles + (2 * TILE_WORDS - now);
    fetch<A_ALONG>(next, left);
    if (!idle) multiply<A_ALONG, B_ALONG>(sums, here, here + TILE_WORDS, row, column, 0);
    put<A_ALONG>(there, next);
    fetch<B_ALONG>(next, right);
    if (!idle) multiply<A_ALONG, B_ALONG>(sums, here, here + TILE_WORDS, row, column, 16);
    put<B_ALONG>(there + TILE_WORDS, next);
    __syncthreads();
    now = 2 * TILE_WORDS - now;
  }
  hand_out(c, tiles, sums, corner.row + row, corner.column + column, m, n, after);
}
}  // namespace tensor

PAIRED_KERNEL product_nt_bf16(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  tensor::product<true, true>(c, a, b, m, n, k, chunk, after);
}

PAIRED_KERNEL product_nn_bf16(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  tensor::product<true, false>(c, a, b, m, n, k, chunk, after);
}

PAIRED_KERNEL product_tn_bf16(float* c, const float* a, const float* b, int m, int n, int k, int chunk, After after) {
  tensor::product<false, false>(c, a, b, m, n, k, chunk, after);
}
