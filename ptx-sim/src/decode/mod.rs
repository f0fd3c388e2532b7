//! From the tree of a text to kernels that can run.

mod asynchronous;
pub(crate) mod body;
mod bulk;
mod flow;
pub(crate) mod instruction;
mod layout;
pub(crate) mod opcode;
pub(crate) mod operands;
mod sync;
mod warpgroup;

use crate::error::ParseError;
use crate::program::{Program, SourceMap};
use crate::report::Space;
use crate::syntax::ast::{Function, Module, Variable};
use body::{Body, Symbol, param_base};
use layout::{Shared, Space32};
use operands::Slot;
use rustc_hash::FxHashMap;
use std::sync::Arc;

type Result<T> = std::result::Result<T, ParseError>;

/// Variables of the module in global and constant memory begin here.
pub(crate) const MODULE_WINDOW: u64 = 0x7c00_0000_0000;

/// A decoded module.
pub(crate) struct Decoded {
    pub programs: Vec<Program>,
    /// The variables of the module as they are before the first launch.
    pub image: Vec<u8>,
}

/// Decodes every entry point.
pub(crate) fn decode(text: &str, module: &Module) -> Result<Decoded> {
    let files = module.files.iter().map(|(number, path)| (*number, (*path).to_owned())).collect();
    let source = Arc::new(SourceMap { text: text.to_owned(), files });
    let (symbols, image) = variables(&module.variables)?;
    let entries = module.functions.iter().filter(|function| function.is_entry && function.body.is_some());
    let programs = entries.map(|entry| program(text, module, entry, &symbols, &source)).collect::<Result<Vec<_>>>()?;
    Ok(Decoded { programs, image })
}

/// Places the variables of the module in global and constant memory.
fn variables<'a>(variables: &[Variable<'a>]) -> Result<(FxHashMap<&'a str, Symbol>, Vec<u8>)> {
    let mut symbols = FxHashMap::default();
    let mut image = Vec::new();
    let mut space = Space32::default();
    for variable in variables {
        let kind = match variable.space {
            "global" => Space::Global,
            "const" => Space::Const,
            _ => continue,
        };
        if !variable.relocations.is_empty() {
            let message = format!("{}: addresses as initial values are not supported", variable.name);
            return Err(ParseError::new(variable.line, message));
        }
        let address = space.place(variable)?;
        image.resize(space.len() as usize, 0);
        if let Some(init) = &variable.init {
            image[address as usize..][..init.len()].copy_from_slice(init);
        }
        symbols.insert(variable.name, Symbol::Memory { space: kind, address: MODULE_WINDOW + u64::from(address) });
    }
    Ok((symbols, image))
}

fn program<'a>(
    text: &'a str,
    module: &'a Module<'a>,
    entry: &'a Function<'a>,
    symbols: &FxHashMap<&'a str, Symbol>,
    source: &Arc<SourceMap>,
) -> Result<Program> {
    if entry.cluster.counts_clusters && entry.cluster.required != Some([1; 3]) {
        let message = format!("{}: .blocksareclusters is supported for clusters of one block alone", entry.name);
        return Err(ParseError::new(entry.line, message));
    }
    let shared = Shared::of(&module.variables, &module.functions, entry)?;
    let mut symbols = symbols.clone();
    for variable in module.variables.iter().filter(|variable| variable.space == "shared") {
        let address = u64::from(shared.addresses[&(variable.line, variable.name)]);
        symbols.insert(variable.name, Symbol::Memory { space: Space::Shared, address });
    }
    let mut body = Body::new(&module.functions, text, &symbols, shared.addresses);
    let param_bytes = body.entry(entry, entry.body.as_deref().unwrap_or_default())?;
    let constants = body.constants();
    let (words, longs) = (body.words, body.longs);
    let slot = |slot| match slot {
        Slot::Word(index) => index,
        Slot::Long(index) => words + index,
        Slot::Pred(index) => words + longs + index,
    };
    let (code, slots) = flow::linearize(std::mem::take(&mut body.code), &body.labels, slot)?;
    Ok(Program {
        name: entry.name.to_owned(),
        code,
        slots,
        words: words as usize,
        longs: longs as usize,
        predicates: body.predicates as usize,
        constants,
        param_bytes,
        param_base: param_base(entry),
        shared_base: shared.base,
        static_shared: shared.bytes,
        dynamic_shared: shared.dynamic,
        local_bytes: body.local.len(),
        shared_granule: body.shared_granule,
        global_granule: body.global_granule,
        max_threads: entry.max_threads,
        required_threads: entry.required_threads,
        cluster: entry.cluster,
        source: source.clone(),
    })
}
