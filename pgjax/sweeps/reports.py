"""Where a running sweep is watched: reports for `sweep` that go to a CSV file, to TensorBoard, or to Weights & Biases.

Each gets a stream for each point of a grid, of averages over seeds, and never one for each seed. Where the seeds of a
point are computed in several batches, there is a stream for each, of all seeds so far; the last has all of them.
"""

import csv
from pathlib import Path
from typing import Literal

from pgjax import trees
from pgjax.errors import needed
from pgjax.paths import full_path
from pgjax.sweeps.looks import Average, Look, Report


def csv_report(path: str | Path) -> Report:
    """A report that appends a line for each metric to a file: the point, iteration, seeds, failed, metric, averages.

    What a killed sweep had not saved is reported again when it goes on; of equal lines the last one counts.
    """
    path = full_path(path)

    def report(look: Look) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            if file.tell() == 0:
                lines.writerow((*look.point, "iteration", "seeds", "failed", "metric", *Average._fields))
            for name, average in look.metrics.items():
                lines.writerow((*look.point.values(), look.iteration, look.seeds, look.failed, name, *average))

    return report


def tensorboard_report(directory: str | Path) -> Report:
    """A report for TensorBoard: a run for each stream, with scalars such as episode_return/iqm by iteration.

    Raises:
        InputError: If tensorboardX is not installed.
    """
    writer_of, directory, writers = needed("tensorboardX", "tensorboard").SummaryWriter, full_path(directory), {}

    def report(look: Look) -> None:
        if look.name not in writers:
            writers[look.name] = writer_of(str(directory / trees.stored(look.name)))
        for name, number in scalars(look).items():
            writers[look.name].add_scalar(name, number, look.iteration)
        writers[look.name].flush()
        if look.finished:
            writers.pop(look.name).close()

    return report


def wandb_report(
    project: str, directory: str | Path, mode: Literal["offline", "online", "disabled"] = "offline"
) -> Report:
    """A report for Weights & Biases: a run for each stream, in files until `wandb sync` sends them, or at once.

    Raises:
        InputError: If wandb is not installed.
    """
    wandb, directory, going = needed("wandb", "wandb"), full_path(directory), {}

    def report(look: Look) -> None:
        if look.name not in going:
            directory.mkdir(parents=True, exist_ok=True)
            going[look.name] = wandb.init(
                project=project,
                name=look.name,
                config={**look.point, "seeds": look.seeds},
                dir=str(directory),
                mode=mode,
                reinit="create_new",
            )
        going[look.name].log(scalars(look), step=look.iteration)
        if look.finished:
            going.pop(look.name).finish()

    return report


def scalars(look: Look) -> dict[str, float]:
    """The numbers of a look by name: failed, and of each metric metric/mean, metric/iqm, metric/low, metric/high."""
    averages = {f"{name}/{kind}": x for name, found in look.metrics.items() for kind, x in found._asdict().items()}
    return {"failed": float(look.failed), **averages}
