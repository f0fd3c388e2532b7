//! `wgmma`: matrix products of a warpgroup.

use super::instruction::{Decoded, fp8};
use super::operands::Operands;
use crate::error::ParseError;
use crate::numeric::mma::Formats;
use crate::numeric::packed::Half;
use crate::program::{Action, Left, Product, Warpgroup};
use crate::registers::Word;
use crate::report::Class;
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes a `wgmma` instruction.
pub(super) fn decode(cx: &mut Operands) -> Result<Decoded> {
    let what = cx.op.expect(&["mma_async", "fence", "commit_group", "wait_group"])?;
    if !(cx.op.take("sync") && cx.op.take("aligned")) {
        return cx.op.unknown();
    }
    let (class, what) = match what {
        "mma_async" => (Class::WarpgroupMatrix, Warpgroup::Product(Box::new(product(cx)?))),
        "wait_group" => {
            cx.expect_len(1)?;
            let open = u32::try_from(cx.integer(0)?).map_err(|_| cx.op.error("a negative number of groups"))?;
            (Class::Async, Warpgroup::Wait(open))
        }
        what => {
            cx.expect_len(0)?;
            if what == "fence" { (Class::Barrier, Warpgroup::Fence) } else { (Class::Async, Warpgroup::Commit) }
        }
    };
    cx.op.finish()?;
    Ok(Decoded::new(class, Action::Warpgroup(what)))
}

fn product(cx: &mut Operands) -> Result<Product> {
    let (b, a, sums, shape) = (cx.op.take_last(), cx.op.take_last(), cx.op.take_last(), cx.op.take_last());
    let (Some(a), Some(b), Some("f32")) = (a, b, sums) else { return cx.op.unknown() };
    let formats = match (a, b) {
        ("f16", "f16") => Formats::Half(Half::F16),
        ("bf16", "bf16") => Formats::Half(Half::Bf16),
        _ => match (fp8(a), fp8(b)) {
            (Some(a), Some(b)) => Formats::Fp8([a, b]),
            _ => return cx.op.unknown(),
        },
    };
    let halves = matches!(formats, Formats::Half(_));
    let columns = columns(shape.unwrap_or_default(), if halves { "k16" } else { "k32" });
    let columns = columns.ok_or_else(|| cx.op.error("the shape is not one of .m64n8 to .m64n256 in steps of 8"))?;
    let in_registers = matches!(cx.get(1)?, Operand::Vector(_));
    cx.expect_len(if !halves {
        6
    } else if in_registers {
        7
    } else {
        8
    })?;
    let (b_descriptor, adds) = (cx.src(2)?, cx.src_predicate(3)?);
    let negative = negates(cx, 4)? != negates(cx, 5)?;
    let transposed = |cx: &Operands, index| if halves { flag(cx, index) } else { Ok(false) };
    let b_transposed = transposed(cx, cx.len() - 1)?;
    let described =
        if in_registers { None } else { Some(Left::Shared { descriptor: cx.src(1)?, transposed: transposed(cx, 6)? }) };
    // What becomes of the registers is followed by whoever issues the product.
    let (reads, writes) = (cx.reads.len(), cx.writes.len());
    let a = match described {
        Some(a) => a,
        None => Left::Registers(cx.src_words(1)?),
    };
    let d: Box<[Word]> = cx.elements(0)?.iter().map(|element| cx.write(element)).collect::<Result<_>>()?;
    cx.reads.truncate(reads);
    cx.writes.truncate(writes);
    if 2 * d.len() != columns {
        return Err(cx.op.error(format!("{} accumulators, expected {}", d.len(), columns / 2)));
    }
    Ok(Product { formats, a, b: b_descriptor, b_transposed, d, adds, negative })
}

/// The columns of a shape that ends in `depth`.
fn columns(shape: &str, depth: &str) -> Option<usize> {
    let columns = shape.strip_prefix("m64n")?.strip_suffix(depth)?.parse().ok()?;
    (columns % 8 == 0 && (8..=256).contains(&columns)).then_some(columns)
}

/// Whether the factor at `index` is -1.
fn negates(cx: &Operands, index: usize) -> Result<bool> {
    match cx.integer(index)? {
        1 => Ok(false),
        -1 => Ok(true),
        other => Err(cx.op.error(format!("{other} as a factor, allowed: 1 and -1"))),
    }
}

/// Whether the number at `index` is 1.
fn flag(cx: &Operands, index: usize) -> Result<bool> {
    match cx.integer(index)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(cx.op.error(format!("{other} for a transposition, allowed: 0 and 1"))),
    }
}
