//! Asynchronous copies and stores, and the mbarriers that tell of their end.

use super::bulk;
use super::instruction::{Decoded, stored_async, take_hints};
use super::operands::Operands;
use crate::error::ParseError;
use crate::program::{Action, Address, AsyncStore, Awaited, CpAsync, MbarrierOp, Place, Releases, Scope};
use crate::report::{Class, Space};
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes `cp.async`.
pub(super) fn copy(cx: &mut Operands) -> Result<Decoded> {
    if !cx.op.take("async") {
        return cx.op.unknown();
    }
    if cx.op.take("bulk") {
        return bulk::decode(cx);
    }
    if cx.op.take("mbarrier") { arrive_behind_copies(cx) } else { copy_of_lanes(cx) }
}

fn copy_of_lanes(cx: &mut Operands) -> Result<Decoded> {
    let plain = |action| Ok(Decoded::new(Class::Async, action));
    if cx.op.take("commit_group") {
        cx.op.finish()?;
        cx.expect_len(0)?;
        return plain(Action::CommitGroup);
    }
    if cx.op.take("wait_all") {
        cx.op.finish()?;
        cx.expect_len(0)?;
        return plain(Action::WaitGroup(None));
    }
    if cx.op.take("wait_group") {
        cx.op.finish()?;
        cx.expect_len(1)?;
        let open = u32::try_from(cx.integer(0)?).map_err(|_| cx.op.error("a negative number of groups"))?;
        return plain(Action::WaitGroup(Some(open)));
    }
    let whole_lines = cx.op.expect(&["ca", "cg"])? == "cg";
    take_hints(cx);
    if !(cx.op.take("shared") || cx.op.take("shared::cta")) || !cx.op.take("global") {
        return cx.op.unknown();
    }
    cx.op.finish()?;
    if cx.len() < 3 || cx.len() > 4 {
        return Err(cx.op.error(format!("{} operands, expected 3 or 4", cx.len())));
    }
    let (destination, _) = cx.address(0, Space::Shared)?;
    let (source, _) = cx.address(1, Space::Global)?;
    let bytes = cx.integer(2)?;
    if !(bytes == 16 || !whole_lines && (bytes == 4 || bytes == 8)) {
        return Err(cx.op.error(format!("{bytes} bytes, allowed: 16, and with .ca also 4 and 8")));
    }
    let (mut source_bytes, mut ignore) = (None, None);
    if cx.len() == 4 {
        match cx.get(3)? {
            Operand::Name(name) if cx.predicate_named(name).is_ok() => {
                ignore = Some(cx.src_predicate(3)?.0);
            }
            _ => source_bytes = Some(cx.src::<u32>(3)?),
        }
    }
    plain(Action::CpAsync(CpAsync { destination, source, bytes: bytes as u32, source_bytes, ignore }))
}

/// `cp.async.mbarrier.arrive{.noinc}.shared.b64 [address]`.
fn arrive_behind_copies(cx: &mut Operands) -> Result<Decoded> {
    if !cx.op.take("arrive") {
        return cx.op.unknown();
    }
    let counted = cx.op.take("noinc");
    shared_b64(cx)?;
    cx.expect_len(1)?;
    let address = shared(cx, 0)?;
    Ok(Decoded::new(Class::Async, Action::Mbarrier(MbarrierOp::Copies { address, counted })))
}

/// `st.async{.weak}.shared::cluster.mbarrier::complete_tx::bytes{.v2, .v4}.type [address], value, [mbarrier]`.
pub(super) fn store(cx: &mut Operands) -> Result<Decoded> {
    cx.op.take("async");
    cx.op.take("weak");
    for modifier in ["shared::cluster", "mbarrier::complete_tx::bytes"] {
        cx.op.expect(&[modifier])?;
    }
    cx.expect_len(3)?;
    let store = AsyncStore { store: stored_async(cx)?, mbarrier: place(cx, 2, Space::Cluster)? };
    Ok(Decoded::new(Class::Async, Action::AsyncStore(Box::new(store))))
}

