// Attention in bf16 on tensor cores, for heads of up to 128 numbers: what `attention.cu` computes, with the same
// numbers rounded. Scores, sums and results are f32.
//
// A block takes 128 queries (or keys) of one head of one row, a warp 16 of them, and goes over tiles of the others.
// What a warp's lanes hold when a product is done, scores say, is what they must hold for the next one, so nothing goes
// through shared memory in between.
#include "words.h"
#include "heads.h"

namespace tensor {
const int BLOCK = 128, OWN = 16, KEYS = 32, NOBODY = 1 << 30;

// A tile lies twice where it is needed twice: with neighbours along a row in a word, for sums over a head's numbers, and
// with neighbours of two rows in a word, for sums over rows. Each is padded to 8 more than a multiple of 32 words, so
// that lanes meet in no bank: 8 g + 2 t in words read in twos, and 8 t + g.
template <int WIDTH>
FN int along(int row, int column) {
  return row * (WIDTH / 2 + 8) + column / 2;
}

template <int WIDTH>
FN int across(int pair, int column) {
  return pair * (WIDTH + 8) + column;
}

// One head of a row's tokens, as it lies in memory.
struct Rows {
  const float* x;
  int stride, limit, d;
  bool wide;  // four neighbours can be read at once
};

FN Rows rows_of(const float* x, int stride, const Heads& h) {
  return {x, stride, h.len, h.d_head, stride % 4 == 0 && h.d_head % 4 == 0 && (u64)x % 16 == 0};
}

// Four neighbours, zeros beyond the edges.
FN void take_four(float (&out)[4], const Rows& rows, int row, int column) {
  const float* x = rows.x + (u64)row * rows.stride + column;
  bool inside = row < rows.limit && column < rows.d;
  for (int j = 0; j < 4; ++j) out[j] = 0;
  if (inside && rows.wide) read_four(out, x);
  if (inside && !rows.wide)
    for (int j = 0; j < 4; ++j)
      if (column + j < rows.d) out[j] = x[j];
}

// The block reads a tile by pairs of rows, of which a thread takes four columns; wider tiles by turns.
template <int WIDTH>
FN int pair_of(int turn) {
  return (threadIdx.x + blockDim.x * turn) / (WIDTH / 4);
}

template <int WIDTH>
FN int column_of() {
  return threadIdx.x % (WIDTH / 4) * 4;
}

template <int WIDTH, int TURNS>
FN void take(float (&x)[TURNS][2][4], const Rows& rows, int first) {
  for (int i = 0; i < TURNS; ++i)
    for (int half = 0; half < 2; ++half) take_four(x[i][half], rows, first + 2 * pair_of<WIDTH>(i) + half, column_of<WIDTH>());
}

template <int WIDTH, int TURNS>
FN void put_along(u32* tile, const float (&x)[TURNS][2][4]) {
  for (int i = 0; i < TURNS; ++i)
    for (int half = 0; half < 2; ++half) {
      const float(&four)[4] = x[i][half];
      int row = 2 * pair_of<WIDTH>(i) + half;
      write_two(tile + along<WIDTH>(row, column_of<WIDTH>()), pack(four[0], four[1]), pack(four[2], four[3]));
    }
}

template <int WIDTH, int TURNS>
FN void put_across(u32* tile, const float (&x)[TURNS][2][4]) {
  for (int i = 0; i < TURNS; ++i) {
    u32 words[4];
    for (int j = 0; j < 4; ++j) words[j] = pack(x[i][0][j], x[i][1][j]);
    write_four(tile + across<WIDTH>(pair_of<WIDTH>(i), column_of<WIDTH>()), words);
  }
}

FN int group_of_lane() { return threadIdx.x % 32 / 4; }
FN int pair_of_lane() { return threadIdx.x % 4 * 2; }

// A warp's own sixteen rows, for sums over a head's numbers. As in `tensor.cu`, a lane's two pairs are neighbours.
template <int STEPS>
FN void take_own(u32 (&own)[STEPS][4], const Rows& rows, int first) {
  for (int step = 0; step < STEPS; ++step)
    for (int half = 0; half < 2; ++half) {
      float x[4];
      take_four(x, rows, first + group_of_lane() + 8 * half, 16 * step + 2 * pair_of_lane());
      own[step][half] = pack(x[0], x[1]);
      own[step][half + 2] = pack(x[2], x[3]);
    }
}

// Adds the products of a warp's rows with eight rows of a tile each, over sixteen of a head's numbers.
template <int WIDTH, int N>
FN void add_products(float (&sums)[N][4], const u32 (&own)[4], const u32* tile, int step) {
  for (int j = 0; j < N; ++j) {
    u32 b[2];
    read_two(b[0], b[1], tile + along<WIDTH>(8 * j + group_of_lane(), 16 * step + 2 * pair_of_lane()));
    mma(sums[j], own, b);
  }
}

// Adds a tile's rows, each as often as `shares` says for each of the warp's rows.
template <int WIDTH, int N>
FN void add_rows(float (&sums)[WIDTH / 8][4], const float (&shares)[N][4], const u32* tile, int d) {
  for (int k = 0; k < N; k += 2) {
    const u32 a[4] = {pack(shares[k][0], shares[k][1]), pack(shares[k][2], shares[k][3]),
                      pack(shares[k + 1][0], shares[k + 1][1]), pack(shares[k + 1][2], shares[k + 1][3])};
    for (int n = 0; n < WIDTH / 8; ++n) {
      if (8 * n >= d) continue;
      int pair = 4 * k + threadIdx.x % 4, column = 8 * n + group_of_lane();
      const u32 b[2] = {tile[across<WIDTH>(pair, column)], tile[across<WIDTH>(pair + 4, column)]};
      mma(sums[n], a, b);
    }
  }
}

// Writes a warp's sixteen rows of sums, each multiplied by its factor.
template <int WIDTH>
FN void write_rows(float* to, int stride, int first, const Heads& h, const float (&sums)[WIDTH / 8][4], float upper, float lower) {
  for (int half = 0; half < 2; ++half) {
    int row = first + group_of_lane() + 8 * half;
    if (row >= h.len) continue;
    for (int n = 0; n < WIDTH / 8; ++n)
      for (int i = 0; i < 2; ++i) {
        int column = 8 * n + pair_of_lane() + i;
        if (column < h.d_head) to[(u64)row * stride + column] = sums[n][2 * half + i] * (half ? lower : upper);
      }
  }
}

// The first key that any of these queries sees, in every lane.
FN int lowest_start(const u16* start, int first, int n, int len) {
  int lowest = NOBODY;
  for (int q = first + (threadIdx.x & 31); q < first + n && q < len; q += 32) lowest = start[q] < lowest ? start[q] : lowest;
  return -warp_max(-lowest);
}

// Four lanes hold a row.
FN float row_sum(float v) {
  v += from_lane(v, 1);
  return v + from_lane(v, 2);
}

FN float row_max(float v) {
  for (int o = 1; o < 4; o *= 2) {
    float other = from_lane(v, o);
    v = other > v ? other : v;
  }
  return v;
}

// A query and the keys that it sees, of which those behind the row see none.
struct Query {
  int at, from;
  Line line;
};

FN Query query_of(int at, const u16* start, int row, int head, const Mask& mask, const Heads& h) {
  bool inside = at < h.len;
  return {at, inside ? start[at] : NOBODY, line_of(mask, row * h.len + (inside ? at : 0), head)};
}

FN bool sees(const Query& query, int key) { return key >= query.from && key <= query.at; }

// The running softmax of one of the lane's two rows: probabilities beside the highest score so far in place of scores,
// and what was summed before brought beside it.
template <int WIDTH>
FN void soften(float (&s)[KEYS / 8][4], float (&sums)[WIDTH / 8][4], int half, int k0, const Query& query, float& tops, float& totals,
               float scale) {
  float top = tops, total = 0;
  for (int j = 0; j < KEYS / 8; ++j)
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      s[j][i] = sees(query, k0 + 8 * j + pair_of_lane() + i % 2) ? s[j][i] * scale : -INF;
      top = s[j][i] > top ? s[j][i] : top;
    }
  top = row_max(top);
  float keep = tops == -INF ? 1.f : expf(tops - top);
  for (int j = 0; j < KEYS / 8; ++j)
    for (int i = 2 * half; i < 2 * half + 2; ++i) total += s[j][i] = s[j][i] == -INF ? 0.f : expf(s[j][i] - top);
  total = row_sum(total);
  for (int j = 0; j < KEYS / 8; ++j)
    for (int i = 2 * half; i < 2 * half + 2; ++i) s[j][i] *= factor(query.line, k0 + 8 * j + pair_of_lane() + i % 2);
  for (int n = 0; n < WIDTH / 8; ++n)
    for (int i = 2 * half; i < 2 * half + 2; ++i) sums[n][i] *= keep;
  tops = top;
  totals = totals * keep + total;
}

