"""Records what a GPU makes of the instructions in instructions.py.

    python3 record.py FOLDER [WARPS] [ELEMENTS]

writes FOLDER/vectors.bin, whose layout ptx-sim/tests/vectors/README.md describes. Needs CuPy and a GPU of compute
capability 9.0.
"""

import struct
import sys

import cupy as cp
import numpy as np

import instructions

ELEMENT_BITS = {"f16": 16, "bf16": 16, "e4m3": 8, "e5m2": 8}
EXPONENT_BITS = {"f16": 5, "bf16": 8, "e4m3": 4, "e5m2": 5}
INFINITE = {"f16": 0x7C00, "bf16": 0x7F80, "e4m3": 0x7F, "e5m2": 0x7C}
NASTY = [
    0x00000000, 0x00000001, 0x00000002, 0x00000003, 0x0000FFFF, 0x007FFFFF, 0x00400000, 0x00800000, 0x00800001,
    0x01000000, 0x33000000, 0x33000001, 0x33800000, 0x387FC000, 0x387FE000, 0x38800000, 0x3F000000, 0x3F7FFFFF,
    0x3F800000, 0x3F800001, 0x3FFFFFFF, 0x40000000, 0x40490FDB, 0x3FC90FDB, 0x43E00000, 0x43E80000, 0x43E80001,
    0x477FE000, 0x477FEFFF, 0x477FF000, 0x4B7FFFFF, 0x4B800000, 0x4B800001, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF,
    0x4F800000, 0x5EFFFFFF, 0x5F000000, 0x5F7FFFFF, 0x5F800000, 0x42FC0000, 0x42FE0000, 0x42FFFFFF, 0x43000000,
    0x43150000, 0x43158000, 0x43160000, 0x7E800000, 0x7E800001, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF,
    0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x3C003C01, 0x7BFF7C00, 0x040003FF, 0x7C017E00, 0x7F80FF80,
]


