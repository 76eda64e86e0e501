// Products of numbers that are rounded to bf16, in tiles of f16: what `products.wgsl` is for f32.
//
// By a power of two an operand's largest is brought between 2^15 and 2^16, close to the largest f16. So a tile holds
// what a tile of f32 would, in half of the memory; `../halves.rs` says what is lost, and why no more is done in f16.

const TOPS = 128u;
const DEEP = 32u;
const INFINITE = 0x7f800000u;

var<workgroup> left_halves: array<vec4<f16>, 544>;
var<workgroup> right_halves: array<vec4<f16>, 544>;
var<workgroup> tops: array<u32, 256>;

// The largest magnitudes of parts of both operands, as the bits of numbers: they are in the numbers' order, and
// behind them come infinity and what is no number.
@compute @workgroup_size(256)
fn k_largest(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let block = block_of(g); let x = word(1u + block.y); let n = word(3u + block.y);
  var top = 0u;
  for (var i = block.x * 256u + t; i < n; i += 256u * TOPS) { top = max(top, get_word(x, i) & 0x7fffffffu); }
  tops[t] = top;
  workgroupBarrier();
  for (var half = 128u; half > 0u; half = half / 2u) {
    if (t < half) { tops[t] = max(tops[t], tops[t + half]); }
    workgroupBarrier();
  }
  // What is added may carry into the exponent, as it does where a number is rounded.
  top = tops[0];
  if (top <= INFINITE) { top = (top + 0x7fffu + ((top >> 16u) & 1u)) & 0xffff0000u; }
  if (t == 0u) { set_word(word(0u), block.y * TOPS + block.x, top); }
}

// The power of two that brings an operand's largest up or down, where an f32 holds it.
fn shift_of(top: u32) -> i32 { return min(142 - i32(top >> 23u), 126); }
fn power(shift: i32) -> f32 { return bitcast<f32>(u32(shift + 127) << 23u); }

fn multiply_halves(block: vec3<u32>, t: u32, a_along: bool, b_along: bool) {
  tops[t] = get_word(word(19u), t);
  workgroupBarrier();
  for (var half = TOPS / 2u; half > 0u; half = half / 2u) {
    if (t % TOPS < half) { tops[t] = max(tops[t], tops[t + half]); }
    workgroupBarrier();
  }
  let a_top = tops[0]; let b_top = tops[TOPS];
  let a_scale = power(shift_of(a_top)); let b_scale = power(shift_of(b_top));
  let m = word(3u); let n = word(4u); let k = word(5u); let round = word(7u);
  let row0 = block.y * TILE; let column0 = block.x * TILE;
  let first = block.z * word(6u); let end = min(first + word(6u), k);
  let a_stride = select(m, k, a_along); let b_stride = select(n, k, b_along);
  // Neighbours read neighbours: along k, or across. Each thread reads twice.
  let a_row = select(t % 16u, t / 32u, a_along); let a_k = select(t / 16u, t % 32u, a_along);
  let b_row = select(t % 16u, t / 32u, b_along); let b_k = select(t / 16u, t % 32u, b_along);
  let a_next = select(vec2<u32>(0u, 16u), vec2<u32>(8u, 0u), a_along);
  let b_next = select(vec2<u32>(0u, 16u), vec2<u32>(8u, 0u), b_along);
  var sum0 = vec4<f32>(0.0); var sum1 = vec4<f32>(0.0); var sum2 = vec4<f32>(0.0); var sum3 = vec4<f32>(0.0);
  for (var k0 = first; k0 < end; k0 += DEEP) {
    for (var i = 0u; i < 2u; i++) {
      let a_at = vec2<u32>(a_row, a_k) + i * a_next; let b_at = vec2<u32>(b_row, b_k) + i * b_next;
      let a = tile_numbers(a_along, word(1u), row0 + 4u * a_at.x, k0 + a_at.y, m, end, a_stride, round);
      let b = tile_numbers(b_along, word(2u), column0 + 4u * b_at.x, k0 + b_at.y, n, end, b_stride, round);
      left_halves[a_at.y * PITCH + a_at.x] = vec4<f16>(a * a_scale);
      right_halves[b_at.y * PITCH + b_at.x] = vec4<f16>(b * b_scale);
    }
    workgroupBarrier();
    for (var q = 0u; q < DEEP; q++) {
      let x = vec4<f32>(left_halves[q * PITCH + t / 16u]); let y = vec4<f32>(right_halves[q * PITCH + t % 16u]);
      sum0 += x.x * y;
      sum1 += x.y * y;
      sum2 += x.z * y;
      sum3 += x.w * y;
    }
    workgroupBarrier();
  }
  // In two steps: for one it may be more than an f32 holds.
  let shift = -(shift_of(a_top) + shift_of(b_top));
  var back = vec2<f32>(power(shift / 2), power(shift - shift / 2));
  if (a_top >= INFINITE) { back.x = bitcast<f32>(a_top); }
  if (b_top >= INFINITE) { back.y = bitcast<f32>(b_top); }
  let row = row0 + t / 16u * 4u; let column = column0 + t % 16u * 4u;
  finish_four(row, column, m, n, sum0 * back.x * back.y, block.z);
  finish_four(row + 1u, column, m, n, sum1 * back.x * back.y, block.z);
  finish_four(row + 2u, column, m, n, sum2 * back.x * back.y, block.z);
  finish_four(row + 3u, column, m, n, sum3 * back.x * back.y, block.z);
}

@compute @workgroup_size(256)
fn k_product_nt_f16(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply_halves(block_of(g), t, true, true);
}

@compute @workgroup_size(256)
fn k_product_nn_f16(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply_halves(block_of(g), t, true, false);
}

@compute @workgroup_size(256)
fn k_product_tn_f16(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply_halves(block_of(g), t, false, false);
}
