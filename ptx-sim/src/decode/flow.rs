//! The order of basic blocks: loops in one piece, and otherwise every block behind those that lead to it.
//!
//! A warp whose lanes have parted runs the lanes with the lowest place in the code first. In this order (Bourdoncle,
//! "Efficient chaotic iteration strategies with widenings", 1993: a weak topological order) that makes them meet again
//! where the control flow joins, wherever the compiler has put the blocks.

use super::body::Place;
use super::operands::Slot;
use crate::error::ParseError;
use crate::program::{Action, Inst};
use crate::registers::Pred;
use crate::report::Class;
use rustc_hash::{FxHashMap, FxHashSet};

/// An instruction before its place is known.
#[derive(Debug)]
pub(crate) struct Raw {
    pub action: Action,
    pub guard: Option<(Pred, bool)>,
    pub reads: Vec<Slot>,
    pub writes: Vec<Slot>,
    pub class: Class,
    pub place: Place,
    pub hidden: bool,
    pub exit: Exit,
}

/// Where control goes from an instruction; also to the next one where a guard does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Next,
    To(u32),
    Switch(Vec<u32>),
    End,
}

/// Loops inside of loops, at most.
const MAX_NESTING: usize = 256;

/// A basic block: a range of the raw code, and the blocks that can follow.
struct Block {
    start: usize,
    end: usize,
    /// The block behind it, where control can fall through.
    next: Option<usize>,
    /// Targets in the order of [`Exit`].
    targets: Vec<usize>,
}

impl Block {
    fn successors(&self) -> impl Iterator<Item = usize> {
        self.targets.iter().copied().chain(self.next)
    }
}

/// Puts the code in order and resolves labels. `slot` numbers the registers.
pub(crate) fn linearize(
    code: Vec<Raw>,
    labels: &[Option<usize>],
    slot: impl Fn(Slot) -> u32,
) -> Result<(Vec<Inst>, Vec<u32>), ParseError> {
    let blocks = blocks(&code, labels)?;
    let order = order(&blocks, code.first().map_or(0, |raw| raw.place.line))?;
    let mut position = vec![u32::MAX; blocks.len()];
    let mut pc = 0;
    for (index, &block) in order.iter().enumerate() {
        position[block] = pc;
        pc += (blocks[block].end - blocks[block].start) as u32;
        pc += u32::from(falls_elsewhere(&blocks, &order, index).is_some());
    }
    let mut code: Vec<Option<Raw>> = code.into_iter().map(Some).collect();
    let mut linear = Vec::with_capacity(pc as usize);
    let mut slots = Vec::new();
    for (index, &block) in order.iter().enumerate() {
        let Block { start, end, ref targets, .. } = blocks[block];
        for raw in &mut code[start..end] {
            let Some(raw) = raw.take() else { continue };
            linear.push(finish(raw, targets, &position, &slot, &mut slots));
        }
        if let Some(target) = falls_elsewhere(&blocks, &order, index) {
            let like = linear.last().map(|inst: &Inst| (inst.line, inst.loc, inst.text)).unwrap_or_default();
            linear.push(Inst {
                action: Action::Branch(position[target]),
                guard: None,
                slots: 0,
                reads: 0,
                writes: 0,
                class: Class::Control,
                line: like.0,
                loc: like.1,
                text: like.2,
                hidden: true,
            });
        }
    }
    Ok((linear, slots))
}

fn finish(raw: Raw, targets: &[usize], position: &[u32], slot: &impl Fn(Slot) -> u32, slots: &mut Vec<u32>) -> Inst {
    let action = match (raw.action, &raw.exit) {
        (Action::Branch(_), Exit::To(_)) => Action::Branch(position[targets[0]]),
        (Action::Switch(index, _), Exit::Switch(_)) => {
            Action::Switch(index, targets.iter().map(|target| position[*target]).collect())
        }
        (action, _) => action,
    };
    let first = slots.len() as u32;
    let (reads, writes) = (raw.reads.len() as u8, raw.writes.len() as u8);
    slots.extend(raw.reads.into_iter().chain(raw.writes).map(slot));
    Inst {
        action,
        guard: raw.guard,
        slots: first,
        reads,
        writes,
        class: raw.class,
        line: raw.place.line,
        loc: raw.place.loc,
        text: raw.place.text,
        hidden: raw.hidden,
    }
}

/// The block that control falls into from the one at `index`, where it is not the next in order.
fn falls_elsewhere(blocks: &[Block], order: &[usize], index: usize) -> Option<usize> {
    blocks[order[index]].next.filter(|next| order.get(index + 1) != Some(next))
}