def elements(rng, n):
    """Three arrays of f32 bits: edges, any bits, numbers about 1, ties of the narrow formats, related operands."""
    x = rng.integers(0, 2**32, n, dtype=np.uint32)
    kind = np.arange(n) % 8
    near = (x & 0x807FFFFF) | ((127 - 10 + rng.integers(0, 21, n)).astype(np.uint32) << 23)
    about = (x & 0x807FFFFF) | ((127 - 32 + rng.integers(0, 64, n)).astype(np.uint32) << 23)
    x = np.select([kind == 1, kind == 2, kind == 3], [near, near, about], x).astype(np.uint32)
    for k, cut in ((4, 13), (5, 16), (6, 20)):
        tie = (about & ~np.uint32(2**cut - 1)) | np.uint32(2 ** (cut - 1))
        x = np.where(kind == k, tie + rng.integers(-1, 2, n).astype(np.uint32), x).astype(np.uint32)
    nasty = np.array(NASTY + [v | 0x80000000 for v in NASTY], dtype=np.uint32)[: n // 2]
    x[: len(nasty)] = nasty
    y = rng.permutation(x)
    y = np.where(kind == 2, (near ^ rng.integers(0, 2**23, n).astype(np.uint32)), y).astype(np.uint32)
    # Products about the smallest normal number, of f32 and of f16.
    edge = rng.integers(-2, 3, n)
    factor = (x & 0x7FFFFF) | 0x3F000000
    other = (np.float32(2.0**-126) / factor.view(np.float32)).view(np.uint32) + edge.astype(np.uint32)
    halves = (x & 0x0FFF0FFF) | 0x28002800
    with np.errstate(all="ignore"):
        other16 = (np.float16(2.0**-14) / halves.view(np.float16)).view(np.uint16) + np.repeat(edge, 2).astype(np.uint16)
    eight = np.arange(n) % 16 == 7
    x = np.where(kind == 7, np.where(eight, factor, halves), x).astype(np.uint32)
    y = np.where(kind == 7, np.where(eight, other, other16.view(np.uint32)), y).astype(np.uint32)
    x[: len(nasty)] = nasty
    y[: len(nasty)] = rng.permutation(nasty)
    z = rng.permutation(x)
    with np.errstate(all="ignore"):
        product = (x.view(np.float32).astype(np.float64) * y.view(np.float32)).astype(np.float32).view(np.uint32)
    # Cancels the product, or lies within a few places of it.
    close = product ^ np.uint32(0x80000000) ^ rng.integers(0, 4, n).astype(np.uint32)
    z = np.where(np.isin(kind, (1, 2, 3)), close, z).astype(np.uint32)
    z = np.where(kind == 7, x & 0x80008000, z).astype(np.uint32)
    z[: len(nasty)] = rng.permutation(nasty)
    return x, y, z


def codes(rng, fmt, kind, shape):
    """Codes of a format, for a kind of matrix product."""
    bits, inf = ELEMENT_BITS[fmt], INFINITE[fmt]
    mantissa = bits - 1 - EXPONENT_BITS[fmt]
    sign = rng.integers(0, 2, shape) << (bits - 1)
    bias = 2 ** (EXPONENT_BITS[fmt] - 1) - 1
    low = rng.integers(0, 2**mantissa, shape)

    def around(centre, spread):
        exponent = np.clip(centre + rng.integers(-spread, spread + 1, shape), 0, (inf - 1) >> mantissa)
        return sign | np.minimum(exponent << mantissa | low, inf - 1)

    any_finite = sign | rng.integers(0, inf, shape)
    half = rng.integers(0, 2, shape) == 0
    return {
        "near": lambda: around(bias, 2),
        "spread": lambda: any_finite if bits == 8 or fmt == "f16" else around(bias, 13),
        "wide": lambda: any_finite,
        "anything": lambda: np.where(rng.random(shape) < 0.03, rng.integers(0, 2**bits, shape), any_finite),
        "cancel": lambda: around(bias, 3),
        "sparse": lambda: np.where(rng.random(shape) < 0.75, sign, any_finite),
        "tiny": lambda: np.where(half, around(1, 2), sign | low),
        "huge": lambda: around(inf >> mantissa, 2),
        "large and small": lambda: np.where(rng.random(shape) < 0.1, around(bias + 3, 1), around(bias - 4, 3)),
        "ones": lambda: sign | np.where(half, bias << mantissa, 0),
        # For bf16: products below the subnormals of f32, and about the last places of its largest numbers.
        "vanishing": lambda: around(bias - 75, 3) if fmt == "bf16" else around(2, 2),
        "brim": lambda: around(bias + 51, 2) if fmt == "bf16" else around((inf >> mantissa) - 1, 1),
    }[kind]()


KINDS = ["near", "spread", "wide", "anything", "cancel", "sparse", "tiny", "huge", "large and small", "ones", "vanishing",
         "brim"]


def matrices(rng, formats, a, b, warps):
    """Registers of A, B and C: [warp][register][lane]."""
    parts = []
    for fmt, registers in zip(formats, (a, b)):
        per_register = 32 // ELEMENT_BITS[fmt]
        rows = []
        for warp in range(warps):
            code = codes(rng, fmt, KINDS[warp % len(KINDS)], (registers, 32, per_register)).astype(np.uint32)
            if KINDS[warp % len(KINDS)] == "cancel":
                # Half of the values of k repeat the others, with the other sign in A, but for one element in 8.
                first, second = np.s_[: registers // 2], np.s_[registers // 2 :]
                if b == 1:
                    first, second = np.s_[:, :, 0::2], np.s_[:, :, 1::2]
                again = code[first] ^ np.uint32((len(parts) == 0) << (ELEMENT_BITS[fmt] - 1))
                code[second] = np.where(rng.random(again.shape) < 0.125, code[second], again)
            shifts = np.arange(per_register, dtype=np.uint32) * ELEMENT_BITS[fmt]
            rows.append(np.bitwise_or.reduce(code << shifts, axis=2))
        parts.append(np.stack(rows).astype(np.uint32))
    c = rng.integers(0, 2**32, (warps, 4, 32), dtype=np.uint32)
    exponent = lambda centre, spread: (centre + rng.integers(-spread, spread + 1, (4, 32))).astype(np.uint32) << 23
    zero = lambda share: rng.random((4, 32)) < share
    for warp in range(warps):
        kind, bits = KINDS[warp % len(KINDS)], c[warp]
        number = bits & 0x807FFFFF
        c[warp] = {
            "near": lambda: number | exponent(127, 4),
            "spread": lambda: number | exponent(127, 30),
            "wide": lambda: np.where(zero(0.3), bits & 0x80000000, number | exponent(127, 40)),
            "anything": lambda: np.where(zero(0.9), number | exponent(127, 20), bits),
            "cancel": lambda: np.where(zero(0.5), bits & 0x80000000, number | exponent(115, 12)),
            "sparse": lambda: np.where(zero(0.5), bits & 0x80000000, number | exponent(120, 20)),
            "tiny": lambda: np.where(zero(0.3), bits & 0x807FFFFF, number | exponent(8, 7)),
            "huge": lambda: np.where(zero(0.3), number | 0x7F000000, number | exponent(140, 20)),
            "large and small": lambda: number | exponent(127, 8),
            "ones": lambda: number | exponent(127 + 24, 6),
            "vanishing": lambda: np.where(zero(0.6), bits & 0x80000000, bits & 0x80000007),
            "brim": lambda: np.where(zero(0.3), number | exponent(127 + 32, 3), bits & 0x80000003 | 0x7F7FFFFC),
        }[kind]()
    return parts[0], parts[1], c.astype(np.uint32)


def run(folder, warps, n):
    rng = np.random.default_rng(2511)
    x, y, z = elements(rng, n)
    entries = [("elements", [x, y, z])]
    device = [cp.asarray(v) for v in (x, y, z)]
    for file, text, names, products in instructions.modules():
        with open(f"{folder}/{file}", "w") as f:
            f.write(text)
        module = cp.RawModule(path=f"{folder}/{file}")
        for name in names:
            kernel = module.get_function(instructions.symbol(name))
            out = cp.zeros((1 + ("%O" in names[name])) * n, dtype=cp.uint32)
            kernel((-(-n // 128),), (128,), (*device, out, np.uint32(n)))
            entries.append((name, [out.get()]))
        for name, (a, b, _) in products.items():
            formats = (name.split(".")[2:] * 2)[:2]
            operands = matrices(rng, formats, a, b, warps)
            out = cp.zeros((warps, 4, 32), dtype=cp.uint32)
            module.get_function(instructions.symbol(name))((warps,), (32,), (*map(cp.asarray, operands), out))
            entries.append((name, [*operands, out.get()]))
    with open(f"{folder}/vectors.bin", "wb") as f:
        f.write(b"PTXV")
        for name, arrays in entries:
            f.write(struct.pack("<BB", len(name), len(arrays)) + name.encode())
            for array in arrays:
                f.write(struct.pack("<I", array.size) + np.ascontiguousarray(array, "<u4").tobytes())
    print(f"{len(entries)} entries, {f.name}")


if __name__ == "__main__":
    run(sys.argv[1], *(int(v) for v in sys.argv[2:4]) if len(sys.argv) > 2 else (12, 336))