// A block: 128 queries of one head of one row, over all keys that they see. The next tile is read while this one is used.
template <int WIDTH>
FN void attend(float* out, float* log_sums, const float* qkv, const u16* starts, const Mask& mask, const Heads& h) {
  const int K_WORDS = KEYS * (WIDTH / 2 + 8), WORDS = K_WORDS + KEYS / 2 * (WIDTH + 8);
  SHARED(u32, tiles);
  int stride = width_of(h), q0 = blockIdx.x * BLOCK, head = blockIdx.y, row = blockIdx.z, kv_head = head / (h.n_heads / h.n_kv_heads);
  int mine = q0 + threadIdx.x / 32 * OWN;
  const float* token0 = qkv + (u64)row * h.len * stride;
  const u16* start = starts + (u64)row * h.len;
  Rows queries = rows_of(token0 + head * h.d_head, stride, h);
  Rows keys = rows_of(token0 + (h.n_heads + kv_head) * h.d_head, stride, h);
  Rows values = rows_of(token0 + (h.n_heads + h.n_kv_heads + kv_head) * h.d_head, stride, h);
  u32 q[WIDTH / 16][4];
  take_own(q, queries, mine);
  Query upper = query_of(mine + group_of_lane(), start, row, head, mask, h);
  Query lower = query_of(mine + group_of_lane() + 8, start, row, head, mask, h);
  float sums[WIDTH / 8][4] = {}, tops[2] = {-INF, -INF}, totals[2] = {};
  float k[KEYS * WIDTH / 2048][2][4], v[KEYS * WIDTH / 2048][2][4];
  int k0 = lowest_start(start, q0, BLOCK, h.len) / KEYS * KEYS, my_first = lowest_start(start, mine, OWN, h.len), now = 0;
  take<WIDTH>(k, keys, k0);
  take<WIDTH>(v, values, k0);
  for (; k0 < q0 + BLOCK && k0 < h.len; k0 += KEYS) {
    u32 *k_tile = tiles + now, *v_tile = k_tile + K_WORDS;
    put_along<WIDTH>(k_tile, k);
    put_across<WIDTH>(v_tile, v);
    __syncthreads();
    take<WIDTH>(k, keys, k0 + KEYS);
    take<WIDTH>(v, values, k0 + KEYS);
    now = WORDS - now;
    if (k0 + KEYS <= my_first || k0 >= mine + OWN) continue;
    float s[KEYS / 8][4] = {};
    for (int step = 0; step < WIDTH / 16; ++step)
      if (16 * step < h.d_head) add_products<WIDTH>(s, q[step], k_tile, step);
    soften<WIDTH>(s, sums, 0, k0, upper, tops[0], totals[0], h.scale);
    soften<WIDTH>(s, sums, 1, k0, lower, tops[1], totals[1], h.scale);
    add_rows<WIDTH>(sums, s, v_tile, h.d_head);
  }
  u64 result0 = (u64)row * h.len * h.n_heads + head;
  write_rows<WIDTH>(out + result0 * h.d_head, h.n_heads * h.d_head, mine, h, sums, 1 / totals[0], 1 / totals[1]);
  for (int half = 0; half < 2; ++half) {
    int query = mine + group_of_lane() + 8 * half;
    if (threadIdx.x % 4 == 0 && query < h.len)
      log_sums[((u64)row * h.n_heads + head) * h.len + query] = tops[half] + logf(totals[half]);
  }
}

