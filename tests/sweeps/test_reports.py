import csv
import struct
import sys
import types

import numpy as np
import pytest

import pgjax
from pgjax.sweeps import Average, Look, csv_report, tensorboard_report, wandb_report
from tests.sweeps.test_sweep import walked

LOOKS = [
    Look({"rate": 0.1}, 1, 4, 0, {"reward/kl": Average(1.0, 2.0, -3.0, 4.0)}, False),
    Look({"rate": 10.0}, 1, 4, 1, {"reward/kl": Average(5.0, 6.0, -np.inf, np.inf)}, False),
    Look({"rate": 0.1}, 3, 4, 2, {"reward/kl": Average(1.5, 2.5, 0.5, 4.5)}, True),
    Look({"rate": 10.0}, 3, 4, 1, {"reward/kl": Average(np.nan, np.nan, np.nan, np.nan)}, True),
]
LAST = {"failed": 2.0, "reward/kl/mean": 1.5, "reward/kl/iqm": 2.5, "reward/kl/low": 0.5, "reward/kl/high": 4.5}


def test_a_csv_file_has_a_line_for_each_metric_of_each_look(tmp_path):
    for look in LOOKS:  # each by another process, as after a kill
        csv_report(tmp_path / "new" / "report.csv")(look)
    lines = (tmp_path / "new" / "report.csv").read_text().splitlines()
    assert lines == [
        "rate,iteration,seeds,failed,metric,mean,iqm,low,high",
        "0.1,1,4,0,reward/kl,1.0,2.0,-3.0,4.0",
        "10.0,1,4,1,reward/kl,5.0,6.0,-inf,inf",
        "0.1,3,4,2,reward/kl,1.5,2.5,0.5,4.5",
        "10.0,3,4,1,reward/kl,nan,nan,nan,nan",
    ]


def test_the_csv_file_of_a_sweep_ends_with_what_it_came_to(tmp_path):
    found = walked(report=csv_report(tmp_path / "report.csv"), out=tmp_path)
    with (tmp_path / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    last = {float(row["rate"]): row for row in rows if row["metric"] == "total"}
    for rate, row in last.items():
        runs = found.total.sel(rate=rate, iteration=3).values
        assert (row["iteration"], row["seeds"], row["failed"]) == ("3", "3", "0")
        assert float(row["mean"]) == pytest.approx(runs.mean())
        assert float(row["iqm"]) == pytest.approx(pgjax.interquartile_mean(runs))


def scalars_in(directory):
    """What TensorBoard would read: {(name, step): number}."""
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = {}
    for path in directory.glob("events.*"):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = events.Event.FromString(data[12 : 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    return found


def test_tensorboard_has_a_run_for_each_point(tmp_path):
    pytest.importorskip("tensorboardX")
    report = tensorboard_report(tmp_path)
    for look in LOOKS:
        report(look)
    names = ["rate%3D0.1%2C%20seeds%3D4", "rate%3D10%2C%20seeds%3D4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = scalars_in(tmp_path / names[0])
    assert len(found) == 10
    assert {name: number for (name, step), number in found.items() if step == 3} == LAST
    assert scalars_in(tmp_path / names[1])["reward/kl/high", 1] == np.inf


def test_a_sweep_is_watched_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    found = walked(report=tensorboard_report(tmp_path))
    streams = {path.name: scalars_in(path) for path in tmp_path.iterdir()}
    assert {len(stream) for stream in streams.values()} == {3 * 5}
    whole = streams["rate%3D10%2C%20seeds%3D3"]
    for i in (1, 2, 3):
        expected = found.total.sel(rate=10.0, iteration=i).values.mean()
        assert whole["total/mean", i] == pytest.approx(expected)


class Run:
    """What wandb.init returns, as far as it is used."""

    def __init__(self, **options):
        self.options, self.logged, self.finished = options, {}, False

    def log(self, data, step):
        assert not self.finished
        self.logged[step] = data

    def finish(self):
        self.finished = True


def test_wandb_has_a_run_for_each_point(tmp_path, monkeypatch):
    runs = []
    stub = types.SimpleNamespace(init=lambda **options: runs.append(Run(**options)) or runs[-1])
    monkeypatch.setitem(sys.modules, "wandb", stub)
    report = wandb_report("study", tmp_path / "new")
    for look in LOOKS:
        report(look)
    assert [run.options["name"] for run in runs] == ["rate=0.1, seeds=4", "rate=10, seeds=4"]
    assert all(run.finished for run in runs)
    assert {run.options["mode"] for run in runs} == {"offline"}
    assert runs[0].options["config"] == {"rate": 0.1, "seeds": 4}
    assert runs[0].logged.keys() == {1, 3}
    assert runs[0].logged[3] == LAST


@pytest.mark.filterwarnings("ignore")  # of wandb itself
def test_wandb_itself_writes_files_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb = pytest.importorskip("wandb")
    report = wandb_report("study", tmp_path)
    for look in LOOKS:
        report(look)
    wandb.teardown()  # the files are whole when its own process has ended
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    assert all(b"reward/kl/iqm" in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("report", "package", "extra"),
    [
        (lambda out: tensorboard_report(out), "tensorboardX", "tensorboard"),
        (lambda out: wandb_report("study", out), "wandb", "wandb"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, tmp_path, report, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(pgjax.InputError, match=rf'expected {package} to be installed \(pip install "pgjax\[{extra}\]"'):
        report(tmp_path)
