//! How calls and kernels are named in tables and plots.

use super::document::{Cell, Table};
use super::join::{Ours, Row};
use evo_sdpa::Causal;

/// A table that has the calls of some rows so far: shape, mask, and type and state of the cache where they differ in
/// them.
pub fn table(rows: &[&Row]) -> Table {
    let mut table = Table::default();
    table.column(&shape_header(rows), rows.iter().map(|row| Cell::Text(shape(row))));
    table.column("mask", rows.iter().map(|row| Cell::Text(mask(row))));
    if rows.iter().any(|row| row.call.type_name() != rows[0].call.type_name()) {
        table.column("type", rows.iter().map(|row| Cell::Text(row.call.type_name())));
    }
    if rows.iter().any(|row| row.cold != rows[0].cold) {
        table.column("cache", rows.iter().map(|row| Cell::Text(cache(row).into())));
    }
    table
}

/// What [`shape`] lists.
fn shape_header(rows: &[&Row]) -> String {
    let grouped = rows.iter().any(|row| row.problem.heads_q() != row.problem.heads_kv());
    let crossed = rows.iter().any(|row| row.problem.q_len() != row.problem.kv_len());
    let heads = if grouped { "heads/key heads" } else { "heads" };
    let length = if crossed { "length/keys" } else { "length" };
    format!("(batch, {heads}, {length}, head dim)")
}

/// Sizes of a call; those of keys where they are others.
pub fn shape(row: &Row) -> String {
    let problem = &row.problem;
    let pair = |q: usize, kv: usize| if q == kv { q.to_string() } else { format!("{q}/{kv}") };
    let heads = pair(problem.heads_q(), problem.heads_kv());
    let length = pair(problem.q_len(), problem.kv_len());
    format!("({},{heads},{length},{})", problem.batch(), problem.head_dim())
}

/// The mask of a call.
pub fn mask(row: &Row) -> String {
    match row.problem.causal {
        None => "none".into(),
        Some(Causal::BottomRight) if row.problem.q_len() == row.problem.kv_len() => "causal".into(),
        Some(Causal::Offset(offset)) => format!("causal, offset {offset}"),
        Some(anchor) => format!("causal, {anchor}"),
    }
}

/// Whether a call found its tensors in the cache.
pub fn cache(row: &Row) -> &'static str {
    if row.cold { "cold" } else { "warm" }
}

/// Everything about a call on one line, its type left out.
pub fn name(row: &Row, with_cache: bool) -> String {
    let mask = if row.problem.causal.is_some() { format!(" {}", mask(row)) } else { String::new() };
    let cache = if with_cache { format!(" {}", cache(row)) } else { String::new() };
    format!("{}{mask}{cache}", shape(row))
}

/// The name of a kernel without what all names of a type have in common.
pub fn kernel_name(name: &str, row: &Row) -> String {
    let name = name.strip_prefix("fwd_").unwrap_or(name);
    name.replacen(&format!("_{}_", row.problem.dtype), "_", 1)
}

/// [`kernel_name`] in a table.
pub fn kernel(ours: Option<&Ours>, row: &Row) -> Cell {
    ours.map_or(Cell::Text("-".into()), |ours| Cell::Code(kernel_name(&ours.kernel.name, row)))
}
