// Products of matrices in tiles of shared memory, and what follows a linear map: `../kernels/products.cu`.

// What becomes of a sum: eleven words, of which six are a mask.
fn finish(y: u32, row: u32, column: u32, n: u32, sum: f32, after: u32) {
  let at = row * n + column; let mask = after + 3u; let then = word(after + 9u);
  var x = sum;
  if (word(after) != 0u) { x += load(word(after), column); }
  if (then == 1u) {
    x += load(y, at);
  } else if (then == 2u) {
    store(word(after + 2u), at, x);
    x = activation(word(after + 10u), x).x * factor(line_of(mask, row, 0u), column);
  } else if (then == 3u) {
    x = x * factor(line_of(mask, row, 0u), column) + load(word(after + 1u), at);
  }
  store(y, at, x);
}

const TILE = 64u;
const DEPTH = 16u;
const PITCH = 17u;

// Four rows or columns in each number, and a gap against threads that meet in one bank.
var<workgroup> left: array<vec4<f32>, 272>;
var<workgroup> right: array<vec4<f32>, 272>;

// Four numbers of a tile, of as many rows: `along` says that a row's numbers lie along k.
fn tile_numbers(along: bool, x: u32, row: u32, k: u32, limit: u32, end: u32, stride: u32, round: u32) -> vec4<f32> {
  var numbers = vec4<f32>(0.0);
  if (k >= end) { return numbers; }
  let at = select(k * stride + row, row * stride + k, along); let step = select(1u, stride, along);
  if (row < limit) { numbers.x = rounded(load(x, at), round); }
  if (row + 1u < limit) { numbers.y = rounded(load(x, at + step), round); }
  if (row + 2u < limit) { numbers.z = rounded(load(x, at + 2u * step), round); }
  if (row + 3u < limit) { numbers.w = rounded(load(x, at + 3u * step), round); }
  return numbers;
}

fn finish_four(row: u32, column: u32, m: u32, n: u32, sums: vec4<f32>, part: u32) {
  if (row >= m) { return; }
  for (var j = 0u; j < 4u; j++) {
    if (column + j < n) {
      if (words[0].z > 1u) { store(word(0u), (part * m + row) * n + column + j, sums[j]); }
      else { finish(word(0u), row, column + j, n, sums[j], 8u); }
    }
  }
}

fn multiply(block: vec3<u32>, t: u32, a_along: bool, b_along: bool) {
  let m = word(3u); let n = word(4u); let k = word(5u); let round = word(7u);
  let row0 = block.y * TILE; let column0 = block.x * TILE;
  let first = block.z * word(6u); let end = min(first + word(6u), k);
  let a_stride = select(m, k, a_along); let b_stride = select(n, k, b_along);
  // Neighbours read neighbours: along k, or across.
  let a_row = select(t % 16u, t / 16u, a_along); let a_k = select(t / 16u, t % 16u, a_along);
  let b_row = select(t % 16u, t / 16u, b_along); let b_k = select(t / 16u, t % 16u, b_along);
  var sum0 = vec4<f32>(0.0); var sum1 = vec4<f32>(0.0); var sum2 = vec4<f32>(0.0); var sum3 = vec4<f32>(0.0);
  for (var k0 = first; k0 < end; k0 += DEPTH) {
    left[a_k * PITCH + a_row] =
      tile_numbers(a_along, word(1u), row0 + 4u * a_row, k0 + a_k, m, end, a_stride, round);
    right[b_k * PITCH + b_row] =
      tile_numbers(b_along, word(2u), column0 + 4u * b_row, k0 + b_k, n, end, b_stride, round);
    workgroupBarrier();
    for (var q = 0u; q < DEPTH; q++) {
      let x = left[q * PITCH + t / 16u]; let y = right[q * PITCH + t % 16u];
      sum0 += x.x * y;
      sum1 += x.y * y;
      sum2 += x.z * y;
      sum3 += x.w * y;
    }
    workgroupBarrier();
  }
  let row = row0 + t / 16u * 4u; let column = column0 + t % 16u * 4u;
  finish_four(row, column, m, n, sum0, block.z);
  finish_four(row + 1u, column, m, n, sum1, block.z);
  finish_four(row + 2u, column, m, n, sum2, block.z);
  finish_four(row + 3u, column, m, n, sum3, block.z);
}

@compute @workgroup_size(256)
fn k_product_nt(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply(block_of(g), t, true, true);
}

@compute @workgroup_size(256)
fn k_product_nn(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply(block_of(g), t, true, false);
}

@compute @workgroup_size(256)
fn k_product_tn(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  multiply(block_of(g), t, false, false);
}

@compute @workgroup_size(256)
fn k_finish_parts(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t; let n = word(4u); let all = word(3u) * n;
  if (is_beyond(g) || i >= all) { return; }
  var sum = 0.0;
  for (var part = 0u; part < word(2u); part++) { sum += load(word(1u), part * all + i); }
  finish(word(0u), i / n, i % n, n, sum, 5u);
}
