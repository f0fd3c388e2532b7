"""Attention calls, and the lines of results about them: those of src/cli/record.rs."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

BYTES = {"bf16": 2, "f16": 2, "f32": 4, "e4m3": 1}
"""Of one number of each type."""
OUT_TYPES = ("bf16", "f16")
"""Types of the answer to e4m3 inputs."""
LARGEST_E4M3 = 448.0
"""The largest e4m3 number."""
LEAST_SCALE = 2.0**-126
"""Of a block of e4m3 numbers: the least normal f32."""
MATRIX = 8192
"""Rows and columns of the matrices that measure the limits."""
COPY_BYTES = 1 << 30
"""Length of the copy that measures the limits."""
COLD_FACTOR = 3
"""How many times the second-level cache the tensors of cold calls take together."""
MAX_CALLS = 20
"""Calls of one graph at most: enough to hide the time that starting a graph takes."""
GRAPH_US = 4000.0
"""Up to which time a graph gets more calls, microseconds: beyond, starting it does not show."""


@dataclass(frozen=True)
class Call:
    """One attention call on contiguous tensors."""

    dtype: str
    shape: tuple[int, ...]
    """Batch, heads_q, heads_kv, q_len, kv_len, head_dim."""
    causal: str
    """none, bottom-right, top-left or an offset."""
    out: str | None = None
    """Type of the answer where inputs are e4m3; that of others is their inputs'."""
    scales: str | None = None
    """Which rows of e4m3 inputs share a scale: tensor, head or a number of rows."""

    @staticmethod
    def of(fields: dict[str, Any]) -> "Call":
        """The call of a JSON object. Raises ValueError that names the field."""
        dtype, shape, causal = (fields.get(name) for name in ("dtype", "shape", "causal"))
        if dtype not in BYTES:
            raise ValueError(f"dtype: {dtype!r}, allowed: {', '.join(BYTES)}")
        if not isinstance(shape, list) or len(shape) != 6 or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"shape: {shape!r}, allowed: six whole numbers above 0")
        if shape[1] % shape[2]:
            raise ValueError(f"shape: {shape[1]} query heads, allowed: multiples of the {shape[2]} key heads")
        out, scales = fields.get("out"), fields.get("scales")
        if dtype == "e4m3" and out not in OUT_TYPES:
            raise ValueError(f"out: {out!r}, allowed: {', '.join(OUT_TYPES)}")
        if dtype == "e4m3" and scales not in ("tensor", "head") and not str(scales).isdecimal():
            raise ValueError(f"scales: {scales!r}, allowed: tensor, head, a number of rows")
        if fields.get("from") is not None:
            raise ValueError(f"from: {fields['from']!r}, allowed: none, as no peer quantises")
        if fields.get("values") is not None:
            raise ValueError(f"values: {fields['values']!r}, allowed: none, as peers take them in rows")
        if dtype != "e4m3" and (out, scales) != (None, None):
            raise ValueError(f"dtype: {dtype!r} with out or scales, allowed: e4m3")
        call = Call(dtype, tuple(shape), str(causal), out, scales)
        try:
            call.diagonal
        except ValueError:
            raise ValueError(f"causal: {causal!r}, allowed: none, bottom-right, top-left, an offset") from None
        return call

    def __str__(self) -> str:
        quantized = f" to {self.out}, scales: {self.scales}," if self.scales else ""
        return f"{self.dtype}{quantized} {','.join(map(str, self.shape))} {self.causal}"

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object of the call."""
        quantized = {"out": self.out, "scales": self.scales} if self.scales else {}
        return {"dtype": self.dtype, "shape": list(self.shape), "causal": self.causal} | quantized

    @property
    def answer_dtype(self) -> str:
        """Type of the answer."""
        return self.out or self.dtype

    @property
    def lengths(self) -> tuple[int, int]:
        """Of queries and of keys."""
        return self.shape[3], self.shape[4]

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.shape[1] != self.shape[2]

    @property
    def diagonal(self) -> int | None:
        """Query i sees the keys up to i + diagonal; None where it sees all."""
        q_len, kv_len = self.lengths
        named = {"none": None, "bottom-right": kv_len - q_len, "top-left": 0}
        return named[self.causal] if self.causal in named else int(self.causal)

    @property
    def bytes(self) -> int:
        """Of q, k, v and the answer."""
        batch, heads_q, heads_kv, q_len, kv_len, head_dim = self.shape
        queries, keys = batch * heads_q * q_len * head_dim, batch * heads_kv * kv_len * head_dim
        return (queries + 2 * keys) * BYTES[self.dtype] + queries * BYTES[self.answer_dtype]

    @property
    def flops(self) -> int:
        """Operations of the two products, for the visible pairs of a query and a key alone."""
        batch, heads_q, _, q_len, kv_len, head_dim = self.shape
        diagonal = kv_len if self.diagonal is None else self.diagonal
        pairs = sum(min(max(row + diagonal + 1, 0), kv_len) for row in range(q_len))
        return 4 * batch * heads_q * head_dim * pairs


def read_calls(lines: Iterable[str]) -> list[Call]:
    """The calls of `evo-sdpa bench --list` or of a results file, each once. Raises ValueError that names the line."""
    calls: dict[Call, None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            if isinstance(fields, dict) and fields.get("kind") == "limits":
                continue
            if isinstance(fields, dict) and fields.get("kind") == "time":
                fields = fields.get("call")
            if not isinstance(fields, dict):
                raise ValueError("no call, allowed: what `evo-sdpa bench` writes")
            calls[Call.of(fields)] = None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return list(calls)


def quantiles(times: list[float]) -> dict[str, float]:
    """Nearest-rank quantiles."""
    ordered = sorted(times)
    at = lambda percent: ordered[math.ceil(percent * len(ordered) / 100) - 1]
    return {"min": ordered[0], "p50": at(50), "p90": at(90), "p99": at(99)}


def buffer_sets(call: Call, l2_bytes: int, cold: bool) -> int:
    """Sets of tensors that the calls take in turn."""
    return max(2, math.ceil(COLD_FACTOR * l2_bytes / call.bytes)) if cold else 1


def graph_calls(call_us: float, sets: int) -> int:
    """Calls of one graph, where one takes `call_us`: every set has its turn."""
    return max(sets, min(max(math.ceil(GRAPH_US / call_us), 1), MAX_CALLS))


def time_record(setup: dict, peer: str, call: Call, method: dict, device_us: list, call_us: list, clocks) -> dict:
    """A line with the time of one peer on one problem."""
    return {
        "kind": "time",
        "setup": setup,
        "implementation": peer,
        "call": call.fields,
        "method": method,
        "device_us": quantiles(device_us),
        "call_us": quantiles(call_us),
        "launch_us": None,
        "clocks": clocks,
        "kernel": None,
    }


def limits_record(setup: dict, matrix_us: dict[str, float], copy_us: float) -> dict:
    """A line with the rates of the device, from the times of a matrix product of each type and of a copy."""
    rates = {dtype: 2 * MATRIX**3 / us / 1e6 for dtype, us in matrix_us.items()}
    source = f"torch matmul {MATRIX}"
    return {
        "kind": "limits",
        "setup": setup,
        "source": source,
        "matrix_tflops": rates,
        "copy_gbs": 2 * COPY_BYTES / copy_us / 1e3,
    }
