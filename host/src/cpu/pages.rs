//! Paged keys and values as contiguous ones.

use crate::error::Result;
use crate::layout::Layout;
use crate::pages::Pages;
use crate::problem::Options;
use crate::tensor::{Element, TensorView};

/// What `run` makes of contiguous keys and values: of copies where they are paged.
///
/// # Errors
/// Those of [`Options::problem`] and of `run`.
pub(super) fn contiguous<T: Element, R>(
    q: TensorView<T>,
    k: TensorView<T>,
    v: TensorView<T>,
    options: &Options,
    run: impl FnOnce(TensorView<T>, TensorView<T>, &Options) -> Result<R>,
) -> Result<R> {
    let Some(pages) = options.pages else { return run(k, v, options) };
    let problem = options.problem(T::DTYPE, *q.layout(), *k.layout(), *v.layout())?;
    let layout = Layout::bhsd([problem.batch(), problem.heads_kv(), problem.kv_len(), problem.head_dim()]);
    let [k, v] = [k, v].map(|tensor| gather(tensor, &pages, options.kv_lens, layout));
    let options = Options { pages: None, ..*options };
    run(TensorView::new(&k, layout)?, TensorView::new(&v, layout)?, &options)
}

/// The rows that hold keys, in the order of the keys; zeros elsewhere.
fn gather<T: Element>(tensor: TensorView<T>, pages: &Pages, kv_lens: Option<&[i32]>, to: Layout) -> Vec<T> {
    let [batch, heads, _, head_dim] = to.shape();
    let rows = tensor.layout().shape()[2];
    let mut data = vec![T::default(); to.elements()];
    for b in 0..batch {
        for (place, &page) in pages.used(b, rows, kv_lens).iter().enumerate() {
            for (h, row) in (0..heads).flat_map(|h| (0..rows).map(move |row| (h, row))) {
                let from = tensor.layout().row_offset(page as usize, h, row);
                let at = to.row_offset(b, h, place * rows + row);
                data[at..at + head_dim].copy_from_slice(&tensor.data()[from..from + head_dim]);
            }
        }
    }
    data
}
