#!/usr/bin/env python3
"""Times other libraries' attention on the problems of `evo-sdpa bench`, in the same way, into the same JSON lines.

    evo-sdpa bench --list > calls.jsonl
    python3 benches/peers/peers.py calls.jsonl --json peers.jsonl

The method is that of host/src/gpu/timing.rs: CUDA graphs of calls back to back, warmed up and replayed. A peer is timed
on the very problem or not at all, and only after its answer has been compared with float64. Needs PyTorch; what else is
installed is timed too.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from libraries import PEERS, Attention, Peer, first_module
from records import (
    COPY_BYTES,
    LARGEST_E4M3,
    LEAST_SCALE,
    MATRIX,
    Call,
    buffer_sets,
    graph_calls,
    limits_record,
    quantiles,
    read_calls,
    time_record,
)

WARM_UP_S = 0.2
"""For how long a graph is replayed before it is timed."""
WARM_UP_CALLS = 10
"""Calls before those of which the latency is taken."""
BUSY_US = 60_000.0
"""For how long the device is kept busy while its clocks are read."""
LIMIT_RUNS = 20
"""How often the device's rates are measured."""
CHECKED_ROWS = 64
"""Query rows of a head that are compared with float64."""
BOUNDS = {"bf16": 5e-3, "f16": 1e-3, "f32": 1e-4, "e4m3": 5e-2}
"""Relative error, by the Frobenius norm, up to which an answer is right: as in host/src/compare.rs."""
TORCH_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


class Refused(Exception):
    """Why a peer is not timed on a call."""


