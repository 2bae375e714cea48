"""What tells results from others: how they were made, by which code, on what machine."""

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from pgjax.errors import InputError


def provenance() -> dict[str, str]:
    """Where results come from: git revision, versions, device, time."""
    package = Path(__file__).parents[1]
    git = ["git", "-C", str(package)]

    def ask(*words: str) -> str:
        return subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        inside = Path(ask("rev-parse", "--show-toplevel")) == package.parent  # and not installed in another project
        revision = ask("rev-parse", "HEAD") if inside else "unknown"
        revision += "-modified" if inside and ask("status", "--porcelain") else ""
    except (OSError, subprocess.CalledProcessError):
        revision = "unknown"
    packages = ("pgjax", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")
    versions = {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}
    devices = jax.devices()
    return {
        "git_revision": revision,
        "versions": json.dumps(versions),
        "device": f"{len(devices)} x {devices[0].device_kind}, {platform.machine()}, {os.cpu_count()} cores",
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def canonical(configuration: Mapping[str, Any]) -> str:
    """A configuration as JSON text in which equal configurations are equal.

    Raises:
        InputError: If it holds something JSON cannot.
    """
    try:
        return json.dumps(configuration, sort_keys=True)
    except TypeError as error:
        raise InputError(f"expected a configuration of plain numbers, texts, lists and mappings: {error}") from error


def differences(ours: str, theirs: str) -> str:
    """Where two canonical configurations differ, in words."""

    def flat(tree: dict[str, Any]) -> dict[str, Any]:
        inner = {f"{key}.{k}": v for key, value in tree.items() if isinstance(value, dict) for k, v in value.items()}
        return inner | {key: value for key, value in tree.items() if not isinstance(value, dict)}

    a, b = flat(json.loads(ours)), flat(json.loads(theirs))
    differing = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    return ", ".join(f"{key} is {b.get(key)!r} there and {a.get(key)!r} here" for key in differing[:4])
