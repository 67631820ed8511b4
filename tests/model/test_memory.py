"""What a training step frees stays with the process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from pathlib import Path
import torch
from methyl_lightning.model.memory import keep_freed_memory, return_freed_memory

def resident():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024

def after_freeing():
    before, tensor = resident(), torch.ones(64 << 20)
    del tensor
    return resident() - before

returned = after_freeing()
keep_freed_memory()
kept = after_freeing()
return_freed_memory()
print(returned, kept, after_freeing())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not Path("/proc/self/status").exists(), reason="needs glibc")
def test_freed_memory_stays() -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    returned, kept, again = map(float, run.stdout.split())  # MB, of 256
    assert returned < 20 and kept > 200 and again < 20
