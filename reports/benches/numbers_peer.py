"""A run's numbers as TensorBoard, pyarrow and MLflow read them, against what `export --to csv` writes.

    python -m venv v && v/bin/pip install tensorboard pyarrow pandas mlflow
    v/bin/python reports/benches/numbers_peer.py --tinylm target/release/tinylm

A training is watched from its first step by TensorBoard's own servers, the fast and the slow one, killed twice at whatever
step and resumed. Each server must then have every point of every curve once. The same holds for an export afterwards.
The examples of `reports/ELSEWHERE.md` are run as they stand there. Exits with 1 if anything is not as it should be.
"""

import argparse
import csv
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

try:
    import mlflow
    import pandas
    import pyarrow.parquet
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    sys.exit(print(f"SKIPPED: {error}"))

STEPS = 3000
FAULTS = []


def check(what, is_so, told=""):
    print(f"{'ok ' if is_so else 'BAD'} {what} {told}", flush=True)
    FAULTS.extend([] if is_so else [what])


def single(value):
    """As a float of 32 bits, which is what TensorBoard keeps."""
    return struct.unpack("f", struct.pack("f", value))[0]


class Server:
    def __init__(self, folder, fast):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [Path(sys.executable).parent / "tensorboard", "--logdir", folder, "--port", str(self.port)]
        command += ["--reload_interval", "1", "--load_fast", str(fast).lower(), "--samples_per_plugin", "scalars=100000,text=1000"]
        # Its data server is named in the command line of a child of its own, which ends with it.
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/data/plugin/{path}?{urllib.parse.urlencode(query)}"
        return json.loads(urllib.request.urlopen(url, timeout=20).read())

    def curve(self, run, tag):
        try:
            return self.ask("scalars/scalars", run=run, tag=tag)
        except OSError:
            return []


def curves(path):
    """Points of each curve by stage and metric, from a table."""
    found = {}
    for row in csv.DictReader(open(path)):
        if row["step"]:
            found.setdefault((row["stage"], row["metric"]), []).append((int(row["step"]), float(row["value"])))
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tinylm", required=True)
    tinylm = Path(parser.parse_args().tinylm).absolute()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        compared(tinylm)
        os.chdir("/")
    sys.exit(1 if FAULTS else 0)


def compared(tinylm):
    run = lambda *words: subprocess.run([tinylm, *words], check=True, capture_output=True, text=True).stdout
    run("init", "first.yaml")
    text = Path("first.yaml").read_text().replace("validation: 0 }", "validation: 0.25 }")
    Path("first.yaml").write_text(text + "watch: { tensorboard: board }\n")
    few = ["-S", f"model.train.steps={STEPS}", "-S", "model.train.validate_every=500"]
    servers = {"fast": Server("board", True), "slow": Server("board", False)}
    try:
        first = subprocess.Popen([tinylm, "run", "first.yaml", *few], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(Path("board").glob("*/model/*")):
            time.sleep(0.05)
        time.sleep(4)
        first.send_signal(signal.SIGKILL)
        first.wait()
        second = subprocess.Popen([tinylm, "resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(3)
        second.send_signal(signal.SIGKILL)
        second.wait()
        run("resume")
        held(run, servers)
    finally:
        for server in servers.values():
            server.process.terminate()
    afterwards(run)
    examples(run)


def held(run, servers):
    run("export", "@last", "--to", "csv", "-o", "numbers.csv")
    wanted = curves("numbers.csv")
    name = next(csv.DictReader(open("numbers.csv")))["run"]
    files = len(list(Path("board", name, "model").iterdir()))
    check("there is a file for each attempt", files == 3, f"({files})")
    loss = wanted["model", "loss"]
    check("the training logged to its end", loss[-1][0] == STEPS, f"({len(loss)} points)")
    for which, server in servers.items():
        deadline = time.time() + 60
        while time.time() < deadline:
            got = server.curve(f"{name}/model", "loss")
            if got and got[-1][1] == STEPS:
                break
            time.sleep(1)
        time.sleep(3)
        for (stage, metric), points in wanted.items():
            got = [(step, value) for _, step, value in server.curve(f"{name}/{stage}", metric)]
            want = [(step, single(value)) for step, value in points]
            check(f"{which} server: {stage} {metric}, followed through two kills", got == want, f"({len(got)} of {len(want)})")
    tags = EventAccumulator(str(Path("board", name, "answers"))).Reload().Tags()
    check("samples are texts", any(tag.startswith("samples/") for tag in tags["tensors"]), f"({tags['tensors']})")


def afterwards(run):
    run("export", "@last", "--to", "tensorboard", "-o", "later")
    run("export", "@last", "--to", "tensorboard", "-o", "later")
    wanted = curves("numbers.csv")
    for folder in Path("later").glob("*/*"):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        check(f"{folder.name} is one file", len(list(folder.iterdir())) == 1)
        for metric in events.Tags()["scalars"]:
            got = [(event.step, event.value) for event in events.Scalars(metric)]
            want = wanted.get((folder.name, metric))
            is_so = len(got) == 1 if want is None else got == [(step, single(value)) for step, value in want]
            if want is not None or not is_so:
                check(f"export: {folder.name} {metric}", is_so, f"({len(got)})")


def examples(run):
    run("export", "@last", "--to", "parquet", "-o", "numbers.parquet")
    rows = list(csv.DictReader(open("numbers.csv")))
    table = pyarrow.parquet.read_table("numbers.parquet").to_pylist()
    moment = lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    same = [{**row, "step": "" if row["step"] is None else str(row["step"]), "time": moment(row["time"])} for row in table]
    is_same = all(float(a.pop("value")) == float(b.pop("value")) and a == b for a, b in zip(same, map(dict, rows)))
    check("parquet and csv say the same", len(same) == len(rows) and is_same, f"({len(rows)} rows)")
    texts = (Path(__file__).parents[1] / "ELSEWHERE.md").read_text()
    pandas_example, mlflow_example = re.findall(r"```python\n(.*?)```", texts, re.S)
    names = {}
    exec(pandas_example, names)
    loss = curves("numbers.csv")["model", "loss"]
    check("pandas: the example's curve", list(names["curve"].items()) == loss)
    mlflow.set_tracking_uri("sqlite:///mlflow.sqlite")
    exec(mlflow_example, names)
    history = mlflow.MlflowClient().get_metric_history(names["run"].info.run_id, "model/loss")
    check("MLflow: the example's history", sorted((point.step, point.value) for point in history) == loss, f"({len(history)})")


main()
