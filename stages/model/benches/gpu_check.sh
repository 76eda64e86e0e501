#!/bin/bash
# All that a GPU has to show, in one go on a machine that has one; nothing of ours is built there.
#
#   gpu_check.sh TINYLM TESTS EXPERIMENT STEP [PEER]
#
# TINYLM is the binary; TESTS and STEP are the model crate's test binary and its benchmark `train_step` (`cargo
# test --release --lib --no-run` and `cargo bench --bench train_step --no-run` name them); EXPERIMENT a copy of
# experiments/quickstart.yaml with the data that it reads; PEER a copy of torch_peer.py, for the same figures of
# PyTorch beside ours. The tests want `c++`, the sanitizers `compute-sanitizer`. No network is asked for.
#
# Where cuBLASLt is found (`gpu/library.rs`; the Python that runs `python3` counts as active), all that trains runs a
# second time as `own-NAME`, with our own products: so a day with a card compares them. torch stands beside both.
#
# Each part says PASS or FAIL, or SKIPPED where a tool is missing; inside a part whatever was skipped is a failure,
# and so is silence: a part passes on what it has seen. The exit code counts the failures.
set -u
[ $# -ge 4 ] || { sed -n '2,17p' "$0"; exit 64; }
tinylm=$(realpath "$1") tests=$(realpath "$2") experiment=$(realpath "$3") step=$(realpath "$4")
peer=${5:+$(realpath "$5")}
VIRTUAL_ENV=${VIRTUAL_ENV:-$(python3 -c 'import sys; print(sys.prefix)' 2> /dev/null)}
export TINYLM_OFFLINE=1 NO_COLOR=1 VIRTUAL_ENV
# What multiplies, and what stands before the names of parts and homes.
products='own products' way=''
failed=0
part() {
  local name=$1; shift
  if "$@" > "$work/$name.log" 2>&1; then echo "PASS    $name"; else echo "FAIL    $name: $work/$name.log"; failed=$((failed + 1)); fi
}
work=$(mktemp -d) && cd "$work" || exit 1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || { echo "FAIL    no NVIDIA driver"; exit 1; }

# Fails unless this was said.
says() {
  local said=$1 what=$2
  grep -q -- "$what" <<< "$said" || { echo "nothing said: $what"; return 1; }
}

# Runs tests by name: at least so many pass, and none was skipped.
passing() {
  local least=$1 said n; shift
  said=$("$@" --show-output 2>&1) || { echo "$said"; return 1; }
  echo "$said"
  n=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' <<< "$said")
  if [ "${n:-0}" -lt "$least" ]; then echo "${n:-0} tests passed, and there are at least $least"; return 1; fi
  # Vulkan is another device's affair, and a library that is not to multiply is none of these tests'.
  local others='so no WGSL runs'
  [ "$products" = 'own products' ] && others="$others\|so no cuBLASLt multiplies"
  if grep SKIPPED <<< "$said" | grep -qv "$others"; then echo "something was skipped"; return 1; fi
}

doctor() {
  local said
  said=$("$tinylm" doctor 2>&1); echo "$said"
  says "$said" '`--device cuda:0` trains on it'
}

# Runs an experiment in a home of its own.
train() { "$tinylm" --home "$work/$1" --verbose run "$2" --device cuda 2>&1; }

# From beginning to end, on the GPU and nowhere else.
whole() {
  local said
  said=$(train "$1" "$2") || { echo "$said"; return 1; }
  echo "$said"
  says "$said" "trains on .*$products" && says "$said" 'reads on ' || return 1
  [ -n "$(artifacts "$1")" ] || { echo "nothing was made"; return 1; }
}

# The digests of all that a home has made.
artifacts() { (cd "$work/$1/store/artifacts" 2> /dev/null && find . -mindepth 2 -maxdepth 2 -type d | sort); }

# A run that is killed in its training goes on from its checkpoint and ends in the same bytes.
killed() {
  local run said
  setsid "$tinylm" --home "$work/${way}killed" run "$experiment" --device cuda &
  run=$!
  until compgen -G "$work/${way}killed/work/*/checkpoints/step-*" > /dev/null; do
    kill -0 "$run" 2> /dev/null || { echo "it ended before it could be killed"; return 1; }
    sleep 0.05
  done
  kill -9 -- "-$run"; wait "$run"
  if [ "$(artifacts "${way}killed")" = "$(artifacts "${way}whole")" ]; then echo "the kill came after the training"; return 1; fi
  said=$(train "${way}killed" "$experiment") || { echo "$said"; return 1; }
  echo "$said"
  says "$said" "trains on .*$products" || return 1
  says "$said" 'going on from step [1-9]' || return 1
  if [ -z "$(artifacts "${way}whole")" ]; then echo "there is no whole run to compare with"; return 1; fi
  diff <(artifacts "${way}whole") <(artifacts "${way}killed") || { echo "the digests are others"; return 1; }
}

# Several GPUs make the bytes of one.
several() {
  local device devices said
  devices=$(nvidia-smi --query-gpu=index --format=csv,noheader | head -4 | paste -sd, -)
  for device in 0 "$devices"; do
    said=$("$tinylm" --home "$work/${way}several-$device" --verbose run "$experiment" --device "cuda:$device" \
      --set model.train.leaves=3 2>&1) || { echo "$said"; return 1; }
    echo "$said"
    says "$said" "trains on .*$products" || return 1
  done
  [ -n "$(artifacts "${way}several-0")" ] && diff <(artifacts "${way}several-0") <(artifacts "${way}several-$devices") || { echo "the digests are others"; return 1; }
}

# combined_41m's model and rows, on words that are made here, and ten thousand answers of it.
shape_of_41m() {
  awk 'BEGIN { srand(1); for (i = 0; i < 60000; i++) { line = ""; n = 4 + int(rand() * 12)
    for (j = 0; j < n; j++) { word = ""; for (k = 0; k < 3; k++)
      word = word substr("bcdfghjklmnprstvz", 1 + int(rand() * 17), 1) substr("aeiouy", 1 + int(rand() * 6), 1)
      line = line (j ? " " : "") word }
    print line } }' > "$work/words.txt"
  cat > "$work/shape.yaml" << 'YAML'
