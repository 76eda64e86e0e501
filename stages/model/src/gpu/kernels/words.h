// The words that kernels may use: the hardware's under NVRTC, the emulator's under a C++ compiler.
// No header of CUDA's is needed, so the wheel that holds NVRTC alone compiles them.
#pragma once
#ifdef __CUDACC_RTC__
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL extern "C" __global__ void
// Blocks of 256 threads, two of which a multiprocessor holds: a thread has 128 registers.
#define PAIRED_KERNEL extern "C" __global__ void __launch_bounds__(256, 2)
#define FN __device__ __forceinline__
extern __shared__ __align__(16) unsigned char shared_bytes[];
#define SHARED(T, name) T* name = reinterpret_cast<T*>(shared_bytes)
#define INF __int_as_float(0x7f800000)
FN float from_lane(float v, int other) { return __shfl_xor_sync(0xffffffffu, v, other); }
FN u32 bits_of(float x) { return __float_as_uint(x); }
FN float of_bits(u32 x) { return __uint_as_float(x); }
FN void copy_async(float* shared, const float* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\n" ::"r"((u32)__cvta_generic_to_shared(shared)),
               "l"(global));
}
FN void wait_for_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }
// Four or two neighbours at once, where they begin at a multiple of all their bytes.
FN void read_four(float (&to)[4], const float* from) {
  float4 x = *reinterpret_cast<const float4*>(from);
  to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
}
FN void write_four(u32* to, const u32 (&x)[4]) { *reinterpret_cast<uint4*>(to) = {x[0], x[1], x[2], x[3]}; }
FN void read_two(u32& first, u32& second, const u32* from) {
  uint2 x = *reinterpret_cast<const uint2*>(from);
  first = x.x, second = x.y;
}
FN void write_two(u32* to, u32 first, u32 second) { *reinterpret_cast<uint2*>(to) = {first, second}; }
// The nearest bf16 of each, ties to even, in a word.
FN u32 pack(float low, float high) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
// A warp adds the product of 16 x 16 and 16 x 8 packed numbers to its sums. Of lane 4 g + t: `a` holds the pairs of
// columns 2 t of rows g and g + 8, then the same eight columns on; `b` pairs of rows 2 t and 2 t + 8, of column g;
// `sums` columns 2 t and 2 t + 1 of row g, then of row g + 8.
FN void mma(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
#include "emulator.h"
#endif

// Which numbers of a line are dropped: `noise.rs` to the bit.
struct Mask {
  u64 key;
  u32 row_offset, len;
  u32 below;  // 0: nothing is dropped
  float scale;
};

struct Line {
  u32 low, high, below;
  float scale;
};

FN u64 mix(u64 x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

FN Line line_of(const Mask& mask, u32 token, u32 lane) {
  if (mask.below == 0) return {0, 0, 0, 1.f};
  u64 row = token / mask.len, at = token % mask.len;
  u64 key = mix(mix(mask.key ^ (mask.row_offset + row)) ^ (at << 32 | lane));
  return {(u32)key, (u32)(key >> 32) | 1u, mask.below, mask.scale};
}

FN float factor(const Line& line, u32 column) {
  if (line.below == 0) return 1.f;
  u32 x = column * 0x9e3779b9u ^ line.low;
  x = (x ^ (x >> 16)) * line.high;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  x = x ^ (x >> 16);
  return x < line.below ? 0.f : line.scale;
}

// The nearest bf16, ties to even, as an f32.
FN float rounded(float x, int round) {
  if (!round || x != x) return x;
  u32 b = bits_of(x);
  return of_bits((b + 0x7fffu + (b >> 16 & 1u)) & 0xffff0000u);
}

// Every lane gets the same sum, added in an order that lanes do not change.
FN float warp_sum(float v) {
  for (int o = 16; o; o >>= 1) v += from_lane(v, o);
  return v;
}

FN float warp_max(float v) {
  for (int o = 16; o; o >>= 1) {
    float other = from_lane(v, o);
    v = other > v ? other : v;
  }
  return v;
}

// The sum over a block of whole warps; `part` holds a number a warp and may be used again after.
FN float block_sum(float v, float* part) {
  int warps = blockDim.x / 32;
  v = warp_sum(v);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < warps; ++w) sum += part[w];
  __syncthreads();
  return sum;
}

FN float block_max(float v, float* part) {
  int warps = blockDim.x / 32;
  v = warp_max(v);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  float top = part[0];
  for (int w = 1; w < warps; ++w) top = part[w] > top ? part[w] : top;
  __syncthreads();
  return top;
}

// Values and slopes of the activations, by their number in `gpu/ops.rs`.
enum { GELU_TANH, GELU, RELU, SILU };

struct Curve {
  float value, slope;
};

FN Curve activation(int kind, float x) {
  if (kind == RELU) return {x > 0 ? x : 0.f, x > 0 ? 1.f : 0.f};
  if (kind == SILU) {
    float s = 1.f / (1.f + expf(-x));
    return {x * s, s + x * s * (1.f - s)};
  }
  if (kind == GELU_TANH) {
    const float a = 1.595769f, c = 0.044715f;
    float s = 1.f / (1.f + expf(-a * x * (1.f + c * x * x)));
    return {x * s, s + x * s * (1.f - s) * a * (1.f + 3.f * c * x * x)};
  }
  // erf by Abramowitz and Stegun 7.1.26: within 1.5e-7.
  float z = fabsf(x) * 0.70710678f, t = 1.f / (1.f + 0.3275911f * z), bell = expf(-0.5f * x * x);
  float tail = t * (0.2548296f + t * (-0.28449672f + t * (1.4214138f + t * (-1.453152f + t * 1.0614054f)))) * bell;
  float phi = x >= 0 ? 1.f - 0.5f * tail : 0.5f * tail;
  return {x * phi, phi + x * 0.3989423f * bell};
}
