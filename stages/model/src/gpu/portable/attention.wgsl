// Attention inside documents and over kept keys: `../kernels/attention.cu` and `cached.cu`.
//
// Not in tiles, whose shared memory many GPUs do not have: a group takes its queries or keys one after the other,
// 256 scores at a time, and then its threads are the numbers of a head.

// Heads as wide as this have room.
const WIDEST = 512u;

var<workgroup> one: array<f32, 512>;
var<workgroup> other: array<f32, 512>;
var<workgroup> place: u32;
var<workgroup> shares: array<f32, 256>;
var<workgroup> slopes: array<f32, 256>;

fn take_row(is_other: bool, p: u32, at: u32, d: u32, round: u32, t: u32, n: u32) {
  for (var c = t; c < d; c += n) {
    let x = rounded(load(p, at + c), round);
    if (is_other) { other[c] = x; } else { one[c] = x; }
  }
}

fn dot_one(p: u32, at: u32, d: u32, round: u32) -> f32 {
  var sum = 0.0;
  for (var c = 0u; c < d; c++) { sum += one[c] * rounded(load(p, at + c), round); }
  return sum;
}
fn dot_other(p: u32, at: u32, d: u32, round: u32) -> f32 {
  var sum = 0.0;
  for (var c = 0u; c < d; c++) { sum += other[c] * rounded(load(p, at + c), round); }
  return sum;
}

fn attend(block: vec3<u32>, t: u32, side: u32) {
  let h = heads_at(10u); let stride = width_of(h); let head = block.y; let row = block.z;
  let kv_head = head / (h.n / h.n_kv); let token0 = row * h.len; let qkv = word(2u);
  let k_at = (h.n + kv_head) * h.d; let v_at = k_at + h.n_kv * h.d;
  for (var query = block.x * side; query < min(block.x * side + side, h.len); query++) {
    workgroupBarrier();
    take_row(false, qkv, (token0 + query) * stride + head * h.d, h.d, h.round, t, 256u);
    workgroupBarrier();
    let line = line_of(4u, token0 + query, head);
    var top = NOTHING; var total = 0.0; var sums = vec2<f32>(0.0);
    let start = get_half(word(3u), token0 + query);
    for (var k0 = 0u; k0 <= query; k0 += 256u) {
      let key = k0 + t; let is_seen = key <= query && key >= start;
      var score = NOTHING;
      if (is_seen) { score = dot_one(qkv, (token0 + key) * stride + k_at, h.d, h.round) * h.scale; }
      let highest = max(top, group_max(score, t, 256u));
      var each = 0.0;
      if (is_seen) { each = exp(score - highest); }
      var keep = 1.0;
      if (top > NOTHING) { keep = exp(top - highest); }
      total = total * keep + group_sum(each, t, 256u);
      shares[t] = rounded(each * factor(line, key), h.round);
      workgroupBarrier();
      for (var i = 0u; i < 2u; i++) {
        let c = t + 256u * i;
        if (c < h.d) {
          var sum = sums[i] * keep;
          for (var j = 0u; j < min(256u, query + 1u - k0); j++) {
            sum += shares[j] * rounded(load(qkv, (token0 + k0 + j) * stride + v_at + c), h.round);
          }
          sums[i] = sum;
        }
      }
      top = highest;
    }
    for (var i = 0u; i < 2u; i++) {
      let c = t + 256u * i;
      if (c < h.d) { store(word(0u), ((token0 + query) * h.n + head) * h.d + c, sums[i] / total); }
    }
    if (t == 0u) { store(word(1u), (row * h.n + head) * h.len + query, top + log(total)); }
  }
}

@compute @workgroup_size(256)
fn k_attend_32(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  attend(block_of(g), t, 32u);
}

