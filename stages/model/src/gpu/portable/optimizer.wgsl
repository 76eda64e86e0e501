// The norm of all gradients, and the update it scales: `../kernels/optimizer.cu`, in f32.
//
// A judgement is the norm, a word of zero, the scale of gradients, and a word that is not used: whether the norm is
// finite is read from its bits, where no compiler that trusts in finite numbers can know better.
fn is_applied(judgement: u32) -> bool { return (get_word(judgement, 0u) & 0x7f800000u) != 0x7f800000u; }

@compute @workgroup_size(256)
fn k_squares(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let block = block_of(g).x; let first = block * 4096u; let last = min(first + 4096u, word(2u));
  var sum = 0.0;
  for (var i = first + t; i < last; i += 256u) {
    let x = load(word(1u), i);
    sum += x * x;
  }
  sum = group_sum(sum, t, 256u);
  if (t == 0u) { store(word(0u), 2u * block, sum); }
}

fn sum_of_parts(parts: u32, n: u32, t: u32) -> f32 {
  var sum = 0.0;
  for (var i = t; i < n; i += 256u) { sum += load(parts, 2u * i); }
  return group_sum(sum, t, 256u);
}

@compute @workgroup_size(256)
fn k_judge(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let sum = sum_of_parts(word(1u), word(2u), t);
  if (t != 0u) { return; }
  let divisor = number(3u); let norm = sqrt(sum) / divisor;
  let share = number(4u) / (norm + 1e-6);
  store(word(0u), 0u, norm);
  set_word(word(0u), 1u, 0u);
  store(word(0u), 2u, min(share, 1.0) / divisor);
  set_word(word(0u), 3u, 0u);
}

@compute @workgroup_size(256)
fn k_adam(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (is_beyond(g) || i >= word(11u) || !is_applied(word(4u))) { return; }
  let gradient = load(word(1u), i) * load(word(4u), 2u);
  let beta1 = number(5u); let beta2 = number(6u);
  let m = beta1 * load(word(2u), i) + (1.0 - beta1) * gradient;
  let v = beta2 * load(word(3u), i) + (1.0 - beta2) * gradient * gradient;
  store(word(2u), i, m);
  store(word(3u), i, v);
  store(word(0u), i, load(word(0u), i) * number(10u) - number(8u) * m / (sqrt(v * number(9u)) + number(7u)));
}

@compute @workgroup_size(256)
fn k_look_ahead(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (is_beyond(g) || i >= word(4u) || !is_applied(word(2u))) { return; }
  let gradient = load(word(0u), i) * load(word(2u), 2u); let momentum = number(3u);
  let m = momentum * load(word(1u), i) + (1.0 - momentum) * gradient;
  store(word(1u), i, m);
  store(word(0u), i, momentum * m + (1.0 - momentum) * gradient);
}

@compute @workgroup_size(256)
fn k_to_unit(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (is_beyond(g)) { return; }
  let i = block_of(g).x * 256u + t;
  let scale = 1.0 / (sqrt(sum_of_parts(word(1u), word(2u), t)) + 1e-7);
  if (i < word(3u)) { store(word(0u), i, load(word(0u), i) * scale); }
}

@compute @workgroup_size(256)
fn k_move(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let i = block_of(g).x * 256u + t;
  if (is_beyond(g) || i >= word(5u) || !is_applied(word(2u))) { return; }
  store(word(0u), i, load(word(0u), i) * number(3u) - number(4u) * load(word(1u), i));
}
