"""The ten stages of `bench.rs` with nothing to do, in DVC and in tinylm, in turn.

usage: dvc_peer.py TINYLM DVC [ROUNDS]

TINYLM is a release build of the binary, DVC the command of `pip install dvc`. Both pipelines are
a chain of ten shell commands, each of which writes one line and reads the file before it; both
are run once in full, and then asked again and again. Times are of the whole process.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_STAGES = 10


def tinylm_file():
    lines = ["stages:", "  s0: { kind: download, with: { rows: [{ text: hello }] } }"]
    for n in range(1, N_STAGES):
        run = f"[sh, -c, \"echo {n} > '{{out}}/x'\"]"
        settings = f"{{ run: {run}, outputs: [x] }}"
        inputs = f"{{ before: s{n - 1} }}"
        lines.append(f"  s{n}: {{ kind: command, inputs: {inputs}, with: {settings} }}")
    return "\n".join(lines) + "\n"


def dvc_file():
    lines = ["stages:"]
    for n in range(N_STAGES):
        lines += [f"  s{n}:", f"    cmd: echo {n} > s{n}.txt"]
        if n > 0:
            lines += ["    deps:", f"      - s{n - 1}.txt"]
        lines += ["    outs:", f"      - s{n}.txt"]
    return "\n".join(lines) + "\n"


def seconds(command, folder, expected=""):
    environment = dict(os.environ, DVC_NO_ANALYTICS="1", TINYLM_OFFLINE="1")
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - started
    said = done.stdout + done.stderr
    if done.returncode != 0 or expected not in said:
        sys.exit(f"{command} ended with {done.returncode}:\n{said}")
    return took


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    tinylm, dvc = (shutil.which(program) for program in sys.argv[1:3])
    if not tinylm or not dvc:
        sys.exit(f"one of {sys.argv[1:3]} is not a program")
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 21
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "ten.yaml").write_text(tinylm_file())
        (folder / "dvc.yaml").write_text(dvc_file())
        ours = [os.path.abspath(tinylm), "run", "ten.yaml"]
        theirs = [os.path.abspath(dvc), "repro"]
        seconds([theirs[0], "init", "-q", "--no-scm"], folder)
        seconds(ours, folder, "10 made")
        seconds(theirs, folder)
        # The store distrusts files younger than two seconds; a second run settles them.
        time.sleep(2.1)
        seconds(ours, folder, "10 hit")
        times = {"tinylm run": [], "dvc repro": []}
        for _ in range(rounds):
            times["tinylm run"].append(seconds(ours, folder, "10 hit"))
            times["dvc repro"].append(seconds(theirs, folder, "up to date"))
    for name, taken in times.items():
        low, middle, high = min(taken), statistics.median(taken), max(taken)
        print(f"{name:<12} {middle * 1e3:7.1f} ms  ({low * 1e3:.1f} to {high * 1e3:.1f})")
    ratio = statistics.median(times["dvc repro"]) / statistics.median(times["tinylm run"])
    print(f"ten stages with nothing to do: {ratio:.1f} times as fast as DVC")


main()