@compute @workgroup_size(128)
fn k_attend_deltas(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let h = heads_at(3u); let i = block_of(g).x * 4u + t / 32u; let lane = t % 32u;
  let end = select(0u, h.d, i < word(9u));
  var sum = 0.0;
  for (var c = lane; c < end; c += 32u) { sum += load(word(1u), i * h.d + c) * load(word(2u), i * h.d + c); }
  sum = line_sum(sum, t);
  let token = i / h.n;
  if (lane == 0u && i < word(9u)) { store(word(0u), (token / h.len * h.n + i % h.n) * h.len + token % h.len, sum); }
}

fn attend_keys(block: vec3<u32>, t: u32, side: u32) {
  let h = heads_at(12u); let stride = width_of(h); let kv_head = block.y; let row = block.z;
  let group = h.n / h.n_kv; let token0 = row * h.len; let qkv = word(1u); let d_out = word(2u);
  let k_at = (h.n + kv_head) * h.d; let v_at = k_at + h.n_kv * h.d;
  for (var key = block.x * side; key < min(block.x * side + side, h.len); key++) {
    workgroupBarrier();
    take_row(false, qkv, (token0 + key) * stride + k_at, h.d, h.round, t, 256u);
    take_row(true, qkv, (token0 + key) * stride + v_at, h.d, h.round, t, 256u);
    workgroupBarrier();
    var d_k = vec2<f32>(0.0); var d_v = vec2<f32>(0.0);
    for (var head = kv_head * group; head < (kv_head + 1u) * group; head++) {
      for (var q0 = key; q0 < h.len; q0 += 256u) {
        let query = q0 + t;
        var share = 0.0; var slope = 0.0;
        if (query < h.len) {
          if (get_half(word(5u), token0 + query) <= key) {
            let at = (row * h.n + head) * h.len + query;
            let score = dot_one(qkv, (token0 + query) * stride + head * h.d, h.d, h.round) * h.scale;
            let d_p = dot_other(d_out, ((token0 + query) * h.n + head) * h.d, h.d, h.round);
            let all = exp(score - load(word(3u), at));
            let kept = factor(line_of(6u, token0 + query, head), key);
            share = rounded(all * kept, h.round);
            slope = rounded(all * (d_p * kept - load(word(4u), at)) * h.scale, h.round);
          }
        }
        workgroupBarrier();
        shares[t] = share;
        slopes[t] = slope;
        workgroupBarrier();
        for (var i = 0u; i < 2u; i++) {
          let c = t + 256u * i;
          if (c < h.d) {
            for (var j = 0u; j < min(256u, h.len - q0); j++) {
              let token = token0 + q0 + j;
              d_v[i] += shares[j] * rounded(load(d_out, (token * h.n + head) * h.d + c), h.round);
              d_k[i] += slopes[j] * rounded(load(qkv, token * stride + head * h.d + c), h.round);
            }
          }
        }
      }
    }
    for (var i = 0u; i < 2u; i++) {
      let c = t + 256u * i;
      if (c < h.d) {
        store(word(0u), (token0 + key) * stride + k_at + c, d_k[i]);
        store(word(0u), (token0 + key) * stride + v_at + c, d_v[i]);
      }
    }
  }
}

@compute @workgroup_size(256)
fn k_attend_keys_32(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  attend_keys(block_of(g), t, 32u);
}