name: shape
seed: 1337
stages:
  words:  { kind: download,  with: { path: words.txt } }
  texts:  { kind: normalize, inputs: [words], with: { format: lines } }
  tokens: { kind: tokenizer, inputs: [texts], with: { vocab_size: 32105 } }
  shards: { kind: binarize,  inputs: { documents: texts, tokenizer: tokens }, with: { validation: 0.02 } }
  base:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: forty-one }
      train: { steps: 200, batch: 128, precision: bf16, loss_on: all }
  many:
    kind: sample
    inputs: [base]
    with: { prompts: [bab], samples: 10000, max_tokens: 64, nonstop: true, form: text }
YAML
  whole "${way}shape" "$work/shape.yaml"
}

# Tokens a second of a step, as the benchmark and its peer measure them.
figures() {
  local said
  said=$("$@" 2>&1) || { echo "$said"; return 1; }
  echo "$said"
  says "$said" 'tokens[/_]\(s\|per_second\)'
}

# The same, with the products that are being looked at.
step_figures() {
  local said
  said=$(figures "$step" "$@") || { echo "$said"; return 1; }
  echo "$said"
  says "$said" "kernels .*$products"
}

# The shapes that are aimed at; memory is the GPU's, and the first step counts from the start of the process.
shapes() {
  local shape model rows precision
  for shape in "mini 16" "forty-one 128" "124m 64"; do
    read -r model rows <<< "$shape"
    for precision in f32 bf16; do
      "$@" "$model-$precision" "model=$model rows=$rows precision=$precision steps=30 wait=no"
    done
  done
}

ours() { part "${way}figures-$1" step_figures $2 device=cuda:0; }

theirs() {
  local mode
  for mode in eager compile; do
    if [ -n "$peer" ]; then
      part "torch-$1-$mode" figures python3 "$peer" $2 "mode=$mode" device=cuda
    else
      echo "SKIPPED torch-$1-$mode: no torch_peer.py was given"
    fi
  done
}

# All that multiplies in a training.
trained() {
  # Whether the kernels are those of their sources is for the machine that has them.
  part "${way}suite" passing 50 "$tests" gpu:: dfdx_engine:: on_a_gpu --skip kernels_compiled_for_gpus
  part "${way}golden_losses" passing 1 "$tests" ten_losses_of_each_preset_are_those_written_down
  part "${way}quickstart" whole "${way}whole" "$experiment"
  part "${way}killed_and_resumed" killed
  if [ "$(nvidia-smi --query-gpu=index --format=csv,noheader | wc -l)" -gt 1 ]; then
    part "${way}several" several
  else
    echo "SKIPPED ${way}several: there is one GPU"
  fi
  part "${way}shape_of_41m" shape_of_41m
  shapes ours
}

# Our kernels, of which a library's own are none.
sanitized() { TINYLM_CUBLASLT=none products='own products' passing 1 compute-sanitizer --tool "$@"; }

part doctor doctor
if grep -q 'products of cuBLASLt' "$work/doctor.log"; then
  products='products of cuBLASLt'
  trained
  export TINYLM_CUBLASLT=none
  products='own products' way=own-
else
  echo "SKIPPED products of cuBLASLt: none is found"
fi
trained
for tool in memcheck racecheck; do
  if command -v compute-sanitizer > /dev/null; then
    part "$tool" sanitized "$tool" --error-exitcode 1 \
      "$tests" --exact gpu::tests::wide::a_card_learns_and_scores_as_the_plain_operations_do
    part "$tool-reading" sanitized "$tool" --error-exitcode 1 \
      "$tests" --exact gpu::tests::reading::a_card_says_what_this_machine_says_in_whatever_company
    part "$tool-bf16" passing 1 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$tests" --exact gpu::tests::wide::a_card_multiplies_in_bf16_as_the_emulator_does
  else
    echo "SKIPPED $tool: no compute-sanitizer"
  fi
done
shapes theirs
grep -h 'made  *many' "$work"/*.log
cat "$work"/*figures-*.log "$work"/torch-*.log 2> /dev/null
exit "$failed"
