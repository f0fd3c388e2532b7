//! Calls with their keys in pages.

use evo_sdpa::verify::{Case, Inputs};
use evo_sdpa::{Element, Layout, Options, Pages, TensorView};

/// A call whose keys are contiguous, and the same with the keys in pages in no particular order.
pub struct Paged<T> {
    /// The contiguous call.
    pub inputs: Inputs<T>,
    k: Vec<T>,
    v: Vec<T>,
    layout: Layout,
    table: Vec<i32>,
    per_sequence: usize,
}

impl<T: Element> Paged<T> {
    /// The keys and values of `case` in pages of `rows`.
    pub fn new(case: &Case, rows: usize, layout: fn([usize; 4]) -> Layout) -> Self {
        let inputs = Inputs::<T>::generate(case);
        let [batch, _, heads, _, kv_len, head_dim] = case.shape;
        let per_sequence = kv_len.div_ceil(rows);
        // Odd factors go through all numbers of a power of two.
        let count = (batch * per_sequence).next_power_of_two();
        let layout = layout([count, heads, rows, head_dim]);
        let lens = inputs.kv_lens.clone().unwrap_or(vec![kv_len as i32; batch]);
        // What no key is read from is poison, in the pool as in the table.
        let mut table = vec![i32::MAX; batch * per_sequence];
        let mut pool = [inputs.k_layout, inputs.v_layout].map(|_| vec![T::from_f32(f32::NAN); layout.elements()]);
        let [_, k, v] = inputs.views().unwrap();
        for (b, &len) in lens.iter().enumerate() {
            for key in 0..len as usize {
                let entry = b * per_sequence + key / rows;
                let page = (entry * 5 + 3) % count;
                table[entry] = page as i32;
                for (pool, tensor) in pool.iter_mut().zip([k, v]) {
                    for (head, d) in (0..heads).flat_map(|head| (0..head_dim).map(move |d| (head, d))) {
                        pool[layout.row_offset(page, head, key % rows) + d] = tensor.at(b, head, key, d);
                    }
                }
            }
        }
        let [k, v] = pool;
        Self { inputs, k, v, layout, table, per_sequence }
    }

    /// Queries, and the pools of keys and values.
    pub fn views(&self) -> [TensorView<'_, T>; 3] {
        let [q, ..] = self.inputs.views().unwrap();
        [q, TensorView::new(&self.k, self.layout).unwrap(), TensorView::new(&self.v, self.layout).unwrap()]
    }

    /// The options of the contiguous call, with the pages.
    pub fn options(&self, splits: u32) -> Options<'_> {
        let pages = Pages { block_table: &self.table, per_sequence: self.per_sequence };
        Options { pages: Some(pages), splits: Some(splits), ..self.inputs.options() }
    }
}
