"""The instructions to record, as PTX.

An elementwise instruction reads the 32-bit registers %x, %y and %z and leaves its result in %o (or in %O, of 64 bits).
Operands of 64 bits are the pairs %X = {x, y}, %Y = {y, z} and %Z = {z, x}, low word first.
"""


def unary(result="%o"):
    return lambda op: f"{op} {result}, %x;"


def half(op):
    """A 16-bit result of a 32-bit operand."""
    return f"{op} %h, %x; cvt.u32.u16 %o, %h;"


def from_half(op):
    """A 32-bit result of the low 16 bits of the operand."""
    return f"cvt.u16.u32 %h, %x; {op} %o, %h;"


def binary(op):
    return f"{op} %o, %x, %y;"


def ternary(op):
    return f"{op} %o, %x, %y, %z;"


def double(op, operands="%X", result="%O"):
    moves = {"%X": "{%x, %y}", "%Y": "{%y, %z}", "%Z": "{%z, %x}"}
    text = "".join(f"mov.b64 {o}, {moves[o]}; " for o in operands.split(", "))
    if result == "%h":
        return f"{text}{op} %h, {operands}; cvt.u32.u16 %o, %h;"
    return f"{text}{op} {result}, {operands};"


SM_80 = {
    **{op: unary()(op) for op in [
        "ex2.approx.f32", "ex2.approx.ftz.f32", "lg2.approx.f32", "lg2.approx.ftz.f32", "rcp.approx.f32",
        "rcp.approx.ftz.f32", "rsqrt.approx.f32", "rsqrt.approx.ftz.f32", "sqrt.approx.f32", "sqrt.approx.ftz.f32",
        "sin.approx.f32", "sin.approx.ftz.f32", "cos.approx.f32", "cos.approx.ftz.f32", "tanh.approx.f32",
        "rcp.rn.f32", "sqrt.rn.f32", "sqrt.rp.f32", "neg.f32", "abs.f32", "abs.ftz.f32", "neg.f16x2", "abs.f16x2",
        "neg.bf16x2", "abs.bf16x2", "cvt.rna.tf32.f32", "ex2.approx.f16x2", "tanh.approx.f16x2",
        "cvt.rni.f32.f32", "cvt.rmi.ftz.f32.f32", "cvt.rpi.f32.f32", "cvt.sat.f32.f32",
        "cvt.rzi.s32.f32", "cvt.rni.u32.f32", "cvt.rmi.s32.f32", "cvt.rpi.ftz.u32.f32",
        "cvt.rn.f32.s32", "cvt.rz.f32.u32", "cvt.rm.f32.s32", "cvt.rp.f32.u32",
    ]},
    **{op: unary("%O")(op) for op in ["cvt.rzi.s64.f32", "cvt.rni.u64.f32", "cvt.f64.f32", "cvt.f64.ftz.f32"]},
    **{op: double(op, "%X") for op in [
        "cvt.rzi.s64.f64", "cvt.rni.u64.f64", "cvt.rn.f64.s64", "cvt.rz.f64.u64", "neg.f64", "abs.f64", "sqrt.rn.f64",
    ]},
    **{op: double(op, "%X", "%o") for op in [
        "cvt.rzi.s32.f64", "cvt.rni.u32.f64", "cvt.rn.f32.f64", "cvt.rz.f32.f64", "cvt.rn.ftz.f32.f64",
        "cvt.rn.f32.s64", "cvt.rp.f32.u64",
    ]},
    **{op: double(op, "%X", "%h") for op in ["cvt.rn.f16.f64", "cvt.rz.f16.f64", "cvt.rn.f16.s64", "cvt.rzi.s16.f64"]},
    **{op: double(op, "%X, %Y") for op in [
        "add.rn.f64", "sub.rn.f64", "mul.rn.f64", "div.rn.f64", "min.f64", "max.f64",
    ]},
    "fma.rn.f64": double("fma.rn.f64", "%X, %Y, %Z"),
    **{op: half(op) for op in [
        "cvt.rn.f16.f32", "cvt.rz.f16.f32", "cvt.rn.relu.f16.f32", "cvt.rn.bf16.f32", "cvt.rz.bf16.f32",
        "cvt.rn.relu.bf16.f32", "cvt.rzi.s16.f32", "cvt.rni.u8.f32",
    ]},
    **{op: from_half(op) for op in ["cvt.f32.f16", "cvt.rzi.s32.f16", "cvt.rn.f32.s16"]},
    **{op: binary(op) for op in [
        "add.rn.f32", "add.rz.f32", "add.rm.f32", "add.rp.f32", "add.rn.ftz.sat.f32", "mul.rn.f32", "mul.rz.f32",
        "mul.rp.f32", "mul.rn.ftz.f32", "div.rn.f32", "div.rz.f32", "div.full.f32", "div.full.ftz.f32",
        "div.approx.f32", "div.approx.ftz.f32", "copysign.f32", "add.rn.sat.f16x2", "add.rn.ftz.f16x2",
        "sub.rn.f16x2", "mul.rn.ftz.sat.f16x2", "max.ftz.f16x2", "min.f32", "max.f32", "min.NaN.f32", "max.NaN.f32", "max.ftz.f32",
        "add.rn.f16x2", "mul.rn.f16x2", "min.f16x2", "max.NaN.f16x2", "min.bf16x2", "max.NaN.bf16x2",
    ]},
    **{op: f"{op} %o, %y, %x;" for op in [
        "cvt.rn.f16x2.f32", "cvt.rz.f16x2.f32", "cvt.rn.relu.f16x2.f32", "cvt.rn.bf16x2.f32", "cvt.rz.bf16x2.f32",
    ]},
    **{op: ternary(op) for op in [
        "fma.rn.f32", "fma.rz.f32", "fma.rm.f32", "fma.rp.f32", "fma.rn.ftz.f32", "fma.rn.sat.f32",
        "fma.rn.f16x2", "fma.rn.sat.f16x2", "fma.rn.ftz.f16x2", "fma.rn.relu.f16x2", "fma.rn.bf16x2",
    ]},
}

