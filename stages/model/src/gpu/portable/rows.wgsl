// What needs sums over a row or over a column: `../kernels/rows.cu`.

// A line of 32 threads is a row, as a warp is; each takes its own part of the shared sums.
fn line_sum(x: f32, t: u32) -> f32 {
  workgroupBarrier();
  shared_sums[t] = x;
  workgroupBarrier();
  for (var half = 16u; half > 0u; half = half / 2u) {
    if (t % 32u < half) { shared_sums[t] += shared_sums[t + half]; }
    workgroupBarrier();
  }
  return shared_sums[t / 32u * 32u];
}

@compute @workgroup_size(128)
fn k_normed(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let row = block_of(g).x * 4u + t / 32u; let lane = t % 32u; let width = word(7u);
  let is_row = row < word(8u); let at = row * width; let end = select(0u, width, is_row);
  var mean = 0.0;
  if (word(5u) != 0u) {
    for (var i = lane; i < end; i += 32u) { mean += load(word(2u), at + i); }
    mean = line_sum(mean, t) / f32(width);
  }
  var squares = 0.0;
  for (var i = lane; i < end; i += 32u) {
    let x = load(word(2u), at + i) - mean;
    squares += x * x;
  }
  let scale = 1.0 / sqrt(line_sum(squares, t) / f32(width) + number(6u));
  for (var i = lane; i < end; i += 32u) {
    var y = (load(word(2u), at + i) - mean) * scale * load(word(3u), i);
    if (word(4u) != 0u) { y += load(word(4u), i); }
    store(word(0u), at + i, y);
  }
  if (is_row && lane == 0u) {
    store(word(1u), 2u * row, mean);
    store(word(1u), 2u * row + 1u, scale);
  }
}

@compute @workgroup_size(128)
fn k_norm_again(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let row = block_of(g).x; let width = word(5u);
  let mean = load(word(1u), 2u * row); let scale = load(word(1u), 2u * row + 1u);
  for (var i = t; i < width; i += 128u) {
    var y = (load(word(2u), row * width + i) - mean) * scale * load(word(3u), i);
    if (word(4u) != 0u) { y += load(word(4u), i); }
    store(word(0u), row * width + i, y);
  }
}

@compute @workgroup_size(128)
fn k_norm_backward(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let row = block_of(g).x * 4u + t / 32u; let lane = t % 32u; let width = word(7u);
  let end = select(0u, width, row < word(8u)); let at = row * width;
  let mean = load(word(2u), 2u * row); let scale = load(word(2u), 2u * row + 1u);
  var all = 0.0; var along = 0.0;
  for (var i = lane; i < end; i += 32u) {
    let d = load(word(1u), at + i) * load(word(4u), i);
    all += d;
    along += d * (load(word(3u), at + i) - mean) * scale;
  }
  along = line_sum(along, t) / f32(width);
  if (word(5u) != 0u) { all = line_sum(all, t) / f32(width); } else { all = 0.0; }
  for (var i = lane; i < end; i += 32u) {
    let normed = (load(word(3u), at + i) - mean) * scale;
    let d = scale * (load(word(1u), at + i) * load(word(4u), i) - all - normed * along);
    if (word(6u) != 0u) { store(word(0u), at + i, load(word(0u), at + i) + d); } else { store(word(0u), at + i, d); }
  }
}

var<workgroup> shared_along: array<f32, 256>;

@compute @workgroup_size(256)
fn k_column_sums(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let b = block_of(g); let width = word(5u); let chunk = word(7u);
  let column = b.x * 32u + t % 32u; let lane = t / 32u;
  let first = b.y * chunk; let last = min(first + chunk, word(6u));
  let x = word(3u); let stats = word(4u);
  var sum = 0.0; var along = 0.0;
  if (column < width) {
    for (var row = first + lane; row < last; row += 8u) {
      let d = load(word(2u), row * width + column);
      sum += d;
      if (x != 0u) { along += d * (load(x, row * width + column) - load(stats, 2u * row)) * load(stats, 2u * row + 1u); }
    }
  }
  shared_sums[t] = sum;
  shared_along[t] = along;
  workgroupBarrier();
  if (lane != 0u || column >= width) { return; }
  for (var l = 1u; l < 8u; l++) {
    sum += shared_sums[l * 32u + t];
    along += shared_along[l * 32u + t];
  }
  store(word(0u), b.y * width + column, sum);
  if (x != 0u) { store(word(1u), b.y * width + column, along); }
}

@compute @workgroup_size(256)
fn k_add_parts(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t; let n = word(4u);
  if (is_beyond(g) || i >= n) { return; }
  var sum = 0.0;
  if (word(3u) != 0u) { sum = load(word(0u), i); }
  for (var part = 0u; part < word(2u); part++) { sum += load(word(1u), part * n + i); }
  store(word(0u), i, sum);
}

@compute @workgroup_size(256)
fn k_cross_entropy(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let block = block_of(g).x; let n = word(7u); let row = block * n; let smoothing = number(5u);
  let place = get_word(word(3u), block);
  let weight = load(word(2u), place); let goal = get_half(word(1u), place);
  var top = NOTHING; var all = 0.0;
  for (var i = t; i < n; i += 256u) {
    let x = load(word(0u), row + i);
    top = max(top, x);
    all += x;
  }
  top = group_max(top, t, 256u);
  var sum = 0.0;
  for (var i = t; i < n; i += 256u) { sum += exp(load(word(0u), row + i) - top); }
  sum = group_sum(sum, t, 256u);
  var mean = 0.0;
  if (smoothing > 0.0) { mean = group_sum(all, t, 256u) / f32(n); }
  let log_sum = top + log(sum); let at_goal = load(word(0u), row + goal);
  storageBarrier();
  workgroupBarrier();
  if (t == 0u) { store(word(4u), block, weight * (log_sum - (1.0 - smoothing) * at_goal - smoothing * mean)); }
  if (word(6u) == 0u) { return; }
  let scale = weight / sum; let everywhere = weight * smoothing / f32(n);
  for (var i = t; i < n; i += 256u) {
    var d = exp(load(word(0u), row + i) - top) * scale - everywhere;
    if (i == goal) { d -= weight * (1.0 - smoothing); }
    store(word(0u), row + i, d);
  }
}

@compute @workgroup_size(256)
fn k_score(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let block = block_of(g).x; let n = word(4u); let row = block * n;
  let at_goal = load(word(0u), row + get_half(word(1u), block));
  var top = NOTHING; var above = 0.0;
  for (var i = t; i < n; i += 256u) {
    let x = load(word(0u), row + i);
    top = max(top, x);
    above += select(0.0, 1.0, x > at_goal);
  }
  top = group_max(top, t, 256u);
  above = group_sum(above, t, 256u);
  var sum = 0.0;
  for (var i = t; i < n; i += 256u) { sum += exp(load(word(0u), row + i) - top); }
  sum = group_sum(sum, t, 256u);
  if (t != 0u) { return; }
  store(word(2u), block, top + log(sum) - at_goal);
  set_word(word(3u), block, u32(min(above, 255.0)));
}

// A sum that the host reads is an f32 and a word of zero.
@compute @workgroup_size(256)
fn k_add_losses(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  var sum = 0.0;
  for (var i = t; i < word(2u); i += 256u) { sum += load(word(1u), i); }
  sum = group_sum(sum, t, 256u);
  if (t == 0u) { store(word(0u), 0u, load(word(0u), 0u) + sum); }
}
