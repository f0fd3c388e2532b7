//! Bulk copies: tiles of tensors, and plain bytes, in the asynchronous proxy.

use super::asynchronous::place;
use super::instruction::Decoded;
use super::operands::Operands;
use crate::error::ParseError;
use crate::program::{Action, BulkLoad, BulkStore, BulkWait, Remote};
use crate::report::{Class, Space};
use crate::syntax::ast::Operand;
use crate::tensor::MAX_RANK;

type Result<T> = std::result::Result<T, ParseError>;

/// Decodes `cp.async.bulk`.
pub(super) fn decode(cx: &mut Operands) -> Result<Decoded> {
    let action = if cx.op.take("commit_group") {
        cx.op.finish()?;
        cx.expect_len(0)?;
        Action::BulkCommit
    } else if cx.op.take("wait_group") {
        let read = cx.op.take("read");
        cx.op.finish()?;
        cx.expect_len(1)?;
        let open = u32::try_from(cx.integer(0)?).map_err(|_| cx.op.error("a negative number of groups"))?;
        Action::BulkWait(BulkWait { open, read })
    } else {
        transfer(cx)?
    };
    Ok(Decoded::new(Class::Async, action))
}

/// `[destination], [source] {, bytes} {, [mbarrier]} {, cache policy}`.
fn transfer(cx: &mut Operands) -> Result<Action> {
    let tensor = cx.op.take("tensor");
    let rank = if tensor { Some(rank(cx)?) } else { None };
    if tensor {
        cx.op.take("tile");
    }
    let multicast = usize::from(cx.op.take("multicast::cluster"));
    let hint = usize::from(cx.op.take("L2::cache_hint"));
    let shared = ["shared::cta", "shared::cluster"];
    if !tensor && shared.iter().all(|name| cx.op.has(name)) && multicast == 0 {
        return between_blocks(cx, hint);
    }
    // The destination is named first.
    let loads = cx.op.has("mbarrier::complete_tx::bytes");
    let complete = if loads { "mbarrier::complete_tx::bytes" } else { "bulk_group" };
    cx.op.expect(&[complete])?;
    let order = if loads { (1, 0) } else { (0, 1) };
    let places = [cx.op.position("global"), shared.iter().find_map(|name| cx.op.position(name))];
    let cluster = cx.op.has("shared::cluster");
    if places != [Some(order.0), Some(order.1)] || !loads && cluster || !cluster && multicast == 1 {
        return cx.op.unknown();
    }
    cx.op.take("global");
    cx.op.take_any(&shared);
    cx.op.finish()?;
    cx.expect_len(2 + usize::from(!tensor) + usize::from(loads) + multicast + hint)?;
    if hint == 1 {
        cx.src::<u64>(cx.len() - 1)?;
    }
    let (near, far) = if loads { (0, 1) } else { (1, 0) };
    let space = if cluster { Space::Cluster } else { Space::Shared };
    let shared = place(cx, near, space)?;
    let remote = match rank {
        Some(rank) => tile(cx, far, rank)?,
        None => Remote::Bytes { address: cx.address(far, Space::Global)?.0, bytes: cx.src(2)? },
    };
    // Tiles may begin and end at any element; those of single bytes are looked at in pairs.
    cx.body.note_access(Space::Global, if tensor { 2 } else { 4 });
    if !loads {
        return Ok(Action::BulkStore(Box::new(BulkStore { source: shared.address, remote })));
    }
    let mbarrier = place(cx, cx.len() - 1 - hint - multicast, space)?;
    let multicast = if multicast == 1 { Some(cx.src(cx.len() - 1 - hint)?) } else { None };
    Ok(Action::BulkLoad(Box::new(BulkLoad { destination: shared, remote, mbarrier, multicast })))
}

/// `cp.async.bulk.shared::cluster.shared::cta [destination], [source], bytes, [mbarrier]`.
fn between_blocks(cx: &mut Operands, hint: usize) -> Result<Action> {
    cx.op.expect(&["mbarrier::complete_tx::bytes"])?;
    let places = [cx.op.position("shared::cluster"), cx.op.position("shared::cta")];
    if places != [Some(0), Some(1)] || hint == 1 {
        return cx.op.unknown();
    }
    cx.op.take_any(&["shared::cluster"]);
    cx.op.take_any(&["shared::cta"]);
    cx.op.finish()?;
    cx.expect_len(4)?;
    let (destination, mbarrier) = (place(cx, 0, Space::Cluster)?, place(cx, 3, Space::Cluster)?);
    let remote = Remote::Shared { address: cx.address(1, Space::Shared)?.0, bytes: cx.src(2)? };
    Ok(Action::BulkLoad(Box::new(BulkLoad { destination, remote, mbarrier, multicast: None })))
}

fn rank(cx: &mut Operands) -> Result<usize> {
    let name = cx.op.expect(&["1d", "2d", "3d", "4d", "5d"])?;
    Ok((1..=MAX_RANK).find(|rank| name == format!("{rank}d")).unwrap_or(MAX_RANK))
}

/// `[map, {coordinates}]`.
fn tile(cx: &mut Operands, index: usize, rank: usize) -> Result<Remote> {
    let Operand::Tensor(base, coordinates) = cx.get(index)? else {
        return Err(cx.unexpected(cx.get(index)?, "[map, {coordinates}]"));
    };
    if coordinates.len() != rank {
        return Err(cx.op.error(format!("{} coordinates, expected {rank}", coordinates.len())));
    }
    let (map, _) = cx.address_of(*base, 0, Space::Generic)?;
    let at = coordinates.iter().map(|coordinate| cx.read(coordinate)).collect::<Result<_>>()?;
    Ok(Remote::Tile { map, at })
}