class Device:
    """The first GPU, through PyTorch and, where it is there, NVML."""

    def __init__(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise Refused("PyTorch sees no GPU")
        self.torch = torch
        self.properties = torch.cuda.get_device_properties(0)
        self.started = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.nvml, self.handle = None, None
        with contextlib.suppress(Exception):  # NVML adds to the records, and they do without
            import pynvml

            pynvml.nvmlInit()
            self.handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{self.properties.uuid}")
            self.nvml = pynvml

    def setup(self, modules: tuple[str, ...] = ()) -> dict:
        """Where a record comes from; `modules` are the peer's."""
        torch, properties = self.torch, self.properties
        cudnn = torch.backends.cudnn.version() or 0
        cudnn_text = f"{cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}"
        software = [f"torch {torch.__version__}", f"cuDNN {cudnn_text}"]
        if modules:
            package = first_module(modules).__name__.split(".")[0]
            names = importlib.metadata.packages_distributions().get(package, [])
            software += [f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names))]
        return {
            "started": self.started,
            "software": ", ".join(software),
            "commit": None,
            "device": properties.name,
            "compute_capability": properties.major * 10 + properties.minor,
            "sm_count": properties.multi_processor_count,
            "l2_bytes": properties.L2_cache_size,
            "driver": self.nvml and self.nvml.nvmlSystemGetDriverVersion(),
            "cuda": torch.version.cuda,
        }

    def clocks(self) -> dict | None:
        """The state of the device now; None where it cannot be read."""
        if self.nvml is None:
            return None
        nvml, handle = self.nvml, self.handle
        try:
            return {
                "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
                "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
                "temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            }
        except nvml.NVMLError:
            return None

    def tensors(self, call: Call, sets: int, seed: int) -> list[list]:
        """Sets of q, k and v, [batch, heads, seq, head_dim], normal with variance 1; e4m3 ones with their scales."""
        batch, heads_q, heads_kv, q_len, kv_len, head_dim = call.shape
        shapes = [(batch, heads_q, q_len, head_dim)] + 2 * [(batch, heads_kv, kv_len, head_dim)]
        generator = self.torch.Generator("cuda").manual_seed(seed)
        dtype = getattr(self.torch, TORCH_NAMES[call.answer_dtype])
        options = {"device": "cuda", "dtype": dtype, "generator": generator}
        inputs = [[self.torch.randn(shape, **options) for shape in shapes] for _ in range(sets)]
        return [quantized(self.torch, call, tensors) for tensors in inputs] if call.dtype == "e4m3" else inputs

    def time_us(self, work: Callable[[], Any]) -> float:
        """Microseconds that the work takes on the device."""
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def median_us(self, work: Callable[[], Any]) -> float:
        """The median of some runs, after some that are not counted."""
        times = [self.time_us(work) for _ in range(3 + LIMIT_RUNS)]
        return quantiles(times[3:])["p50"]

    def limits(self) -> dict:
        """The record of the device's rates."""
        torch, matrix_us = self.torch, {}
        for dtype in ("bf16", "f16"):
            options = {"device": "cuda", "dtype": getattr(torch, TORCH_NAMES[dtype])}
            a, b = (torch.randn((MATRIX, MATRIX), **options) for _ in range(2))
            matrix_us[dtype] = self.median_us(lambda: a @ b)
        source = torch.ones(COPY_BYTES, device="cuda", dtype=torch.uint8)
        target = torch.empty_like(source)
        return limits_record(self.setup(), matrix_us, self.median_us(lambda: target.copy_(source)))


class Graph:
    """Calls back to back on sets of tensors in turn, captured and warmed up."""

    def __init__(self, device: Device, run: Attention, sets: list[list], calls: int, warm_up_s: float) -> None:
        torch = device.torch
        self.device, self.calls = device, calls
        self.answers: list[Any] = [None] * len(sets)
        self.graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run(*sets[0])  # compiles, and makes what may not be made in a capture
        stream.synchronize()
        with torch.cuda.graph(self.graph, stream=stream):
            for turn in range(calls):
                index = turn % len(sets)
                self.answers[index] = None  # so that the next answer takes its place in memory
                self.answers[index] = run(*sets[index])
        end = time.perf_counter() + warm_up_s
        while time.perf_counter() < end:
            self.graph.replay()
            torch.cuda.synchronize()

    def call_us(self) -> float:
        """Microseconds of one call on the device, the mean of one replay.

        It follows another, which keeps the device busy until all is put on the stream: what Python takes for that does
        not show.
        """
        self.graph.replay()
        return self.device.time_us(self.graph.replay) / self.calls

    def busy_clocks(self) -> dict | None:
        """The state of the device under this work."""
        for _ in range(math.ceil(BUSY_US / (self.call_us() * self.calls))):
            self.graph.replay()
        clocks = self.device.clocks()
        self.device.torch.cuda.synchronize()
        return clocks


def quantized(torch: Any, call: Call, tensors: list) -> list:
    """Tensors in e4m3 by the rule of host/src/quantize, and their scales [batch, heads_kv].

    Query heads of one key head share a scale: FlashAttention has no finer ones.
    """
    batch, heads_kv = call.shape[0], call.shape[2]
    codes, scales = [], []
    for tensor in tensors:
        blocks = tensor.float().reshape(batch, heads_kv, -1)
        amax = blocks.abs().amax(-1) if call.scales == "head" else blocks.abs().amax().expand(batch, heads_kv)
        scale = torch.where(amax == 0, 1.0, (amax / LARGEST_E4M3).clamp_min(LEAST_SCALE))
        codes.append((blocks * (1 / scale)[..., None]).reshape(tensor.shape).to(torch.float8_e4m3fn))
        scales.append(scale.contiguous())
    return codes + scales


def head(inputs: list, end: int) -> list:
    """Queries, keys and values of the first head of all (0) or of the last (-1), as the numbers that they stand for."""
    tensors, scales = inputs[:3], inputs[3:] or [None] * 3
    numbers = [tensor[end, end].double() for tensor in tensors]
    return [x if scale is None else x * scale[end, end].double() for x, scale in zip(numbers, scales)]


def relative_error(torch: Any, call: Call, inputs: list, answer: Any) -> float:
    """Of some rows of the first and of the last head against float64, by the Frobenius norm; the larger one."""
    q_len, kv_len = call.lengths
    rows = torch.linspace(0, q_len - 1, min(CHECKED_ROWS, q_len), device=answer.device, dtype=torch.float64).long()
    errors = []
    for end in (0, -1):
        q, k, v = head(inputs, end)
        scores = q[rows] @ k.T / math.sqrt(call.shape[5])
        if call.diagonal is not None:
            hidden = torch.arange(kv_len, device=rows.device) > rows[:, None] + call.diagonal
            scores = scores.masked_fill(hidden, -math.inf)
        exact = torch.nan_to_num(scores.softmax(-1)) @ v  # a row that sees no key gives zeros
        difference = answer[end, end][rows].double() - exact
        errors.append((difference.norm() / exact.norm().clamp_min(1e-300)).item())
    return max(errors, key=lambda error: math.inf if math.isnan(error) else error)


def wall_us(device: Device, run: Attention, sets: list[list], runs: int) -> list[float]:
    """Microseconds from a plain call's beginning until its answer is there."""
    times = []
    for inputs in itertools.islice(itertools.cycle(sets), WARM_UP_CALLS + runs):
        start = time.perf_counter()
        run(*inputs)
        device.torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return times[WARM_UP_CALLS:]


def measure(device: Device, peer: Peer, call: Call, inputs: list[list], args: argparse.Namespace) -> dict:
    """The record of one peer on one call. Raises Refused where it would not be of the same problem, or wrong."""
    if refusal := peer.refusal(call):
        raise Refused(refusal)
    # Scales have two axes, and no other order.
    swap = lambda tensor: tensor.transpose(1, 2) if peer.bshd and tensor.dim() == 4 else tensor
    sets = [[swap(tensor).contiguous() for tensor in tensors] for tensors in inputs]
    with contextlib.ExitStack() as stack:
        run = peer.make(call, stack)
        probe = Graph(device, run, sets, len(sets), WARM_UP_S / 4)
        for tensors, answer in zip(inputs, probe.answers):
            error = relative_error(device.torch, call, tensors, swap(answer))
            if not error < BOUNDS[call.dtype]:  # NaN is not
                raise Refused(f"WRONG: relative error {error:.1e}, allowed: below {BOUNDS[call.dtype]:.0e}")
        graph = Graph(device, run, sets, graph_calls(probe.call_us(), len(sets)), WARM_UP_S)
        device_us = [graph.call_us() for _ in range(args.runs)]
        clocks = graph.busy_clocks()
        call_us = wall_us(device, run, sets, args.runs)
    method = {"calls": graph.calls, "runs": args.runs, "buffers": len(sets), "cold": args.cold, "seed": args.seed}
    return time_record(device.setup(peer.modules), peer.name, call, method, device_us, call_us, clocks)


def first_line(error: Exception) -> str:
    """What an exception says, for one line."""
    said = next(iter(str(error).splitlines()), "")[:200]
    return said if isinstance(error, Refused) else f"{type(error).__name__}: {said}"


def peer_list(text: str) -> list[str]:
    """Names of peers with commas between them."""
    names = text.split(",")
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"`{name}`, allowed: {', '.join(PEERS)}")
    return names


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"`{text}`, allowed: whole numbers above 0")
    return int(text)


