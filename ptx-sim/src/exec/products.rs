//! The matrix products of a warpgroup that one of its warps has issued and not waited for, and what their registers may
//! be used for meanwhile.

use crate::program::{Action, Left, Product, Program, Warpgroup};
use crate::registers::Word;
use std::collections::VecDeque;

/// What a `wgmma.mma_async` was issued with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub pc: u32,
    /// The descriptor of A; 0 where A is in registers.
    pub a: u64,
    /// The descriptor of B.
    pub b: u64,
    /// Whether what the accumulators held counts.
    pub adds: bool,
}

/// What a register was used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// By an ordinary instruction since the last fence.
    touched: bool,
    /// Written by one.
    written: bool,
    /// Accumulates for a product in flight.
    sum: bool,
    /// Is part of A for a product in flight.
    factor: bool,
    /// The shape of the product that used it as accumulator since the last fence.
    shape: Option<Shape>,
}

/// Columns of B, and whether the elements have 8 bits.
type Shape = (u16, bool);

/// Why a product must not use a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misuse {
    /// Another product in flight has it.
    InFlight,
    /// No fence came since an ordinary instruction used it.
    Unfenced,
    /// No fence came since a product of another shape used it.
    OtherShape,
}

/// The products of a warp that were issued and not waited for.
#[derive(Debug, Default)]
pub(crate) struct Products {
    /// By word register; empty where the program has no products.
    uses: Vec<Use>,
    issued: VecDeque<Issued>,
    /// How many of `issued` are in each open group, the oldest first.
    groups: VecDeque<usize>,
    fenced: bool,
}

impl Products {
    pub fn new(program: &Program) -> Self {
        let has = program.code.iter().any(|inst| matches!(inst.action, Action::Warpgroup(_)));
        Self { uses: vec![Use::default(); if has { program.words } else { 0 }], ..Self::default() }
    }

    /// Begins a block.
    pub fn clear(&mut self) {
        self.uses.fill(Use::default());
        self.issued.clear();
        self.groups.clear();
        self.fenced = false;
    }

    /// Whether ordinary instructions have to be watched.
    #[inline(always)]
    pub fn watch(&self) -> bool {
        !self.uses.is_empty()
    }

    /// An ordinary instruction reads or writes a register. True where a product in flight has it.
    #[inline]
    pub fn touch(&mut self, register: u32, writes: bool) -> bool {
        let Some(this) = self.uses.get_mut(register as usize) else { return false };
        this.touched = true;
        this.written |= writes;
        this.sum || this.factor
    }

    /// `wgmma.fence`
    pub fn fence(&mut self) {
        self.fenced = true;
        for this in &mut self.uses {
            (this.touched, this.written, this.shape) = (false, false, None);
        }
    }

    /// Whether there was a `wgmma.fence`.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// What forbids to issue a product, if anything.
    pub fn misuse(&self, product: &Product) -> Option<Misuse> {
        let shape = shape(product);
        let of = |register: &Word| self.uses[register.0 as usize];
        let sums = product.d.iter().map(of).find_map(|this| match this {
            Use { factor: true, .. } => Some(Misuse::InFlight),
            Use { touched: true, .. } => Some(Misuse::Unfenced),
            Use { shape: Some(other), .. } if other != shape => Some(Misuse::OtherShape),
            _ => None,
        });
        let factors = factors(product).iter().map(of).find_map(|this| match this {
            Use { sum: true, .. } => Some(Misuse::InFlight),
            Use { written: true, .. } => Some(Misuse::Unfenced),
            _ => None,
        });
        sums.or(factors)
    }

    /// `wgmma.mma_async`
    pub fn issue(&mut self, product: &Product, issued: Issued) {
        self.issued.push_back(issued);
        for register in &product.d {
            self.uses[register.0 as usize].shape = Some(shape(product));
        }
        self.hold(product);
    }

    /// Marks the registers of a product in flight.
    fn hold(&mut self, product: &Product) {
        for register in &product.d {
            self.uses[register.0 as usize].sum = true;
        }
        for register in factors(product) {
            self.uses[register.0 as usize].factor = true;
        }
    }

    /// `wgmma.commit_group`
    pub fn commit(&mut self) {
        self.groups.push_back(self.issued.len() - self.committed());
    }

    fn committed(&self) -> usize {
        self.groups.iter().sum()
    }

    /// The products that must be complete before at most `open` groups are left, the oldest first.
    pub fn due(&self, open: u32) -> impl ExactSizeIterator<Item = Issued> {
        let closed = self.groups.len().saturating_sub(open as usize);
        let count: usize = self.groups.iter().take(closed).sum();
        self.issued.range(..count).copied()
    }

    /// The oldest product that was not waited for.
    pub fn unfinished(&self) -> Option<Issued> {
        self.issued.front().copied()
    }

    /// The oldest product that is in no group.
    pub fn uncommitted(&self) -> Option<Issued> {
        self.issued.get(self.committed()).copied()
    }

    /// A product in flight that has a register.
    pub fn holder(&self, program: &Program, register: u32) -> Option<Issued> {
        let has = |issued: &&Issued| {
            let product = product(program, issued.pc);
            product.d.iter().chain(factors(product)).any(|other| other.0 == register)
        };
        self.issued.iter().find(has).copied()
    }

    /// All but the newest `open` groups are complete.
    pub fn complete(&mut self, program: &Program, open: u32) {
        let closed = self.groups.len().saturating_sub(open as usize);
        let count: usize = self.groups.drain(..closed).sum();
        for issued in self.issued.drain(..count) {
            let product = product(program, issued.pc);
            for register in product.d.iter().chain(factors(product)) {
                let this = &mut self.uses[register.0 as usize];
                (this.sum, this.factor) = (false, false);
            }
        }
        for at in 0..self.issued.len() {
            self.hold(product(program, self.issued[at].pc));
        }
    }
}

/// The product that stands at a place.
pub(super) fn product(program: &Program, pc: u32) -> &Product {
    match &program.code[pc as usize].action {
        Action::Warpgroup(Warpgroup::Product(product)) => product,
        other => unreachable!("{other:?} was issued as a product"),
    }
}

/// The registers of A.
pub(super) fn factors(product: &Product) -> &[Word] {
    match &product.a {
        Left::Registers(words) => words,
        Left::Shared { .. } => &[],
    }
}

fn shape(product: &Product) -> Shape {
    (product.columns() as u16, matches!(product.formats, crate::numeric::mma::Formats::Fp8(_)))
}
