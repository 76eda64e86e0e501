// What needs sums over a row or over a column: norms, biases, the loss.
#include "words.h"

// A warp is a row. `stats` are a row's mean (zero without `layer`) and one over its deviation.
KERNEL normed(float* y, float* stats, const float* x, const float* gain, const float* bias, int layer,
              float eps, int width, int rows) {
  u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (row >= (u32)rows) return;
  const float* from = x + (u64)row * width;
  float mean = 0;
  if (layer) {
    for (int i = lane; i < width; i += 32) mean += from[i];
    mean = warp_sum(mean) / width;
  }
  float squares = 0;
  for (int i = lane; i < width; i += 32) squares += (from[i] - mean) * (from[i] - mean);
  float scale = 1.f / sqrtf(warp_sum(squares) / width + eps);
  for (int i = lane; i < width; i += 32)
    y[(u64)row * width + i] = (from[i] - mean) * scale * gain[i] + (bias ? bias[i] : 0.f);
  if (lane == 0) {
    stats[2 * row] = mean;
    stats[2 * row + 1] = scale;
  }
}

// The same again from the kept statistics.
KERNEL norm_again(float* y, const float* stats, const float* x, const float* gain, const float* bias, int width) {
  u32 row = blockIdx.x;
  float mean = stats[2 * row], scale = stats[2 * row + 1];
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    u64 at = (u64)row * width + i;
    y[at] = (x[at] - mean) * scale * gain[i] + (bias ? bias[i] : 0.f);
  }
}

KERNEL norm_backward(float* d_x, const float* d_y, const float* stats, const float* x, const float* gain,
                     int layer, int accumulate, int width, int rows) {
  u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x & 31;
  if (row >= (u32)rows) return;
  u64 at = (u64)row * width;
  float mean = stats[2 * row], scale = stats[2 * row + 1], all = 0, along = 0;
  for (int i = lane; i < width; i += 32) {
    float d = d_y[at + i] * gain[i];
    all += d;
    along += d * (x[at + i] - mean) * scale;
  }
  along = warp_sum(along) / width;
  all = layer ? warp_sum(all) / width : 0.f;
  for (int i = lane; i < width; i += 32) {
    float normed = (x[at + i] - mean) * scale;
    float d = scale * (d_y[at + i] * gain[i] - all - normed * along);
    d_x[at + i] = accumulate ? d_x[at + i] + d : d;
  }
}

// Sums over `chunk` rows of each column: of d, and of d times the normed x where there is one.
// A block is 32 columns of a chunk; its 8 lines of threads take every eighth row.
KERNEL column_sums(float* sums, float* along, const float* d, const float* x, const float* stats,
                   int width, int rows, int chunk) {
  SHARED(float, parts);
  int column = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
  int first = blockIdx.y * chunk, last = first + chunk < rows ? first + chunk : rows;
  float sum = 0, product = 0;
  if (column < width)
    for (int row = first + lane; row < last; row += 8) {
      u64 at = (u64)row * width + column;
      sum += d[at];
      if (x) product += d[at] * (x[at] - stats[2 * row]) * stats[2 * row + 1];
    }
  parts[threadIdx.x] = sum;
  parts[256 + threadIdx.x] = product;
  __syncthreads();
  if (lane || column >= width) return;
  for (int l = 1; l < 8; ++l) {
    sum += parts[l * 32 + threadIdx.x];
    product += parts[256 + l * 32 + threadIdx.x];
  }
  sums[(u64)blockIdx.y * width + column] = sum;
  if (x) along[(u64)blockIdx.y * width + column] = product;
}

// Adds parts of n numbers each, one after the other.
KERNEL add_parts(float* to, const float* parts, int n_parts, int accumulate, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float sum = accumulate ? to[i] : 0.f;
  for (int part = 0; part < n_parts; ++part) sum += parts[(u64)part * n + i];
  to[i] = sum;
}

// A block is a row of logits that counts; with `gradient` the row becomes the loss's gradient.
KERNEL cross_entropy(float* logits, const u16* targets, const float* weights, const u32* rows, float* losses,
                     float smoothing, int gradient, int n) {
  SHARED(float, part);
  float* row = logits + (u64)blockIdx.x * n;
  float weight = weights[rows[blockIdx.x]], top = -INF, sum = 0, all = 0;
  int target = targets[rows[blockIdx.x]];
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    top = row[i] > top ? row[i] : top;
    all += row[i];
  }
  top = block_max(top, part);
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - top);
  sum = block_sum(sum, part);
  float mean = smoothing > 0 ? block_sum(all, part) / n : 0.f;
  float log_sum = top + logf(sum), at_target = row[target];
  __syncthreads();
  if (threadIdx.x == 0)
    losses[blockIdx.x] = weight * (log_sum - (1.f - smoothing) * at_target - smoothing * mean);
  if (!gradient) return;
  float scale = weight / sum, everywhere = weight * smoothing / n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    float d = expf(row[i] - top) * scale - everywhere;
    row[i] = i == target ? d - weight * (1.f - smoothing) : d;
  }
}

// The loss of a row, and how many logits are above the target's.
KERNEL score(const float* logits, const u16* targets, float* losses, u32* ranks, int n) {
  SHARED(float, part);
  const float* row = logits + (u64)blockIdx.x * n;
  float at_target = row[targets[blockIdx.x]], top = -INF, above = 0, sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    top = row[i] > top ? row[i] : top;
    above += row[i] > at_target ? 1.f : 0.f;
  }
  top = block_max(top, part);
  above = block_sum(above, part);
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - top);
  sum = block_sum(sum, part);
  if (threadIdx.x) return;
  losses[blockIdx.x] = top + logf(sum) - at_target;
  ranks[blockIdx.x] = above > 255.f ? 255u : (u32)above;
}

// total += the losses, in f64 and always in the same order. One block.
KERNEL add_losses(double* total, const float* losses, int n) {
  SHARED(double, parts);
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += losses[i];
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (u32 i = 1; i < blockDim.x; ++i) sum += parts[i];
  *total += sum;
}
