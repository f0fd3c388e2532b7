//! Instructions in which the lanes of a warp exchange values.

use crate::decode::opcode::Type;
use crate::decode::operands::Operands;
use crate::error::ParseError;
use crate::program::Action;
use crate::registers::{Pred, Word};
use crate::syntax::ast::Operand;

type Result<T> = std::result::Result<T, ParseError>;

/// `shfl.sync`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shuffle {
    pub mode: ShuffleMode,
    pub d: Word,
    /// Whether the source lane is in range.
    pub valid: Option<Pred>,
    pub a: Word,
    pub b: Word,
    pub c: Word,
    pub members: Word,
}

/// Where a lane looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

impl Shuffle {
    /// The lane that `lane` reads, and whether that is in range (PTX ISA, "shfl.sync").
    pub fn source(mode: ShuffleMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
        let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
        let last = lane & segment | clamp & !segment;
        let first = lane & segment;
        let (source, valid) = match mode {
            ShuffleMode::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= last as i32),
            ShuffleMode::Down => (lane + b, lane + b <= last),
            ShuffleMode::Butterfly => (lane ^ b, lane ^ b <= last),
            ShuffleMode::Index => (first | b & !segment, first | b & !segment <= last),
        };
        (if valid { source & 31 } else { lane }, valid)
    }
}

/// `vote.sync`, `match.sync`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote {
    pub what: VoteKind,
    pub members: Word,
}

/// What is voted on, and where the result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum VoteKind {
    All { d: Pred, p: Pred, negated: bool },
    Any { d: Pred, p: Pred, negated: bool },
    Uniform { d: Pred, p: Pred, negated: bool },
    Ballot { d: Word, p: Pred, negated: bool },
    MatchAny { d: Word, a: Word },
}

/// `redux.sync`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduce {
    pub d: Word,
    pub a: Word,
    pub members: Word,
    pub combine: fn(u32, u32) -> u32,
}

/// `elect.sync`: the first lane of the members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elect {
    /// The lane that was elected.
    pub d: Word,
    /// Whether it is the own one.
    pub p: Pred,
    pub members: Word,
}

/// Decodes `shfl`, `vote`, `redux`, `match`, `elect`, `activemask`.
pub(crate) fn decode(cx: &mut Operands) -> Result<Action> {
    let sync = cx.op.take("sync");
    match cx.op.name {
        "activemask" => {
            cx.op.expect(&["b32"])?;
            cx.op.finish()?;
            cx.expect_len(1)?;
            Ok(Action::ActiveMask(cx.dst(0)?))
        }
        _ if !sync => cx.op.unknown(),
        "shfl" => shuffle(cx),
        "vote" => vote(cx),
        "redux" => reduce(cx),
        "elect" => elect(cx),
        "match" => {
            if !(cx.op.take("any") && cx.op.take("b32")) {
                return cx.op.unknown();
            }
            cx.op.finish()?;
            cx.expect_len(3)?;
            let what = VoteKind::MatchAny { d: cx.dst(0)?, a: cx.src(1)? };
            Ok(Action::Vote(Vote { what, members: cx.src(2)? }))
        }
        _ => cx.op.unknown(),
    }
}

fn shuffle(cx: &mut Operands) -> Result<Action> {
    let mode = match cx.op.expect(&["up", "down", "bfly", "idx"])? {
        "up" => ShuffleMode::Up,
        "down" => ShuffleMode::Down,
        "bfly" => ShuffleMode::Butterfly,
        _ => ShuffleMode::Index,
    };
    cx.op.expect(&["b32"])?;
    cx.op.finish()?;
    cx.expect_len(5)?;
    let (d, valid) = match cx.get(0)? {
        Operand::Pair(d, valid) => (cx.write(&Operand::Name(d))?, Some(cx.write_predicate(valid)?)),
        other => (cx.write(other)?, None),
    };
    let (a, b, c, members) = (cx.src(1)?, cx.src(2)?, cx.src(3)?, cx.src(4)?);
    Ok(Action::Shuffle(Shuffle { mode, d, valid, a, b, c, members }))
}

fn elect(cx: &mut Operands) -> Result<Action> {
    cx.op.finish()?;
    cx.expect_len(2)?;
    let Operand::Pair(d, p) = cx.get(0)? else { return Err(cx.unexpected(cx.get(0)?, "a pair of destinations")) };
    let d = if *d == "_" { cx.write(&Operand::Sink)? } else { cx.write(&Operand::Name(d))? };
    Ok(Action::Elect(Elect { d, p: cx.write_predicate(p)?, members: cx.src(1)? }))
}

fn vote(cx: &mut Operands) -> Result<Action> {
    let kind = cx.op.expect(&["all", "any", "uni", "ballot"])?;
    cx.op.expect(&["pred", "b32"])?;
    cx.op.finish()?;
    cx.expect_len(3)?;
    let (p, negated) = cx.src_predicate(1)?;
    let what = match kind {
        "ballot" => VoteKind::Ballot { d: cx.dst(0)?, p, negated },
        "all" => VoteKind::All { d: cx.dst_predicate(0)?, p, negated },
        "any" => VoteKind::Any { d: cx.dst_predicate(0)?, p, negated },
        _ => VoteKind::Uniform { d: cx.dst_predicate(0)?, p, negated },
    };
    Ok(Action::Vote(Vote { what, members: cx.src(2)? }))
}

fn reduce(cx: &mut Operands) -> Result<Action> {
    let ty = cx.op.take_type()?;
    let name = cx.op.expect(&["add", "min", "max", "and", "or", "xor"])?;
    cx.op.finish()?;
    cx.expect_len(3)?;
    let combine: fn(u32, u32) -> u32 = match (name, ty) {
        ("add", Type::U(32) | Type::S(32)) => u32::wrapping_add,
        ("min", Type::U(32)) => |a, b| a.min(b),
        ("max", Type::U(32)) => |a, b| a.max(b),
        ("min", Type::S(32)) => |a, b| (a as i32).min(b as i32) as u32,
        ("max", Type::S(32)) => |a, b| (a as i32).max(b as i32) as u32,
        ("and", Type::B(32)) => |a, b| a & b,
        ("or", Type::B(32)) => |a, b| a | b,
        ("xor", Type::B(32)) => |a, b| a ^ b,
        _ => return cx.op.unknown(),
    };
    Ok(Action::Reduce(Reduce { d: cx.dst(0)?, a: cx.src(1)?, members: cx.src(2)?, combine }))
}
