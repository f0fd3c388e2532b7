"""Implementations of attention that can be called from Python. Each is imported when it is asked for."""

import contextlib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from records import Call

Attention = Callable[..., Any]
"""A function of q, k and v, and of their scales where they are e4m3."""


@dataclass(frozen=True)
class Peer:
    """An implementation of attention."""

    name: str
    """In records."""
    make: Callable[[Call, contextlib.ExitStack], Attention]
    """The function for a call. It holds while the stack is open; raises where the library is missing."""
    takes: Callable[[Call], bool]
    """Whether its masks include the call's."""
    modules: tuple[str, ...] = ()
    """Where it comes from beside PyTorch; the first that can be imported."""
    bshd: bool = False
    """Whether its tensors are [batch, seq, heads, head_dim] and not [batch, heads, seq, head_dim]."""
    e4m3: bool = False
    """Whether it takes e4m3 inputs: with scales of the tensor or of heads, [batch, heads_kv], to an answer in bf16."""

    def refusal(self, call: Call) -> str | None:
        """Why it does not compute what the call asks for; None where it does."""
        if call.dtype == "e4m3" and not self.e4m3:
            return "takes no e4m3 inputs"
        if call.dtype == "e4m3" and (call.out != "bf16" or call.scales not in ("tensor", "head")):
            return f"takes no e4m3 inputs to {call.out} with scales: {call.scales}"
        if not self.takes(call):
            q_len, kv_len = call.lengths
            return f"has no mask {call.causal} of {q_len} queries and {kv_len} keys"
        return None


def takes_square(call: Call) -> bool:
    """PyTorch's flag means top-left in some backends and is refused by others, unless the lengths are equal."""
    return call.diagonal is None or (call.diagonal == 0 and call.lengths[0] == call.lengths[1])


def takes_bottom_right(call: Call) -> bool:
    """FlashAttention's flag."""
    return call.diagonal is None or call.diagonal == call.lengths[1] - call.lengths[0]


def first_module(names: Iterable[str]) -> Any:
    """The first module that can be imported. Raises ImportError that says why none can."""
    reasons = []
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise ImportError("; ".join(reasons))


def torch_attention(backend: str | None) -> Callable[[Call, contextlib.ExitStack], Attention]:
    """PyTorch's attention with a backend of its own choice or ours."""

    def make(call: Call, stack: contextlib.ExitStack) -> Attention:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        if backend:
            # Here and not in each call, where it would count as the caller's time.
            stack.enter_context(sdpa_kernel(getattr(SDPBackend, backend)))
        options = {"is_causal": call.diagonal is not None, "enable_gqa": call.grouped}
        return lambda q, k, v: scaled_dot_product_attention(q, k, v, **options)

    return make


def flash_attention(modules: tuple[str, ...]) -> Callable[[Call, contextlib.ExitStack], Attention]:
    """A package of FlashAttention."""

    def make(call: Call, _: contextlib.ExitStack) -> Attention:
        function = first_module(modules).flash_attn_func
        causal = call.diagonal is not None

        def run(q: Any, k: Any, v: Any, *scales: Any) -> Any:
            descale = dict(zip(("q_descale", "k_descale", "v_descale"), scales))
            answer = function(q, k, v, causal=causal, **descale)
            return answer[0] if isinstance(answer, tuple) else answer  # some versions return the log-sum-exp too

        return run

    return make


def flex_attention(call: Call, _: contextlib.ExitStack) -> Attention:
    """PyTorch's FlexAttention, compiled for this shape alone."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention as flex

    torch._dynamo.reset()  # its cache holds few shapes, and what comes then is not compiled
    compiled, mask, diagonal = torch.compile(flex, dynamic=False), None, call.diagonal
    if diagonal is not None:
        visible = lambda batch, head, row, key: key <= row + diagonal
        mask = create_block_mask(visible, None, None, *call.lengths, device="cuda")
    return lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=call.grouped)


FA3, FA4 = ("fa3_fwd_interface", "flash_attn_interface"), ("flash_attn.cute",)
PEERS = {
    "default": Peer("torch-default", torch_attention(None), takes_square),
    "flash": Peer("flash-attention-2", torch_attention("FLASH_ATTENTION"), takes_square),
    "cudnn": Peer("cudnn", torch_attention("CUDNN_ATTENTION"), takes_square),
    "efficient": Peer("efficient", torch_attention("EFFICIENT_ATTENTION"), takes_square),
    "fa3": Peer("flash-attention-3", flash_attention(FA3), takes_bottom_right, FA3, bshd=True, e4m3=True),
    "fa4": Peer("flash-attention-4", flash_attention(FA4), takes_bottom_right, FA4, bshd=True),
    "flex": Peer("flex", flex_attention, lambda call: True, ("triton",)),
}
