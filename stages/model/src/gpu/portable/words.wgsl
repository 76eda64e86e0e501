// The words of the kernels for GPUs of every maker: what `words.h` and `heads.h` are for NVIDIA's.
//
// All memory is one array, and an address counts its bytes from the start: so a pointer is a number here too, and
// each kernel reads as its twin in `../kernels`. Its arguments are words, in the order of the launch, behind the
// grid. There are no 64-bit numbers: sums are f32 in trees, and a key is two words.

@group(0) @binding(0) var<storage, read_write> memory: array<u32>;
@group(0) @binding(1) var<uniform> words: array<vec4<u32>, 16>;

// Words of the grid, before the arguments.
const FIRST = 4u;
// Groups in a row of a dispatch, which no GPU allows more of.
const ACROSS = 65535u;
// Below every score, where no infinity can be written.
const NOTHING = -3.0e38;

var<workgroup> shared_sums: array<f32, 256>;

fn word(i: u32) -> u32 { return words[(FIRST + i) / 4u][(FIRST + i) % 4u]; }
fn number(i: u32) -> f32 { return bitcast<f32>(word(i)); }

fn load(p: u32, i: u32) -> f32 { return bitcast<f32>(memory[(p >> 2u) + i]); }
fn store(p: u32, i: u32, x: f32) { memory[(p >> 2u) + i] = bitcast<u32>(x); }
fn get_word(p: u32, i: u32) -> u32 { return memory[(p >> 2u) + i]; }
fn set_word(p: u32, i: u32, x: u32) { memory[(p >> 2u) + i] = x; }
fn get_half(p: u32, i: u32) -> u32 {
  let at = p + 2u * i;
  return (memory[at >> 2u] >> (8u * (at & 2u))) & 0xffffu;
}

// The block of a grid that a group is, which may be none of it.
fn is_beyond(group: vec3<u32>) -> bool {
  return group.y * ACROSS + group.x >= words[0].x * words[0].y * words[0].z;
}
fn block_of(group: vec3<u32>) -> vec3<u32> {
  let at = group.y * ACROSS + group.x;
  return vec3<u32>(at % words[0].x, at / words[0].x % words[0].y, at / (words[0].x * words[0].y));
}

// The nearest bf16, ties to even, as an f32.
fn rounded(x: f32, round: u32) -> f32 {
  let b = bitcast<u32>(x);
  if (round == 0u || (b & 0x7fffffffu) > 0x7f800000u) { return x; }
  return bitcast<f32>((b + 0x7fffu + ((b >> 16u) & 1u)) & 0xffff0000u);
}

// The low and the high word of a product.
fn product_of(a: u32, b: u32) -> vec2<u32> {
  let al = a & 0xffffu; let ah = a >> 16u; let bl = b & 0xffffu; let bh = b >> 16u;
  let low = al * bl; let m1 = ah * bl; let m2 = al * bh;
  let middle = (low >> 16u) + (m1 & 0xffffu) + (m2 & 0xffffu);
  return vec2<u32>((low & 0xffffu) | (middle << 16u), ah * bh + (m1 >> 16u) + (m2 >> 16u) + (middle >> 16u));
}
fn times(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = product_of(a.x, b.x);
  return vec2<u32>(low.x, low.y + a.x * b.y + a.y * b.x);
}
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
fn shifted(a: vec2<u32>, n: u32) -> vec2<u32> { return vec2<u32>((a.x >> n) | (a.y << (32u - n)), a.y >> n); }

fn mix(x: vec2<u32>) -> vec2<u32> {
  var v = plus(x, vec2<u32>(0x7f4a7c15u, 0x9e3779b9u));
  v = times(v ^ shifted(v, 30u), vec2<u32>(0x1ce4e5b9u, 0xbf58476du));
  v = times(v ^ shifted(v, 27u), vec2<u32>(0x133111ebu, 0x94d049bbu));
  return v ^ shifted(v, 31u);
}

// Which numbers of a line are dropped: `noise.rs` to the bit. A mask is six words.
struct Line { low: u32, high: u32, below: u32, scale: f32 }

fn line_of(mask: u32, token: u32, lane: u32) -> Line {
  let below = word(mask + 4u);
  if (below == 0u) { return Line(0u, 0u, 0u, 1.0); }
  let len = word(mask + 3u);
  let row = plus(vec2<u32>(word(mask + 2u), 0u), vec2<u32>(token / len, 0u));
  let key = mix(mix(vec2<u32>(word(mask), word(mask + 1u)) ^ row) ^ vec2<u32>(lane, token % len));
  return Line(key.x, key.y | 1u, below, number(mask + 5u));
}

fn factor(line: Line, column: u32) -> f32 {
  if (line.below == 0u) { return 1.0; }
  var x = (column * 0x9e3779b9u) ^ line.low;
  x = (x ^ (x >> 16u)) * line.high;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  x = x ^ (x >> 16u);
  return select(line.scale, 0.0, x < line.below);
}

// The sum over a group of 256, or of so many of it; all of them call it.
fn group_sum(x: f32, t: u32, n: u32) -> f32 {
  workgroupBarrier();
  shared_sums[t] = x;
  workgroupBarrier();
  for (var half = n / 2u; half > 0u; half = half / 2u) {
    if (t < half) { shared_sums[t] += shared_sums[t + half]; }
    workgroupBarrier();
  }
  let sum = workgroupUniformLoad(&shared_sums[0]);
  return sum;
}
fn group_max(x: f32, t: u32, n: u32) -> f32 {
  workgroupBarrier();
  shared_sums[t] = x;
  workgroupBarrier();
  for (var half = n / 2u; half > 0u; half = half / 2u) {
    if (t < half) { shared_sums[t] = max(shared_sums[t], shared_sums[t + half]); }
    workgroupBarrier();
  }
  let top = workgroupUniformLoad(&shared_sums[0]);
  return top;
}

// Values and slopes of the activations, by their number in `gpu/ops.rs`.
fn activation(kind: u32, x: f32) -> vec2<f32> {
  if (kind == 2u) { return select(vec2<f32>(0.0), vec2<f32>(x, 1.0), x > 0.0); }
  if (kind == 3u) {
    let s = 1.0 / (1.0 + exp(-x));
    return vec2<f32>(x * s, s + x * s * (1.0 - s));
  }
  if (kind == 0u) {
    let s = 1.0 / (1.0 + exp(-1.595769 * x * (1.0 + 0.044715 * x * x)));
    return vec2<f32>(x * s, s + x * s * (1.0 - s) * 1.595769 * (1.0 + 3.0 * 0.044715 * x * x));
  }
  // erf by Abramowitz and Stegun 7.1.26: within 1.5e-7.
  let z = abs(x) * 0.70710678; let t = 1.0 / (1.0 + 0.3275911 * z); let bell = exp(-0.5 * x * x);
  let tail = t * (0.2548296 + t * (-0.28449672 + t * (1.4214138 + t * (-1.453152 + t * 1.0614054)))) * bell;
  let phi = select(0.5 * tail, 1.0 - 0.5 * tail, x >= 0.0);
  return vec2<f32>(x * phi, phi + x * 0.3989423 * bell);
}

// How a token's heads lie; six words: query heads, key heads, width, rows' length, whether to round, scale.
struct Heads { n: u32, n_kv: u32, d: u32, len: u32, round: u32, scale: f32 }
fn heads_at(i: u32) -> Heads {
  return Heads(word(i), word(i + 1u), word(i + 2u), word(i + 3u), word(i + 4u), number(i + 5u));
}
fn width_of(h: Heads) -> u32 { return (h.n + 2u * h.n_kv) * h.d; }