# sm_89 and PTX 8.1 or newer, sm_90 for bf16 arithmetic.
SM_90 = {
    **{op: f"{op} %h, %y, %x; cvt.u32.u16 %o, %h;" for op in [
        "cvt.rn.satfinite.e4m3x2.f32", "cvt.rn.satfinite.e5m2x2.f32", "cvt.rn.satfinite.relu.e4m3x2.f32",
    ]},
    **{op: f"{op} %h, %x; cvt.u32.u16 %o, %h;" for op in [
        "cvt.rn.satfinite.e4m3x2.f16x2", "cvt.rn.satfinite.e5m2x2.f16x2",
    ]},
    **{op: from_half(op) for op in ["cvt.rn.f16x2.e4m3x2", "cvt.rn.f16x2.e5m2x2", "cvt.f32.bf16"]},
    **{op: unary()(op) for op in ["ex2.approx.ftz.bf16x2", "tanh.approx.bf16x2", "cvt.rn.tf32.f32", "cvt.rz.tf32.f32"]},
    **{op: binary(op) for op in [
        "add.rn.bf16x2", "sub.rn.bf16x2", "mul.rn.bf16x2", "min.xorsign.abs.f32", "max.NaN.xorsign.abs.f32",
    ]},
    **{op: double(op, "%X", "%h") for op in ["cvt.rn.bf16.f64", "cvt.rn.bf16.s64", "cvt.rz.bf16.u64"]},
    **{op: half(op) for op in ["cvt.rn.bf16.u32", "cvt.rp.f16.u32"]},
    "fma.rn.relu.bf16x2": ternary("fma.rn.relu.bf16x2"),
}

