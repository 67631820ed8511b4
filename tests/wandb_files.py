"""The files that W&B writes offline, read back."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32_768, 7  # of the log that W&B writes offline
LAST_PARTS = (1, 4)  # whole, or the last of several


def records(path: Path) -> Iterator[Record]:
    """Read a ``.wandb`` file: blocks of parts, each with checksum, size and kind before it."""
    content, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER:
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + HEADER])
        whole += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in LAST_PARTS:
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def read_wandb(folder: Path) -> dict[str, Any]:
    """Read what the W&B run of a run folder was given; W&B's own process writes it, and may end a little later."""
    (path,) = folder.rglob("*.wandb")
    for _ in range(100):
        if any(record.WhichOneof("record_type") == "exit" for record in records(path)):
            break
        time.sleep(0.1)
    told: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "steps": {}, "best": {}, "artifacts": {}}
    told |= {"digests": {}, "inputs": [], "charts": set()}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told |= {"name": record.run.display_name, "group": record.run.run_group, "job": record.run.job_type}
            told["tags"] = list(record.run.tags)
        elif kind in ("config", "summary"):
            for item in getattr(record, kind).update:
                told[kind][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
                if item.nested_key[:2] == ["_wandb", "visualize"]:
                    told["charts"].add(item.nested_key[2])
        elif kind == "history":
            items = record.history.item
            told["history"].append({i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items})
        elif kind == "metric":
            told["steps"][record.metric.name] = record.metric.step_metric
            told["best"][record.metric.name] = (record.metric.summary.min, record.metric.summary.max)
        elif kind == "artifact":
            told["artifacts"][record.artifact.type] = [entry.path for entry in record.artifact.manifest.contents]
            told["digests"][record.artifact.type] = record.artifact.digest
            if record.artifact.use_after_commit:
                told["inputs"].append(record.artifact.name)
        elif kind == "exit":
            told["exit"] = record.exit.exit_code
    return told