// A query, and what the backward pass knows of it.
struct Asked {
  Query query;
  float log_sum, delta;
};

FN Asked asked_of(int at, const float* log_sums, const float* deltas, const u16* start, int row, int head, const Mask& mask,
                  const Heads& h) {
  u64 number = ((u64)row * h.n_heads + head) * h.len + (at < h.len ? at : 0);
  return {query_of(at, start, row, head, mask, h), log_sums[number], deltas[number]};
}

// Of a score and its probability's slope: the probability, or zero where it was dropped, and the score's slope.
FN void turn_back(float& score, float& slope, const Asked& asked, int key, float scale) {
  bool seen = sees(asked.query, key);
  float share = seen ? expf(score * scale - asked.log_sum) : 0.f, kept = seen ? factor(asked.query.line, key) : 0.f;
  score = share * kept;
  slope = seen ? share * (slope * kept - asked.delta) * scale : 0.f;
}

// A block: 128 queries of one head of one row, over all keys that they see.
template <int WIDTH>
FN void attend_queries(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                       const u16* starts, const Mask& mask, const Heads& h) {
  const int ALONG = KEYS * (WIDTH / 2 + 8), WORDS = 2 * ALONG + KEYS / 2 * (WIDTH + 8), TURNS = KEYS * WIDTH / 2048;
  SHARED(u32, tiles);
  int stride = width_of(h), q0 = blockIdx.x * BLOCK, head = blockIdx.y, row = blockIdx.z, kv_head = head / (h.n_heads / h.n_kv_heads);
  int mine = q0 + threadIdx.x / 32 * OWN;
  u64 token0 = (u64)row * h.len;
  const u16* start = starts + token0;
  Rows keys = rows_of(qkv + token0 * stride + (h.n_heads + kv_head) * h.d_head, stride, h);
  Rows values = rows_of(qkv + token0 * stride + (h.n_heads + h.n_kv_heads + kv_head) * h.d_head, stride, h);
  u32 q[WIDTH / 16][4], d[WIDTH / 16][4];
  take_own(q, rows_of(qkv + token0 * stride + head * h.d_head, stride, h), mine);
  take_own(d, rows_of(d_out + (token0 * h.n_heads + head) * h.d_head, h.n_heads * h.d_head, h), mine);
  Asked upper = asked_of(mine + group_of_lane(), log_sums, deltas, start, row, head, mask, h);
  Asked lower = asked_of(mine + group_of_lane() + 8, log_sums, deltas, start, row, head, mask, h);
  float sums[WIDTH / 8][4] = {}, k[TURNS][2][4], v[TURNS][2][4];
  int k0 = lowest_start(start, q0, BLOCK, h.len) / KEYS * KEYS, my_first = lowest_start(start, mine, OWN, h.len), now = 0;
  for (; k0 < q0 + BLOCK && k0 < h.len; k0 += KEYS) {
    u32 *k_along = tiles + now, *v_along = k_along + ALONG, *k_across = v_along + ALONG;
    take<WIDTH>(k, keys, k0);
    take<WIDTH>(v, values, k0);
    put_along<WIDTH>(k_along, k);
    put_across<WIDTH>(k_across, k);
    put_along<WIDTH>(v_along, v);
    __syncthreads();
    now = WORDS - now;
    if (k0 + KEYS <= my_first || k0 >= mine + OWN) continue;
    float s[KEYS / 8][4] = {}, slopes[KEYS / 8][4] = {};
    for (int step = 0; step < WIDTH / 16; ++step) {
      if (16 * step >= h.d_head) continue;
      add_products<WIDTH>(s, q[step], k_along, step);
      add_products<WIDTH>(slopes, d[step], v_along, step);
    }
    for (int j = 0; j < KEYS / 8; ++j)
      for (int i = 0; i < 4; ++i) turn_back(s[j][i], slopes[j][i], i < 2 ? upper : lower, k0 + 8 * j + pair_of_lane() + i % 2, h.scale);
    add_rows<WIDTH>(sums, slopes, k_across, h.d_head);
  }
  write_rows<WIDTH>(d_qkv + token0 * stride + head * h.d_head, stride, mine, h, sums, 1, 1);
}