fn blocks(code: &[Raw], labels: &[Option<usize>]) -> Result<Vec<Block>, ParseError> {
    let mut leads = vec![false; code.len() + 1];
    leads[0] = true;
    for label in labels.iter().flatten() {
        leads[*label] = true;
    }
    for (index, raw) in code.iter().enumerate() {
        leads[index + 1] |= raw.exit != Exit::Next;
    }
    let starts: Vec<usize> = (0..code.len()).filter(|index| leads[*index]).collect();
    let block_at = |index: usize| starts.binary_search(&index).ok();
    let mut blocks = Vec::with_capacity(starts.len());
    for (number, &start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(code.len());
        let last = &code[end - 1];
        let target = |label: &u32| {
            labels[*label as usize]
                .and_then(block_at)
                .ok_or_else(|| ParseError::new(last.place.line, "a branch to a label behind the last instruction"))
        };
        let targets = match &last.exit {
            Exit::To(label) => vec![target(label)?],
            Exit::Switch(labels) => labels.iter().map(target).collect::<Result<_, _>>()?,
            Exit::Next | Exit::End => Vec::new(),
        };
        let goes_on = last.exit == Exit::Next || last.guard.is_some();
        let next = (goes_on && number + 1 < starts.len()).then_some(number + 1);
        blocks.push(Block { start, end, next, targets });
    }
    Ok(blocks)
}

/// The blocks that can be reached, in order.
fn order(blocks: &[Block], line: u32) -> Result<Vec<usize>, ParseError> {
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let mut order = Vec::with_capacity(blocks.len());
    // Blocks that count: 0 for none, else the depth of the loop that is being ordered.
    let mut level = vec![0usize; blocks.len()];
    // Pieces still to be ordered, the next one last: a block alone, or a loop at its depth.
    enum Piece {
        Block(usize),
        Part { entry: usize, members: Vec<usize>, depth: usize },
    }
    let mut pieces = vec![Piece::Part { entry: 0, members: (0..blocks.len()).collect(), depth: 1 }];
    while let Some(piece) = pieces.pop() {
        let (entry, members, depth) = match piece {
            Piece::Block(block) => {
                order.push(block);
                continue;
            }
            Piece::Part { entry, members, depth } => (entry, members, depth),
        };
        if depth > MAX_NESTING {
            return Err(ParseError::new(line, format!("loops nested deeper than {MAX_NESTING}")));
        }
        for &block in &members {
            level[block] = depth;
        }
        // Inside of a loop its head comes first, and the edges back to it do not count.
        let roots: Vec<usize> = if depth == 1 {
            vec![entry]
        } else {
            order.push(entry);
            level[entry] = 0;
            blocks[entry].successors().filter(|next| level[*next] == depth).collect()
        };
        let components = components(blocks, &roots, &level, depth);
        // Components come out last one first, which is how the stack wants them.
        for component in components {
            let head = *component.last().expect("a component has a block");
            if component.len() == 1 && !blocks[head].successors().any(|next| next == head) {
                pieces.push(Piece::Block(head));
            } else {
                pieces.push(Piece::Part { entry: head, members: component, depth: depth + 1 });
            }
        }
    }
    Ok(order)
}

/// Strongly connected components of the blocks of a level that `roots` reach, each behind all that it leads to, with
/// the block that was reached first as its last (Tarjan 1972, without recursion).
fn components(blocks: &[Block], roots: &[usize], level: &[usize], depth: usize) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let mut index = FxHashMap::<usize, (usize, usize)>::default();
    let mut on_stack = FxHashSet::default();
    let mut stack = Vec::new();
    let mut found = Vec::new();
    for &root in roots {
        if index.contains_key(&root) {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        while let Some(&mut (block, ref mut edge)) = path.last_mut() {
            if *edge == 0 {
                let number = index.len();
                index.insert(block, (number, number));
                stack.push(block);
                on_stack.insert(block);
            }
            let next = blocks[block].successors().filter(|next| level[*next] == depth).nth(*edge);
            *edge += 1;
            match next {
                Some(next) => match index.get(&next).map_or(NEW, |(number, _)| *number) {
                    NEW => path.push((next, 0)),
                    number if on_stack.contains(&next) => {
                        let low = &mut index.get_mut(&block).expect("visited").1;
                        *low = (*low).min(number);
                    }
                    _ => {}
                },
                None => {
                    path.pop();
                    let (number, low) = index[&block];
                    if let Some(&(parent, _)) = path.last() {
                        let above = &mut index.get_mut(&parent).expect("visited").1;
                        *above = (*above).min(low);
                    }
                    if number == low {
                        let at = stack.iter().rposition(|other| *other == block).expect("on the stack");
                        let mut component = stack.split_off(at);
                        for block in &component {
                            on_stack.remove(block);
                        }
                        component.reverse();
                        found.push(component);
                    }
                }
            }
        }
    }
    found
}
