// What touches each number once: `../kernels/elements.cu`.

@compute @workgroup_size(256)
fn k_fill(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (!is_beyond(g) && i < word(2u)) { store(word(0u), i, number(1u)); }
}

@compute @workgroup_size(256)
fn k_add_to(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (!is_beyond(g) && i < word(2u)) { store(word(0u), i, load(word(0u), i) + load(word(1u), i)); }
}

@compute @workgroup_size(256)
fn k_blend(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (!is_beyond(g) && i < word(4u)) {
    store(word(0u), i, number(1u) * load(word(0u), i) + number(3u) * load(word(2u), i));
  }
}

@compute @workgroup_size(128)
fn k_embed(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(12u); let added = word(4u);
  let line = line_of(6u, token, 0u);
  let row = get_half(word(2u), token) * width; let place = get_half(word(5u), token) * width;
  for (var i = t; i < width; i += 128u) {
    var x = load(word(1u), row + i) * number(3u);
    if (added != 0u) { x += load(added, place + i); }
    store(word(0u), token * width + i, x * factor(line, i));
  }
}

@compute @workgroup_size(256)
fn k_embed_backward(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let b = block_of(g); let width = word(12u); let column = b.y * 32u + t % 32u; let lane = t / 32u;
  let first = get_word(word(3u), b.x); let last = get_word(word(3u), b.x + 1u);
  var sum = 0.0;
  if (column < width) {
    for (var i = first + lane; i < last; i += 8u) {
      let token = get_word(word(2u), i);
      sum += load(word(1u), token * width + column) * factor(line_of(6u, token, 0u), column);
    }
  }
  shared_sums[t] = sum;
  workgroupBarrier();
  if (lane != 0u || column >= width) { return; }
  for (var l = 1u; l < 8u; l++) { sum += shared_sums[l * 32u + t]; }
  let at = get_half(word(4u), get_word(word(2u), first)) * width + column;
  store(word(0u), at, load(word(0u), at) + number(5u) * sum);
}

@compute @workgroup_size(128)
fn k_drop_rows(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(8u); let line = line_of(2u, token, 0u);
  for (var i = t; i < width; i += 128u) {
    store(word(0u), token * width + i, load(word(1u), token * width + i) * factor(line, i));
  }
}

@compute @workgroup_size(128)
fn k_activate(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(9u); let line = line_of(3u, token, 0u);
  for (var i = t; i < width; i += 128u) {
    let at = token * width + i;
    store(word(0u), at, activation(word(2u), load(word(1u), at)).x * factor(line, i));
  }
}

@compute @workgroup_size(128)
fn k_activate_backward(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(9u); let line = line_of(3u, token, 0u);
  for (var i = t; i < width; i += 128u) {
    let at = token * width + i;
    store(word(0u), at, load(word(0u), at) * activation(word(2u), load(word(1u), at)).y * factor(line, i));
  }
}

@compute @workgroup_size(128)
fn k_gate(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(9u); let line = line_of(3u, token, 0u);
  for (var i = t; i < width; i += 128u) {
    let at = token * width + i;
    store(word(0u), at, activation(3u, load(word(1u), at)).x * load(word(2u), at) * factor(line, i));
  }
}

@compute @workgroup_size(128)
fn k_gate_backward(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(10u); let line = line_of(4u, token, 0u);
  for (var i = t; i < width; i += 128u) {
    let at = token * width + i;
    let curve = activation(3u, load(word(2u), at));
    let d = load(word(1u), at) * factor(line, i);
    store(word(0u), at, d * load(word(3u), at) * curve.y);
    store(word(1u), at, d * curve.x);
  }
}

@compute @workgroup_size(128)
fn k_rotate(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let token = block_of(g).x; let width = word(4u); let turned = word(5u); let d = word(6u); let way = number(7u);
  let half = d / 2u; let pairs = turned * half; let row = token * width;
  let cosines = get_half(word(3u), token) * d; let sines = cosines + half;
  for (var i = t; i < pairs; i += 128u) {
    let at = row + i / half * d + i % half;
    let a = load(word(1u), at); let b = load(word(1u), at + half);
    let c = load(word(2u), cosines + i % half); let s = way * load(word(2u), sines + i % half);
    store(word(0u), at, a * c - b * s);
    store(word(0u), at + half, b * c + a * s);
  }
  for (var i = turned * d + t; i < width; i += 128u) { store(word(0u), row + i, load(word(1u), row + i)); }
}

@compute @workgroup_size(128)
fn k_gather(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let row = block_of(g).x; let width = word(3u); let from_row = get_word(word(2u), row) * width;
  for (var i = t; i < width; i += 128u) { store(word(0u), row * width + i, load(word(1u), from_row + i)); }
}

@compute @workgroup_size(128)
fn k_scatter(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let row = block_of(g).x; let width = word(3u); let to_row = get_word(word(2u), row) * width;
  for (var i = t; i < width; i += 128u) { store(word(0u), to_row + i, load(word(1u), row * width + i)); }
}
