#!/usr/bin/env bash
# `tinylm serve` under Debian's load tool: `ab` of apache2-utils.
#
#     stages/serve/benches/load_ab.sh target/release/tinylm
#
# A model of llama's shape (8 layers of 512) answers 1, 8 and 32 clients at once over connections that stay open, 48
# tokens each. Prints a row for each: requests and tokens a second, the middle answer's time and the 99th of 100's.
# Ends with 1 if any answer is not a 200.
set -euo pipefail

tinylm=$(realpath "$1")
corpus=$(realpath "$(dirname "$0")/../../../data/smalltalk.txt")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
cd "$work"

cat >load.yaml <<EXPERIMENT
name: load
stages:
  corpus: { kind: download, with: { path: $corpus } }
  chat: { kind: normalize, inputs: { sources: corpus }, with: { format: lines } }
  tokens: { kind: tokenizer, inputs: { documents: chat }, with: { vocab_size: 2000 } }
  shards: { kind: binarize, inputs: { documents: chat, tokenizer: tokens }, with: { validation: 0 } }
  model:
    kind: pretrain
    inputs: [shards]
    with:
      model: { preset: llama-tiny, d_model: 512, n_layers: 8, n_heads: 8, n_kv_heads: 8, d_ff: 1376, context: 512 }
      train: { steps: 1, batch: 1, validate_every: 0 }
EXPERIMENT
"$tinylm" run load.yaml -q
: >said.txt
"$tinylm" serve @last/model --port 0 --slots 32 >said.txt &
server=$!
until grep -q http said.txt; do sleep 0.1; done
address=$(grep -o 'http://[^/]*' said.txt)

echo '{"prompt":"the river near our small house is","max_tokens":48,"seed":1,"ignore_eos":true}' >body.json
echo "| clients | requests/s | tokens/s | middle answer, ms | 99th of 100, ms |"
echo "|---|---|---|---|---|"
for clients in 1 8 32; do
    ab -q -k -l -n $((64 + 8 * clients)) -c "$clients" -p body.json -T application/json "$address/v1/completions" >told.txt
    if grep -q "Non-2xx" told.txt; then
        cat told.txt
        exit 1
    fi
    awk -v clients="$clients" '
        /^Requests per second/ { rate = $4 }
        $1 == "50%" { middle = $2 }
        $1 == "99%" { late = $2 }
        END { printf "| %d | %.1f | %.0f | %d | %d |\n", clients, rate, 48 * rate, middle, late }' told.txt
done