def arguments(argv: list[str]) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calls", metavar="CALLS.jsonl", help="what `evo-sdpa bench --list` prints, or a results file")
    parser.add_argument("--json", required=True, metavar="OUT.jsonl", help="where the records go")
    parser.add_argument("--peers", type=peer_list, default=list(PEERS), help=f"by default all: {','.join(PEERS)}")
    parser.add_argument("--runs", type=positive, default=100, help="replays that are timed")
    parser.add_argument("--cold", action="store_true", help="take tensors that are not in the cache")
    parser.add_argument("--seed", type=int, default=1, help="of the numbers in the tensors")
    return parser.parse_args(argv)


def time_peers(device: Device, call: Call, args: argparse.Namespace) -> Iterator[dict]:
    """The records of every peer that takes the call; says what became of each."""
    sets = buffer_sets(call, device.properties.L2_cache_size, args.cold)
    inputs = device.tensors(call, sets, args.seed)
    for peer in (PEERS[key] for key in args.peers):
        try:
            record = measure(device, peer, call, inputs, args)
        except Exception as error:  # whatever a library raises, the others are timed
            print(f"{call}  {peer.name}  {first_line(error)}", flush=True)
            continue
        us = record["device_us"]["p50"]
        print(f"{call}  {peer.name}  {us:.2f} us  {call.flops / us / 1e6:.1f} TFLOP/s", flush=True)
        yield record


def main(argv: list[str]) -> int:
    """0, or 1 where nothing could be timed."""
    args, timed = arguments(argv), 0
    try:
        with open(args.calls, encoding="utf-8") as lines:
            calls = read_calls(lines)
        device = Device()
    except (OSError, ValueError, ImportError, Refused) as error:
        print(f"{args.calls}: {error}" if isinstance(error, ValueError) else error, file=sys.stderr)
        return 1
    with open(args.json, "w", encoding="utf-8") as out:
        write = lambda record: print(json.dumps(record), file=out, flush=True)
        for call in calls:
            try:
                for record in time_peers(device, call, args):
                    write(record)
                    timed += 1
            except Exception as error:  # such as too little memory for its tensors
                print(f"{call}  {first_line(error)}", flush=True)
        try:  # last, as it may change what comes after (docs/PERF.md)
            write(device.limits())
        except Exception as error:
            print(f"limits  {first_line(error)}", flush=True)
    return 0 if timed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
