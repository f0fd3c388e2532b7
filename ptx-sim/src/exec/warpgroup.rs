//! `wgmma`: products that four warps issue together and wait for together.
//!
//! Each warp issues for itself, and what it knows of the operands is checked then. When the last of the four comes to a
//! wait, the products that it covers are made (or each warp's part when it issues, by `Options::delivery`).

use super::Machine;
use super::operand::{Lines, Operand, Unusable};
use super::products::{Issued, Misuse, factors, product};
use super::shared::site;
use super::step::{Step, Then};
use super::warp::{State, Warp};
use crate::check::clock::Now;
use crate::options::Delivery;
use crate::program::{Inst, Left, Product, Warpgroup};
use crate::registers::{ALL, Long, lanes};
use crate::report::{Kind, RawPlace, Space};
use std::rc::Rc;

/// Warps of a warpgroup.
pub(super) const WARPS: usize = 4;
/// Rows of A and of the accumulators for each warp.
pub(super) const ROWS: usize = 16;

impl Machine<'_> {
    pub(super) fn warpgroup(&mut self, warp: &mut Warp, step: Step, what: &Warpgroup) -> Then {
        let there = self.warps - warp.number / WARPS * WARPS;
        let at = self.place(warp.index, step.active.trailing_zeros() as usize, step.pc);
        if there < WARPS {
            self.find(Kind::Diverged, at, None, || format!("the warpgroup has {there} of {WARPS} warps"));
            return Then::Next;
        }
        match what {
            Warpgroup::Product(product) => self.issue(warp, step, at, product),
            Warpgroup::Fence => warp.products.fence(),
            Warpgroup::Commit => warp.products.commit(),
            Warpgroup::Wait(open) => return self.wait_for_products(warp, step, at, *open),
        }
        Then::Next
    }

    fn issue(&mut self, warp: &mut Warp, step: Step, at: RawPlace, product: &Product) {
        let a = match product.a {
            Left::Shared { descriptor, .. } => self.uniform(warp, step, at, descriptor),
            Left::Registers(_) => 0,
        };
        let b = self.uniform(warp, step, at, product.b);
        let adds = warp.registers.holds(product.adds.0, product.adds.1) & step.active;
        if adds != 0 && adds != step.active {
            self.find(Kind::InvalidOperand, at, None, || format!("scale-d holds in lanes {adds:#010x} only"));
        }
        let issued = Issued { pc: step.pc, a, b, adds: adds != 0 };
        self.check_registers_of(warp, at, product, issued);
        warp.products.issue(product, issued);
        self.check_operands(warp.number, at, product, issued);
        if self.options.delivery == Delivery::Immediate {
            self.multiply(std::slice::from_mut(warp), &[issued]);
        }
    }

    /// The value of a register that all lanes must agree about.
    fn uniform(&mut self, warp: &Warp, step: Step, at: RawPlace, register: Long) -> u64 {
        let row = warp.registers.get(register);
        let first = row[at.lane as usize];
        if let Some(lane) = lanes(step.active).find(|lane| row[*lane] != first) {
            let other = row[lane];
            self.find(Kind::InvalidOperand, at, None, || {
                format!("descriptors differ: {first:#018x}, and {other:#018x} in lane {lane}")
            });
        }
        first
    }

    /// Looks at the registers of a product that is about to be issued.
    fn check_registers_of(&mut self, warp: &mut Warp, at: RawPlace, product: &Product, issued: Issued) {
        if !warp.products.is_fenced() {
            self.find(Kind::UnfencedRegister, at, None, || "no wgmma.fence before the first product".into());
        }
        match warp.products.misuse(product) {
            Some(Misuse::InFlight) => self.find(Kind::RegisterInFlight, at, None, || {
                "a register is an accumulator of one product in flight and part of A of another".into()
            }),
            Some(Misuse::Unfenced) => self.find(Kind::UnfencedRegister, at, None, || {
                "other instructions used registers of this product, no wgmma.fence since".into()
            }),
            Some(Misuse::OtherShape) => self.find(Kind::UnfencedRegister, at, None, || {
                "accumulators of a product of another shape, no wgmma.fence between".into()
            }),
            None => {}
        }
        let sums = product.d.iter().filter(|_| issued.adds);
        let read = sums.chain(factors(product)).map(|register| register.0 as usize);
        let missing = read.fold(0, |missing, register| missing | !warp.written[register]);
        if missing != 0 {
            let at = RawPlace { lane: missing.trailing_zeros(), ..at };
            self.find(Kind::UninitializedRegister, at, None, || "a register that nobody wrote".into());
        }
        let all = product.d.iter().chain(factors(product));
        all.for_each(|register| warp.written[register.0 as usize] = ALL);
    }

    /// An instruction that is no product touches its registers.
    #[inline(never)]
    pub(super) fn watch_registers(&mut self, warp: &mut Warp, inst: &Inst, pc: u32) {
        let program = self.program;
        let mut taken = None;
        for (registers, writes) in [(program.reads(inst), false), (program.writes(inst), true)] {
            for &register in registers {
                if warp.products.touch(register, writes) {
                    taken = Some((register, writes));
                }
            }
        }
        let Some((register, writes)) = taken else { return };
        let at = self.place(warp.index, 0, pc);
        let with = warp.products.holder(program, register).map(|issued| self.place(warp.index, 0, issued.pc));
        self.findings.add(Kind::RegisterInFlight, at, with, None, || {
            let how = if writes { "write" } else { "read" };
            format!("{how} of a register of a product that was not waited for")
        });
    }

    /// Looks at the operands in shared memory: whether the descriptors are good, and what this warp knows of the bytes.
    fn check_operands(&mut self, warp: usize, at: RawPlace, product: &Product, issued: Issued) {
        let (own, rank) = ((ROWS * (warp % WARPS)) as u32, self.rank);
        let a = Operand::a(product, issued, rank, own..own + ROWS as u32);
        for (name, operand) in [("A", a), ("B", Some(Operand::b(product, issued, rank)))] {
            let Some(operand) = operand else { continue };
            let lines = self.lines(&operand);
            match lines.as_ref() {
                Err(Unusable::Descriptor(message)) => {
                    self.find(Kind::InvalidOperand, at, None, || format!("{name}: {message}"));
                }
                Err(Unusable::Outside(address)) => {
                    let descriptor = operand.descriptor;
                    self.find(Kind::OutOfBounds, at, Some((Space::Shared, (*address).into(), 16)), || {
                        format!("{name}, descriptor {descriptor:#018x}, is not inside of the block's shared memory")
                    });
                }
                Ok(lines) => {
                    let start = self.windows.own().1;
                    self.peak_shared = lines.iter().fold(self.peak_shared, |peak, line| peak.max(line - start + 16));
                    if self.options.checks {
                        let now = self.clocks.now(at.warp as usize);
                        let fault = self.shadow.check_operands(site(at), &now, lines);
                        fault.into_iter().for_each(|(fault, offset)| self.fault(at, Some(fault), offset, 16));
                    }
                }
            }
        }
        // The first warp marks what all of them read.
        if self.options.checks && warp.is_multiple_of(WARPS) {
            for lines in self.all_lines(product, issued) {
                self.shadow.begin_operands(
                    site(at),
                    &self.clocks.now(at.warp as usize),
                    lines.as_deref().unwrap_or_default(),
                );
            }
        }
    }

    /// The offsets of what a product reads for all its warps.
    fn all_lines(&mut self, product: &Product, issued: Issued) -> impl Iterator<Item = Rc<Lines>> + use<> {
        let a = Operand::a(product, issued, self.rank, 0..(WARPS * ROWS) as u32).map(|a| self.lines(&a));
        a.into_iter().chain([self.lines(&Operand::b(product, issued, self.rank))])
    }

    fn wait_for_products(&mut self, warp: &mut Warp, step: Step, at: RawPlace, open: u32) -> Then {
        if let Some(issued) = warp.products.uncommitted() {
            let product = RawPlace { pc: issued.pc, ..at };
            self.findings.add(Kind::AsyncUnfinished, product, Some(at), None, || {
                "the product is in no group when the warp waits: wgmma.commit_group is missing".into()
            });
        }
        if warp.products.due(open).len() == 0 {
            warp.products.complete(self.program, open);
            return Then::Next;
        }
        warp.fragments[step.fragment].pc = step.pc + 1;
        warp.state = State::Products { open, pc: step.pc };
        Then::Leave
    }

    /// A warp of a block waits for products: when all of its warpgroup do, the products are complete.
    pub(super) fn finish_products(&mut self, warps: &mut [Warp], number: usize) {
        let Some(group) = warps.chunks_exact_mut(WARPS).nth(number / WARPS) else { return };
        let waits = |warp: &Warp| match warp.state {
            State::Products { open, pc } => Some((open, pc)),
            _ => None,
        };
        let Some(waits) = group.iter().map(waits).collect::<Option<Vec<_>>>() else { return };
        for (warp, (open, pc)) in group.iter().zip(&waits) {
            self.compare(&group[0], warp, waits[0].0, *open, *pc);
        }
        let due: Vec<Issued> = group[0].products.due(waits[0].0).collect();
        if self.options.delivery == Delivery::Late {
            self.multiply(group, &due);
        }
        if self.options.checks {
            self.end_operands(group[0].index, &due);
        }
        for (warp, (open, _)) in group.iter_mut().zip(waits) {
            warp.products.complete(self.program, open);
            warp.state = State::Ready;
        }
    }

    /// Two warps of a warpgroup must have issued the same products when they wait.
    fn compare(&mut self, first: &Warp, other: &Warp, open: u32, other_open: u32, pc: u32) {
        let (mine, others) = (first.products.due(open), other.products.due(other_open));
        let counts = (mine.len(), others.len());
        let line = |pc: u32| self.program.code[pc as usize].line;
        let (a, b) = (first.number, other.number);
        let mut found = None;
        if counts.0 != counts.1 {
            let text = format!("warp {a} waits for {} products, warp {b} for {}", counts.0, counts.1);
            found = Some((Kind::Diverged, pc, text));
        }
        for (x, y) in mine.zip(others).filter(|(x, y)| x != y) {
            let (kind, text) = if x.pc != y.pc {
                let text =
                    format!("warp {a} issues the product of line {}, warp {b} that of {}", line(x.pc), line(y.pc));
                (Kind::Diverged, text)
            } else {
                let text = |x: Issued| format!("A {:#018x}, B {:#018x}, scale-d {}", x.a, x.b, x.adds);
                (Kind::InvalidOperand, format!("warp {a} has {}; warp {b} has {}", text(x), text(y)))
            };
            found = found.or(Some((kind, y.pc, text)));
        }
        if let Some((kind, pc, text)) = found {
            self.find(kind, self.place(other.index, 0, pc), None, || text);
        }
    }

    /// The warpgroup whose first warp is `first` has waited for these products.
    fn end_operands(&mut self, first: usize, products: &[Issued]) {
        for &issued in products {
            let at = self.place(first, 0, issued.pc);
            for lines in self.all_lines(product(self.program, issued.pc), issued) {
                let nows: [Now; WARPS] = std::array::from_fn(|index| self.clocks.now(first + index));
                self.shadow.end_operands(site(at), nows, lines.as_deref().unwrap_or_default());
            }
        }
    }
}
