#!/usr/bin/env python3
"""Records what compute-sanitizer says about the kernels of races.ptx: needs a GPU of compute capability 9.0 or later.

    record.py [directory for the logs]

writes racecheck.txt beside this file. One process a kernel, so that each report belongs to one.
"""

import ctypes
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXT = (HERE / "races.ptx").read_text()
KERNELS = re.findall(r"\.entry (\w+)\(.*\.reqntid (\d+)", TEXT)
TWINS = {"race": "clean", "clean": "race"}


def twin(which):
    """The text of the kernels with the race, or of those without."""
    other = f"// {TWINS[which]}"
    return "\n".join("" if line.endswith(other) else line for line in TEXT.split("\n")) + "\n"


def launch(which, names):
    """Runs kernels with the driver's own interface."""
    cuda = ctypes.CDLL("libcuda.so.1")

    def call(name, *arguments):
        error = getattr(cuda, name)(*arguments)
        assert error == 0, f"{name}: error {error}"

    context, device, module = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuModuleLoadData", ctypes.byref(module), twin(which).encode())
    size = 1 << 16
    buffers = [ctypes.c_uint64(), ctypes.c_uint64()]
    for buffer in buffers:
        call("cuMemAlloc_v2", ctypes.byref(buffer), ctypes.c_size_t(size))
        call("cuMemsetD8_v2", buffer, ctypes.c_ubyte(1), ctypes.c_size_t(size))
    for name, threads in KERNELS:
        if name not in names:
            continue
        function = ctypes.c_void_p()
        call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        params = (ctypes.c_void_p * 2)(*[ctypes.addressof(buffer) for buffer in buffers])
        call("cuLaunchKernel", function, 1, 1, 1, int(threads), 1, 1, 0, None, params, None)
        call("cuCtxSynchronize")


def sanitize(tool, which, names, *options):
    """The report of compute-sanitizer."""
    command = ["compute-sanitizer", "--tool", tool, *options, sys.executable, __file__, "launch", which, *names]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return run.stdout + run.stderr


def racecheck(case):
    name, which = case
    options = ["--racecheck-report", "all", "--racecheck-detect-level", "info", "--print-limit", "10000"]
    return sanitize("racecheck", which, [name], *options)


def verdict(log):
    """The number of hazards, which are counted by the byte, with their kinds and levels."""
    if "RACECHECK SUMMARY" not in log:
        return "failed"
    hazards = re.findall(r"(\w+):(?: \([\w ]+\))? Potential (RAW|WAR|WAW) hazard", log)
    kinds = sorted({f"{kind} {level.lower()}" for level, kind in hazards})
    return f"{len(hazards)}, {', '.join(kinds)}" if hazards else "clean"


def main():
    logs = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    cases = [(name, which) for name, _ in KERNELS for which in TWINS]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(racecheck, cases))
    version = subprocess.run(["compute-sanitizer", "--version"], capture_output=True, text=True).stdout
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip().split("\n")[0]
    version = re.search(r"[Vv]ersion ([0-9.]+)", version)[1]
    lines = [f"# compute-sanitizer {version}, {gpu}", "# kernel twin: hazards, kinds and levels"]
    lines += [f"{name} {which}: {verdict(log)}" for (name, which), log in zip(cases, reports)]
    for tool in ["memcheck", "synccheck", "initcheck"]:
        for which in TWINS:
            log = sanitize(tool, which, [name for name, _ in KERNELS])
            summary = re.search(r"ERROR SUMMARY: (\d+) error", log)
            lines.append(f"# {tool}, {which}: {summary[1] if summary else 'no'} errors")
            cases, reports = cases + [(tool, which)], reports + [log]
    (HERE / "racecheck.txt").write_text("\n".join(lines) + "\n")
    if logs:
        text = "\n".join(f"##### {name} {which}\n{log}" for (name, which), log in zip(cases, reports))
        (logs / "racecheck.log").write_text(text)


if sys.argv[1:2] == ["launch"]:
    launch(sys.argv[2], sys.argv[3:])
else:
    main()
