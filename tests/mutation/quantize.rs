//! Defects in the kernels that quantise: codes, scales or the mean have other bits than the host's, or a check objects.

use super::mutants::{Mutant, Operator, single_entry};
use super::{Defect, simulator};
use evo_sdpa::quantize::Call;
use evo_sdpa::sim::SimulatedCall;
use evo_sdpa::verify::{Case, Inputs, Storage};
use evo_sdpa::{DType, ENTRIES, Element, Entry, Fp8, Layout, PTX_SM89, Quantize, ScaleBlocks, Simulator, with_element};
use rayon::prelude::*;
use std::collections::HashSet;

/// The kernels that quantise tensors of a type.
fn entries(dtype: DType) -> [Entry; 4] {
    let config = Quantize { dtype };
    [Entry::TokenSums(config), Entry::TokenMean, Entry::Amax(config), Entry::Quantize(config)]
}

/// Heads of each tensor: enough scales for the largest number of one to be in each of the elements that a thread has.
const HEADS: usize = 8;

/// Three sequences of all keys, of some and of none; scales that are found in the block that uses them, and others.
fn inputs<T: Element>() -> (Inputs<T>, Fp8) {
    let (rows, columns) = (330, 48);
    let case = Case { storage: Storage::Bshd, kv_lens: true, ..Case::new([3, HEADS, HEADS, 70, rows, columns]) };
    let mut inputs = Inputs::generate(&case);
    // It has no say in a scale or in the mean.
    inputs.k[5] = T::from_f32(f32::INFINITY);
    let mut places = 0..;
    let mut decide = |data: &mut [T], layout: &Layout, first: usize| {
        for (batch, head) in (0..2).flat_map(|batch| (0..HEADS).map(move |head| (batch, head))) {
            let place = places.next().unwrap();
            let row = layout.row_offset(batch, head, first + place * 7 % 40);
            data[row + place * 17 % columns] = T::from_f32(100.0 + place as f32);
        }
    };
    decide(&mut inputs.q, &inputs.q_layout, 0);
    // Of the second sequence, these rows may not be valid.
    [0, 256].into_iter().for_each(|first| decide(&mut inputs.k, &inputs.k_layout, first));
    (inputs, Fp8 { q: ScaleBlocks::Rows(128), k: ScaleBlocks::Rows(256), v: ScaleBlocks::Tensor })
}

/// Quantises by the kernels of the texts, with values in rows and, where `entry` leaves them so, transposed: the lines
/// of `entry` that are executed, or what is wrong.
fn run<T: Element>(simulator: &Simulator, entry: Entry, right: &Call) -> Result<HashSet<u32>, Defect> {
    let (inputs, fp8) = inputs::<T>();
    let (views, options) = (inputs.views().unwrap(), inputs.options());
    let mut executed = lines(simulator.quantize(views, fp8, true, &options), entry, right)?;
    if let Entry::Quantize(_) = entry {
        executed.extend(lines(simulator.quantize_transposed(views, fp8, true, &options), entry, right)?);
    }
    Ok(executed)
}

/// The lines of `entry` that a call executed, or what is wrong with it.
fn lines(ran: evo_sdpa::Result<SimulatedCall>, entry: Entry, right: &Call) -> Result<HashSet<u32>, Defect> {
    // Scales that are no numbers are no answer.
    let ran = ran.map_err(|_| Defect::WrongAnswer)?;
    match ran.reports.iter().find_map(|report| report.findings.first()) {
        Some(finding) => Err(Defect::Found(finding.kind)),
        None if ran.call != *right => Err(Defect::WrongAnswer),
        None => {
            let of_entry = ran.reports.iter().filter(|report| report.kernel == entry.to_string());
            Ok(of_entry.flat_map(|report| report.lines.iter().map(|line| line.line)).collect())
        }
    }
}

/// Every mutant of an entry point that survives, and how many there were.
fn survivors<T: Element>(entry: Entry) -> (Vec<String>, usize) {
    let (inputs, fp8) = inputs::<T>();
    let right = Call::new_as_device(inputs.views().unwrap(), fp8, true, &inputs.options()).unwrap();
    let text = |entry: Entry| single_entry(PTX_SM89, &entry.to_string());
    let others: Vec<_> = entries(T::DTYPE).into_iter().filter(|other| *other != entry).map(text).collect();
    // The text of the entry comes first.
    let texts = |own: &str| simulator(&[own].into_iter().chain(others.iter().map(String::as_str)).collect::<Vec<_>>());
    let ptx = text(entry);
    let executed = run::<T>(&texts(&ptx), entry, &right).unwrap_or_else(|defect| panic!("{entry}: {defect:?}"));
    let mutants: Vec<_> = Operator::ALL.into_iter().flat_map(|operator| Mutant::all(&ptx, operator)).collect();
    let survives = |mutant: &&Mutant| {
        assert!(executed.contains(&mutant.line), "{entry}, line {} is not executed: {}", mutant.line, mutant.code);
        run::<T>(&texts(&mutant.of(&ptx)), entry, &right).is_ok()
    };
    let name =
        |Mutant { operator, line, code }: &Mutant| format!("{entry} {operator:?}, line {line} of it alone: {code}");
    (mutants.iter().filter(survives).map(name).collect(), mutants.len())
}

#[test]
fn every_mutant_of_the_kernels_that_quantise_is_caught() {
    let work: Vec<_> = DType::ALL.into_iter().flat_map(|dtype| entries(dtype).map(|entry| (dtype, entry))).collect();
    assert!(ENTRIES.iter().filter(|entry| work.iter().any(|(_, own)| own == *entry)).count() == 10);
    let outcomes: Vec<_> =
        work.into_par_iter().map(|(dtype, entry)| with_element!(dtype, T => survivors::<T>(entry))).collect();
    let survivors: Vec<_> = outcomes.iter().flat_map(|(survivors, _)| survivors.clone()).collect();
    let all: usize = outcomes.iter().map(|(_, mutants)| mutants).sum();
    println!("{} of {all} mutants of the kernels that quantise caught", all - survivors.len());
    assert!(survivors.is_empty(), "{} mutants survive:\n{}", survivors.len(), survivors.join("\n"));
    assert!(all > 200, "{all}");
}