fn attend_queries(block: vec3<u32>, t: u32, side: u32) {
  let h = heads_at(12u); let stride = width_of(h); let head = block.y; let row = block.z;
  let kv_head = head / (h.n / h.n_kv); let token0 = row * h.len; let qkv = word(1u); let d_out = word(2u);
  let k_at = (h.n + kv_head) * h.d; let v_at = k_at + h.n_kv * h.d;
  for (var query = block.x * side; query < min(block.x * side + side, h.len); query++) {
    workgroupBarrier();
    take_row(false, qkv, (token0 + query) * stride + head * h.d, h.d, h.round, t, 256u);
    take_row(true, d_out, ((token0 + query) * h.n + head) * h.d, h.d, h.round, t, 256u);
    workgroupBarrier();
    let at = (row * h.n + head) * h.len + query; let line = line_of(6u, token0 + query, head);
    let start = get_half(word(5u), token0 + query);
    var d_q = vec2<f32>(0.0);
    for (var k0 = 0u; k0 <= query; k0 += 256u) {
      let key = k0 + t;
      var slope = 0.0;
      if (key <= query && key >= start) {
        let score = dot_one(qkv, (token0 + key) * stride + k_at, h.d, h.round) * h.scale;
        let d_p = dot_other(qkv, (token0 + key) * stride + v_at, h.d, h.round);
        slope = rounded(exp(score - load(word(3u), at)) * (d_p * factor(line, key) - load(word(4u), at)) * h.scale, h.round);
      }
      workgroupBarrier();
      slopes[t] = slope;
      workgroupBarrier();
      for (var i = 0u; i < 2u; i++) {
        let c = t + 256u * i;
        if (c < h.d) {
          for (var j = 0u; j < min(256u, query + 1u - k0); j++) {
            d_q[i] += slopes[j] * rounded(load(qkv, (token0 + k0 + j) * stride + k_at + c), h.round);
          }
        }
      }
    }
    for (var i = 0u; i < 2u; i++) {
      let c = t + 256u * i;
      if (c < h.d) { store(word(0u), (token0 + query) * stride + head * h.d + c, d_q[i]); }
    }
  }
}

@compute @workgroup_size(256)
fn k_attend_queries_32(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  attend_queries(block_of(g), t, 32u);
}

// Of one sequence: layers, of each the keys and then the values of each head, by position.
fn kept(cache: u32, h: Heads, layer: u32, is_value: u32, kv_head: u32, context: u32) -> u32 {
  return cache + 4u * ((2u * layer + is_value) * h.n_kv + kv_head) * context * h.d;
}

@compute @workgroup_size(128)
fn k_remember(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let h = heads_at(3u); let row = block_of(g).x; let n = h.n_kv * h.d;
  let cache = get_word(word(0u), 2u * row); let at = get_half(word(2u), row);
  for (var i = t; i < 2u * n; i += 128u) {
    let to = kept(cache, h, word(9u), i / n, i % n / h.d, word(10u));
    store(to, at * h.d + i % h.d, load(word(1u), row * width_of(h) + h.n * h.d + i));
  }
}

@compute @workgroup_size(128)
fn k_attend_cached(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let h = heads_at(4u); let head = block_of(g).x; let row = block_of(g).y;
  let kv_head = head / (h.n / h.n_kv); let cache = get_word(word(1u), 2u * row);
  if (t == 0u) { place = get_half(word(3u), row); }
  let last = workgroupUniformLoad(&place);
  let keys = kept(cache, h, word(10u), 0u, kv_head, word(11u));
  let values = kept(cache, h, word(10u), 1u, kv_head, word(11u));
  take_row(false, word(2u), row * width_of(h) + head * h.d, h.d, 0u, t, 128u);
  workgroupBarrier();
  var top = NOTHING; var total = 0.0; var sums = vec4<f32>(0.0);
  for (var k0 = 0u; k0 <= last; k0 += 128u) {
    let key = k0 + t;
    var score = NOTHING;
    if (key <= last) { score = dot_one(keys, key * h.d, h.d, 0u) * h.scale; }
    let highest = max(top, group_max(score, t, 128u));
    var each = 0.0;
    if (key <= last) { each = exp(score - highest); }
    var keep = 0.0;
    if (top > NOTHING) { keep = exp(top - highest); }
    total = total * keep + group_sum(each, t, 128u);
    shares[t] = each;
    workgroupBarrier();
    for (var i = 0u; i < 4u; i++) {
      let c = t + 128u * i;
      if (c < h.d) {
        var sum = sums[i] * keep;
        for (var j = 0u; j < min(128u, last + 1u - k0); j++) { sum += shares[j] * load(values, (k0 + j) * h.d + c); }
        sums[i] = sum;
      }
    }
    top = highest;
  }
  for (var i = 0u; i < 4u; i++) {
    let c = t + 128u * i;
    if (c < h.d) { store(word(0u), (row * h.n + head) * h.d + c, sums[i] / total); }
  }
}
