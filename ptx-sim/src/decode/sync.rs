//! Barriers and fences, and what warps and blocks agree on.

use super::instruction::Decoded;
use super::operands::Operands;
use crate::check::clock::Passes;
use crate::error::ParseError;
use crate::program::{Action, AnyReg, Barrier, BarrierOp, BarrierReduce};
use crate::registers::Word;
use crate::report::Class;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes `bar` and `barrier`.
pub(super) fn barrier(cx: &mut Operands) -> Result<Decoded> {
    if cx.op.take("cluster") {
        return cluster_barrier(cx);
    }
    cx.op.take("cta");
    if cx.op.take("warp") {
        if !cx.op.take("sync") {
            return cx.op.unknown();
        }
        cx.op.finish()?;
        cx.expect_len(1)?;
        let members = cx.src(0)?;
        return Ok(Decoded::new(Class::Barrier, Action::WarpBarrier(members)));
    }
    let kind = cx.op.expect(&["sync", "arrive", "red"])?;
    // Barriers count whole warps; without `.aligned`, too, the lanes of a warp have to come together here.
    cx.op.take("aligned");
    let first = usize::from(kind == "red");
    let mut reduce = None;
    let mut threads = None;
    if kind == "red" {
        let operation = match cx.op.expect(&["popc", "and", "or"])? {
            "popc" => BarrierOp::Popc(cx.dst(0)?),
            "and" => BarrierOp::And(cx.dst_predicate(0)?),
            _ => BarrierOp::Or(cx.dst_predicate(0)?),
        };
        let (predicate, negate) = cx.src_predicate(cx.len() - 1)?;
        reduce = Some(BarrierReduce { operation, predicate, negate });
        cx.op.take("u32");
        cx.op.take("pred");
    }
    cx.op.finish()?;
    let id: Word = cx.src(first)?;
    let given = cx.len() - first - usize::from(kind == "red");
    match given {
        1 if kind != "arrive" => {}
        2 => threads = Some(cx.src(first + 1)?),
        _ => return Err(cx.op.error(format!("{} operands", cx.len()))),
    }
    let barrier = Barrier { id, threads, waits: kind != "arrive", reduce };
    Ok(Decoded::new(Class::Barrier, Action::Barrier(barrier)))
}

/// `barrier.cluster.{arrive, wait}`.
fn cluster_barrier(cx: &mut Operands) -> Result<Decoded> {
    let waits = cx.op.expect(&["arrive", "wait"])? == "wait";
    cx.op.take(if waits { "acquire" } else { "release" });
    let orders = waits || !cx.op.take("relaxed");
    cx.op.take("aligned");
    cx.op.finish()?;
    cx.expect_len(0)?;
    Ok(Decoded::new(Class::Barrier, Action::ClusterBarrier { waits, orders }))
}

/// `setmaxnreg.{inc, dec}.sync.aligned.u32 count`.
pub(super) fn max_registers(cx: &mut Operands) -> Result<Decoded> {
    cx.op.expect(&["inc", "dec"])?;
    for modifier in ["sync", "aligned", "u32"] {
        cx.op.expect(&[modifier])?;
    }
    cx.op.finish()?;
    cx.expect_len(1)?;
    match u32::try_from(cx.integer(0)?) {
        Ok(count @ 24..=256) if count % 8 == 0 => Ok(Decoded::new(Class::Control, Action::MaxRegisters(count))),
        _ => Err(cx.op.error(format!("{} registers, allowed: multiples of 8 from 24 to 256", cx.integer(0)?))),
    }
}

/// `mapa{.shared::cluster}.{u32, u64} d, a, rank`.
pub(super) fn map_address(cx: &mut Operands) -> Result<Action> {
    let (long, generic) = address_type(cx)?;
    cx.expect_len(3)?;
    let (d, a) = if long {
        (AnyReg::Long(cx.dst(0)?), AnyReg::Long(cx.src(1)?))
    } else {
        (AnyReg::Word(cx.dst(0)?), AnyReg::Word(cx.src(1)?))
    };
    Ok(Action::MapAddress { d, a, rank: cx.src(2)?, generic })
}

/// `getctarank{.shared::cluster}.{u32, u64} d, a`.
pub(super) fn block_rank(cx: &mut Operands) -> Result<Action> {
    let (long, generic) = address_type(cx)?;
    cx.expect_len(2)?;
    let a = if long { AnyReg::Long(cx.src(1)?) } else { AnyReg::Word(cx.src(1)?) };
    Ok(Action::BlockRank { d: cx.dst(0)?, a, generic })
}

/// The type at the end of the opcode: whether an address has 64 bits, and whether it is generic.
fn address_type(cx: &mut Operands) -> Result<(bool, bool)> {
    let long = cx.op.take_type()?.bits() == 64;
    let generic = !cx.op.take("shared::cluster");
    cx.op.finish()?;
    if generic && !long {
        return Err(cx.op.error("a generic address has 64 bits"));
    }
    Ok((long, generic))
}

/// Decodes `membar` and `fence`.
pub(super) fn fence(cx: &mut Operands) -> Result<Decoded> {
    if cx.op.has("proxy") || cx.op.has("mbarrier_init") {
        return proxy_fence(cx);
    }
    while cx.op.take_any(&["sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "sys", "gl"]).is_some() {}
    cx.op.finish()?;
    cx.expect_len(0)?;
    Ok(Decoded::new(Class::Barrier, Action::Fence))
}

/// `fence.proxy.async` of shared memory, `fence.mbarrier_init`.
fn proxy_fence(cx: &mut Operands) -> Result<Decoded> {
    let action = if cx.op.take("mbarrier_init") {
        if !(cx.op.take("release") && cx.op.take("cluster")) {
            return cx.op.unknown();
        }
        Action::ProxyFence(Passes::Mbarriers)
    } else if cx.op.take("proxy") && cx.op.take("async") {
        match cx.op.take_any(&["global", "shared::cta", "shared::cluster"]) {
            // What is in flight in global memory is not followed.
            Some("global") => Action::Fence,
            _ => Action::ProxyFence(Passes::Writes),
        }
    } else {
        return cx.op.unknown();
    };
    cx.op.finish()?;
    cx.expect_len(0)?;
    Ok(Decoded::new(Class::Barrier, action))
}

/// What programmatic dependent launches wait for, and what lets them start. Launches run one after the other here: there
/// is never one ahead to wait for, and the one behind starts at the end. The instruction stays where it is among the others.
pub(super) fn dependency(cx: &mut Operands) -> Result<Decoded> {
    cx.op.expect(&["wait", "launch_dependents"])?;
    cx.op.finish()?;
    cx.expect_len(0)?;
    Ok(Decoded::new(Class::Control, Action::Compute(Box::new(|_, _| {}))))
}
