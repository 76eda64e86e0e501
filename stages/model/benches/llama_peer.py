"""Generation beside llama.cpp: the same shape, random weights, two threads, in turn.

    python -m venv v && v/bin/pip install llama-cpp-python gguf numpy
    cargo bench -p tinylm-model --bench generate --no-run     # prints the program's path
    v/bin/python stages/model/benches/llama_peer.py PROGRAM [rounds] [f32|bf16|int8 ..]

Prints the median tokens per second of both and their ratio, for f32, bf16 and int8 (llama.cpp's q8_0): decoding
128 tokens one by one after 64, and reading a prompt of 256.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy as np

D, LAYERS, HEADS, FF, VOCAB = 512, 8, 8, 1376, 32000
THREADS = 2


def write_gguf(path, sort):
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(512)
    w.add_embedding_length(D)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(HEADS)
    w.add_rope_dimension_count(D // HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("llama")
    w.add_token_list([b"<unk>", b"<s>", b"</s>"] + [b"t%d" % i for i in range(3, VOCAB)])
    w.add_token_scores([0.0] * VOCAB)
    w.add_token_types([2, 3, 3] + [1] * (VOCAB - 3))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)

    def matrix(name, *shape):
        data = (rng.standard_normal(shape) * 0.02).astype(np.float32)
        if sort != "f32":
            kind = {"bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0}[sort]
            w.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            w.add_tensor(name, data)

    def ones(name):
        w.add_tensor(name, np.ones(D, dtype=np.float32))

    matrix("token_embd.weight", VOCAB, D)  # also the head: there is no output.weight
    ones("output_norm.weight")
    for i in range(LAYERS):
        for part in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            matrix(f"blk.{i}.{part}.weight", D, D)
        matrix(f"blk.{i}.ffn_gate.weight", FF, D)
        matrix(f"blk.{i}.ffn_up.weight", FF, D)
        matrix(f"blk.{i}.ffn_down.weight", D, FF)
        ones(f"blk.{i}.attn_norm.weight")
        ones(f"blk.{i}.ffn_norm.weight")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


class Llama:
    def __init__(self, path):
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_mmap = False
        # Its buffers for AMX end it with a protection fault on virtual machines that show AMX and do not grant it.
        model_params.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 512, 512, 512
        params.n_threads = params.n_threads_batch = THREADS
        self.ctx = llama_cpp.llama_init_from_model(self.model, params)
        self.measure()  # warms caches and pages up

    def feed(self, tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        assert llama_cpp.llama_decode(self.ctx, batch) == 0
        # Waits for the logits, as a caller would.
        assert llama_cpp.llama_get_logits_ith(self.ctx, -1)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.ctx), True)

    def measure(self):
        tokens = [i * 97 % 31000 for i in range(256)]
        decode, prefill = [], []
        for _ in range(3):
            self.clear()
            self.feed(tokens[:64])
            start = time.perf_counter()
            for token in tokens[64:192]:
                self.feed([token])
            decode.append(128 / (time.perf_counter() - start))
            self.clear()
            start = time.perf_counter()
            self.feed(tokens)
            prefill.append(256 / (time.perf_counter() - start))
        return {"decode": statistics.median(decode), "prefill": statistics.median(prefill)}


def ours(program, precision):
    out = subprocess.run([program, precision, str(THREADS)], check=True, capture_output=True)
    return json.loads(out.stdout)


def main():
    program = sys.argv[1]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    llama_cpp.llama_backend_init()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama_cpp.llama_log_set(quiet, None)
    for precision in sys.argv[3:] or ["f32", "bf16", "int8"]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "random.gguf")
            write_gguf(path, precision)
            llama = Llama(path)
        results = {"llama.cpp": [], "tinylm": []}
        for _ in range(rounds):
            results["llama.cpp"].append(llama.measure())
            results["tinylm"].append(ours(program, precision))
        for what in ["decode", "prefill"]:
            peer, own = (statistics.median(r[what] for r in results[k]) for k in results)
            print(f"{precision} {what}: llama.cpp {peer:.0f}, tinylm {own:.0f} tokens/s, {own / peer:.2f}x", flush=True)


main()
