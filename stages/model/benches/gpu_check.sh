#!/bin/bash
# All that a GPU has to show, in one go on a machine that has one; nothing is built there.
#
#   gpu_check.sh TINYLM TESTS EXPERIMENT
#
# TINYLM is the binary, TESTS the model crate's test binary (`cargo test --release --lib --no-run` names it),
# EXPERIMENT a copy of experiments/quickstart.yaml with the data that it reads.
# Each part says PASS, FAIL or SKIPPED; the exit code counts the failures.
set -u
[ $# -eq 3 ] || { sed -n '2,8p' "$0"; exit 64; }
tinylm=$(realpath "$1") tests=$(realpath "$2") experiment=$(realpath "$3")
failed=0
part() {
  local name=$1; shift
  if "$@" > "$work/$name.log" 2>&1; then echo "PASS    $name"; else echo "FAIL    $name: $work/$name.log"; failed=$((failed + 1)); fi
}
work=$(mktemp -d) && cd "$work" || exit 1
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || { echo "SKIPPED no NVIDIA driver"; exit 0; }

part doctor "$tinylm" doctor
part suite "$tests" gpu:: dfdx_engine::
for tool in memcheck racecheck; do
  if command -v compute-sanitizer > /dev/null; then
    part "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" --exact gpu::tests::a_card_computes_what_the_emulator_does
  else
    echo "SKIPPED $tool: no compute-sanitizer"
  fi
done

part quickstart "$tinylm" --home "$work/whole" run "$experiment" --device cuda
# A run that is killed goes on from its checkpoint and ends in the same model.
killed() {
  "$tinylm" --home "$work/killed" run "$experiment" --device cuda &
  local run=$!
  sleep 8; kill -9 "$run"; wait "$run"
  "$tinylm" --home "$work/killed" run "$experiment" --device cuda
}
part killed_and_resumed killed
exit "$failed"
