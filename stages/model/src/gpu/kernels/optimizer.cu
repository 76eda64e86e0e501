// The norm of all gradients, and the update it scales; whether there is one is decided here.
#include "words.h"

const u64 SQUARES = 4096;

// A block's share of the sum of squares.
KERNEL squares(double* parts, const float* x, u64 n) {
  SHARED(double, sums);
  u64 first = blockIdx.x * SQUARES, last = first + SQUARES < n ? first + SQUARES : n;
  double sum = 0;
  for (u64 i = first + threadIdx.x; i < last; i += blockDim.x) sum += (double)x[i] * x[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (u32 i = 1; i < blockDim.x; ++i) sum += sums[i];
  parts[blockIdx.x] = sum;
}

struct Judgement {
  double norm;
  float scale;  // of gradients: clipping and averaging
  u32 applied;
};

// One block: adds the parts in order and decides.
KERNEL judge(Judgement* judgement, const double* parts, int n, double divisor, double clip) {
  SHARED(double, sums);
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += parts[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x) return;
  for (u32 i = 1; i < blockDim.x; ++i) sum += sums[i];
  double norm = sqrt(sum) / divisor, share = clip / (norm + 1e-6);
  judgement->norm = norm;
  judgement->applied = norm - norm == 0;
  judgement->scale = (float)((share < 1 ? share : 1.) / divisor);
}

// Numbers of one step; see `kernels/optimizer.rs`.
struct Adam {
  float beta1, beta2, eps, lr, correction2, keep;
};

KERNEL adam(float* weight, const float* grad, float* m, float* v, const Judgement* judgement, Adam step, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n || !judgement->applied) return;
  float g = grad[i] * judgement->scale;
  m[i] = step.beta1 * m[i] + (1.f - step.beta1) * g;
  v[i] = step.beta2 * v[i] + (1.f - step.beta2) * g * g;
  weight[i] = weight[i] * step.keep - step.lr * m[i] / (sqrtf(v[i] * step.correction2) + step.eps);
}

// Nesterov momentum: the gradient becomes one step of looking ahead.
KERNEL look_ahead(float* grad, float* m, const Judgement* judgement, float momentum, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n || !judgement->applied) return;
  float g = grad[i] * judgement->scale;
  m[i] = momentum * m[i] + (1.f - momentum) * g;
  grad[i] = momentum * m[i] + (1.f - momentum) * g;
}

// x / its norm. Every block adds the parts for itself, in order.
KERNEL to_unit(float* x, const double* parts, int n_parts, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  double sum = 0;
  for (int part = 0; part < n_parts; ++part) sum += parts[part];
  float scale = 1.f / ((float)sqrt(sum) + 1e-7f);
  if (i < n) x[i] *= scale;
}

KERNEL move(float* weight, const float* direction, const Judgement* judgement, float keep, float lr, u64 n) {
  u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && judgement->applied) weight[i] = weight[i] * keep - lr * direction[i];
}