# Name -> registers of A, of B, instruction.
MMA_SM_80 = {
    "mma.m16n8k16.f16": (4, 2, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
    "mma.m16n8k16.bf16": (4, 2, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"),
    "mma.m16n8k8.f16": (2, 1, "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"),
    "mma.m16n8k8.bf16": (2, 1, "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32"),
}
MMA_SM_90 = {
    "mma.m16n8k32.e4m3": (4, 2, "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32"),
    "mma.m16n8k32.e5m2": (4, 2, "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32"),
    "mma.m16n8k32.e5m2.e4m3": (4, 2, "mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e4m3.f32"),
    "mma.m16n8k32.e4m3.e5m2": (4, 2, "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32"),
}


def symbol(name):
    return name.replace(".", "_")


def elementwise(name, body):
    """A kernel in which thread i applies `body` to element i of x, y and z."""
    wide = "%O" in body
    store = "st.global.b64 [%p], %O;" if wide else "st.global.b32 [%p], %o;"
    return f"""
// {name}
.visible .entry {symbol(name)}(.param .u64 x, .param .u64 y, .param .u64 z, .param .u64 o, .param .u32 n) {{
  .reg .b16 %h; .reg .b32 %x, %y, %z, %o, %i, %t<4>; .reg .b64 %O, %X, %Y, %Z, %p; .reg .pred %q;
  mov.u32 %t0, %ctaid.x; mov.u32 %t1, %ntid.x; mov.u32 %t2, %tid.x; mad.lo.u32 %i, %t0, %t1, %t2;
  ld.param.u32 %t3, [n]; setp.ge.u32 %q, %i, %t3; @%q ret;
  ld.param.u64 %p, [x]; mad.wide.u32 %p, %i, 4, %p; ld.global.b32 %x, [%p];
  ld.param.u64 %p, [y]; mad.wide.u32 %p, %i, 4, %p; ld.global.b32 %y, [%p];
  ld.param.u64 %p, [z]; mad.wide.u32 %p, %i, 4, %p; ld.global.b32 %z, [%p];
  {body}
  ld.param.u64 %p, [o]; mad.wide.u32 %p, %i, {8 if wide else 4}, %p; {store}
  ret;
}}
"""


def mma(name, a, b, instruction):
    """A kernel in which warp w multiplies matrix w; operands lie as [warp][register][lane]."""
    loads = ""
    for operand, count in (("a", a), ("b", b), ("c", 4)):
        loads += f"  ld.param.u64 %p, [{operand}]; mad.lo.u32 %t0, %w, {32 * count}, %l; mad.wide.u32 %p, %t0, 4, %p;\n"
        loads += "".join(f"  ld.global.b32 %{operand}{i}, [%p+{128 * i}];\n" for i in range(count))
    registers = lambda operand, count: "{" + ", ".join(f"%{operand}{i}" for i in range(count)) + "}"
    stores = "".join(f"  st.global.b32 [%p+{128 * i}], %d{i};\n" for i in range(4))
    return f"""
// {name}
.visible .entry {symbol(name)}(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{
  .reg .b32 %a<{a}>, %b<{b}>, %c<4>, %d<4>, %w, %l, %t<3>; .reg .b64 %p;
  mov.u32 %w, %ctaid.x; mov.u32 %l, %tid.x;
{loads}  {instruction} {registers("d", 4)}, {registers("a", a)}, {registers("b", b)}, {registers("c", 4)};
  ld.param.u64 %p, [d]; mad.lo.u32 %t0, %w, 128, %l; mad.wide.u32 %p, %t0, 4, %p;
{stores}  ret;
}}
"""


def modules():
    """The two PTX texts: (file name, text, elementwise table, mma table)."""
    for file, version, target, ops, products in (
        ("record_sm80.ptx", "7.8", "sm_80", SM_80, MMA_SM_80),
        ("record_sm90.ptx", "8.4", "sm_90", SM_90, MMA_SM_90),
    ):
        text = f".version {version}\n.target {target}\n.address_size 64\n"
        text += "".join(elementwise(name, body) for name, body in ops.items())
        text += "".join(mma(name, *parts) for name, parts in products.items())
        yield file, text, ops, products


if __name__ == "__main__":
    for file, text, _, _ in modules():
        with open(file, "w") as f:
            f.write(text)