// A block: 128 keys and values of one head of one row, over all queries that see them.
template <int WIDTH>
FN void attend_keys(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                    const u16* starts, const Mask& mask, const Heads& h) {
  const int QUERIES = 2048 / WIDTH, OURS = BLOCK * (WIDTH / 2 + 8), ALONG = QUERIES * (WIDTH / 2 + 8), ACROSS = QUERIES / 2 * (WIDTH + 8);
  SHARED(u32, k_tile);
  u32 *v_tile = k_tile + OURS, *q_along = v_tile + OURS, *d_along = q_along + ALONG, *q_across = d_along + ALONG, *d_across = q_across + ACROSS;
  Asked* asked = reinterpret_cast<Asked*>(d_across + ACROSS);
  int stride = width_of(h), k0 = blockIdx.x * BLOCK, kv_head = blockIdx.y, row = blockIdx.z, group = h.n_heads / h.n_kv_heads;
  int own = threadIdx.x / 32 * OWN, mine = k0 + own;
  u64 token0 = (u64)row * h.len;
  const u16* start = starts + token0;
  int k_at = (h.n_heads + kv_head) * h.d_head, v_at = k_at + h.n_kv_heads * h.d_head;
  Rows keys = rows_of(qkv + token0 * stride + k_at, stride, h), values = rows_of(qkv + token0 * stride + v_at, stride, h);
  float x[1][2][4], d_x[1][2][4], d_k[WIDTH / 8][4] = {}, d_v[WIDTH / 8][4] = {};
  for (int first = 0; first < BLOCK; first += QUERIES) {
    take<WIDTH>(x, keys, k0 + first);
    put_along<WIDTH>(k_tile + along<WIDTH>(first, 0), x);
    take<WIDTH>(x, values, k0 + first);
    put_along<WIDTH>(v_tile + along<WIDTH>(first, 0), x);
  }
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    Rows queries = rows_of(qkv + token0 * stride + head * h.d_head, stride, h);
    Rows d_outs = rows_of(d_out + (token0 * h.n_heads + head) * h.d_head, h.n_heads * h.d_head, h);
    for (int q0 = k0; q0 < h.len; q0 += QUERIES) {
      int first = lowest_start(start, q0, QUERIES, h.len);
      if (first >= k0 + BLOCK) continue;
      take<WIDTH>(x, queries, q0);
      take<WIDTH>(d_x, d_outs, q0);
      __syncthreads();
      put_along<WIDTH>(q_along, x);
      put_across<WIDTH>(q_across, x);
      put_along<WIDTH>(d_along, d_x);
      put_across<WIDTH>(d_across, d_x);
      if (threadIdx.x < QUERIES) asked[threadIdx.x] = asked_of(q0 + threadIdx.x, log_sums, deltas, start, row, head, mask, h);
      __syncthreads();
      if (mine + OWN <= first) continue;
      for (int part = 0; part < QUERIES; part += OWN) {
        if (mine >= q0 + part + OWN) continue;
        float s[2][4] = {}, slopes[2][4] = {};
        for (int step = 0; step < WIDTH / 16; ++step) {
          if (16 * step >= h.d_head) continue;
          u32 k[4], v[4];
          for (int half = 0; half < 2; ++half) {
            int at = along<WIDTH>(own + group_of_lane() + 8 * half, 16 * step + 2 * pair_of_lane());
            read_two(k[half], k[half + 2], k_tile + at);
            read_two(v[half], v[half + 2], v_tile + at);
          }
          add_products<WIDTH>(s, k, q_along + along<WIDTH>(part, 0), step);
          add_products<WIDTH>(slopes, v, d_along + along<WIDTH>(part, 0), step);
        }
        for (int j = 0; j < 2; ++j)
          for (int i = 0; i < 4; ++i)
            turn_back(s[j][i], slopes[j][i], asked[part + 8 * j + pair_of_lane() + i % 2], mine + group_of_lane() + i / 2 * 8, h.scale);
        add_rows<WIDTH>(d_v, s, d_across + across<WIDTH>(part / 2, 0), h.d_head);
        add_rows<WIDTH>(d_k, slopes, q_across + across<WIDTH>(part / 2, 0), h.d_head);
      }
    }
  }
  write_rows<WIDTH>(d_qkv + token0 * stride + k_at, stride, mine, h, d_k, 1, 1);
  write_rows<WIDTH>(d_qkv + token0 * stride + v_at, stride, mine, h, d_v, 1, 1);
}
}  // namespace tensor

PAIRED_KERNEL attend_64_bf16(float* out, float* log_sums, const float* qkv, const u16* starts, Mask mask, Heads h) {
  tensor::attend<64>(out, log_sums, qkv, starts, mask, h);
}

KERNEL attend_128_bf16(float* out, float* log_sums, const float* qkv, const u16* starts, Mask mask, Heads h) {
  tensor::attend<128>(out, log_sums, qkv, starts, mask, h);
}

PAIRED_KERNEL attend_keys_64_bf16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                                  const u16* starts, Mask mask, Heads h) {
  tensor::attend_keys<64>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

KERNEL attend_keys_128_bf16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                            const u16* starts, Mask mask, Heads h) {
  tensor::attend_keys<128>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

PAIRED_KERNEL attend_queries_64_bf16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                                     const u16* starts, Mask mask, Heads h) {
  tensor::attend_queries<64>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}

KERNEL attend_queries_128_bf16(float* d_qkv, const float* qkv, const float* d_out, const float* log_sums, const float* deltas,
                               const u16* starts, Mask mask, Heads h) {
  tensor::attend_queries<128>(d_qkv, qkv, d_out, log_sums, deltas, starts, mask, h);
}