/// Decodes `mbarrier`.
pub(super) fn mbarrier(cx: &mut Operands) -> Result<Decoded> {
    let names = ["init", "inval", "arrive", "expect_tx", "test_wait", "try_wait"];
    let operation = match cx.op.expect(&names)? {
        "init" => {
            shared_b64(cx)?;
            cx.expect_len(2)?;
            MbarrierOp::Init { address: shared(cx, 0)?, count: cx.src(1)? }
        }
        "inval" => {
            shared_b64(cx)?;
            cx.expect_len(1)?;
            MbarrierOp::Invalidate { address: shared(cx, 0)? }
        }
        "expect_tx" => {
            ordered(cx);
            let space = cluster_b64(cx)?;
            cx.expect_len(2)?;
            MbarrierOp::Expect { at: place(cx, 0, space)?, bytes: cx.src(1)? }
        }
        "arrive" => arrive(cx)?,
        name => wait(cx, name == "try_wait")?,
    };
    Ok(Decoded::new(Class::Async, Action::Mbarrier(operation)))
}

/// `mbarrier.arrive{.expect_tx} state, [address] {, count}`.
fn arrive(cx: &mut Operands) -> Result<MbarrierOp> {
    let expects = cx.op.take("expect_tx");
    let releases = ordered(cx).map_or(Releases::Fenced, Releases::All);
    let space = cluster_b64(cx)?;
    // The result may be left out.
    let first = usize::from(!matches!(cx.get(0)?, Operand::Address(..)));
    let state = match cx.get(0)? {
        Operand::Address(..) | Operand::Sink => None,
        _ if space == Space::Cluster => {
            return Err(cx.op.error("no state comes back from .shared::cluster, expected _"));
        }
        _ => Some(cx.dst(0)?),
    };
    let at = place(cx, first, space)?;
    let operand = match cx.len() - first {
        1 => None,
        2 => Some(cx.src(first + 1)?),
        _ => return Err(cx.op.error(format!("{} operands", cx.len()))),
    };
    let (count, expect) = if expects { (None, operand) } else { (operand, None) };
    if expects && expect.is_none() {
        return Err(cx.op.error("the number of bytes is missing"));
    }
    Ok(MbarrierOp::Arrive { at, count, expect, state, releases })
}

/// `mbarrier.{test_wait, try_wait}{.parity} done, [address], phase {, time}`.
fn wait(cx: &mut Operands, blocks: bool) -> Result<MbarrierOp> {
    let parity = cx.op.take("parity");
    let acquires = ordered(cx);
    shared_b64(cx)?;
    // How long it may block is the hardware's to choose.
    let time = usize::from(blocks && cx.len() == 4);
    cx.expect_len(3 + time)?;
    if time == 1 {
        cx.src::<u32>(3)?;
    }
    let (done, address) = (cx.dst_predicate(0)?, shared(cx, 1)?);
    let awaited = if parity { Awaited::Parity(cx.src(2)?) } else { Awaited::State(cx.src(2)?) };
    Ok(MbarrierOp::Wait { done, address, awaited, blocks, acquires })
}

/// For which threads an operation orders memory: those of the block where it names none, and none with `.relaxed`.
fn ordered(cx: &mut Operands) -> Option<Scope> {
    cx.op.take_any(&["release", "acquire"]);
    let relaxed = cx.op.take("relaxed");
    let scope = if cx.op.take_any(&["cta", "cluster"]) == Some("cluster") { Scope::Cluster } else { Scope::Block };
    (!relaxed).then_some(scope)
}

/// The last words of an operation on an mbarrier in the block's shared memory.
fn shared_b64(cx: &mut Operands) -> Result<()> {
    cx.op.expect(&["shared", "shared::cta"])?;
    cx.op.expect(&["b64"])?;
    cx.op.finish()
}

/// The same, of an mbarrier that may be another block's.
fn cluster_b64(cx: &mut Operands) -> Result<Space> {
    if !cx.op.take("shared::cluster") {
        return shared_b64(cx).map(|()| Space::Shared);
    }
    cx.op.expect(&["b64"])?;
    cx.op.finish()?;
    Ok(Space::Cluster)
}

/// An address in the block's shared memory.
fn shared(cx: &mut Operands, index: usize) -> Result<Address> {
    Ok(cx.address(index, Space::Shared)?.0)
}

/// An address in shared memory, `space` says whose.
pub(super) fn place(cx: &mut Operands, index: usize, space: Space) -> Result<Place> {
    Ok(Place { address: cx.address(index, space)?.0, space })
}
