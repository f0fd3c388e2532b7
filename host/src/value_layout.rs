//! How values lie in memory, and who takes them so.

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::problem::Problem;
use std::fmt;

/// How values lie in memory. Kernels for 8-bit operands of Hopper take them transposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ValueLayout {
    /// Rows of a key each, as [`Problem::v`] says. A kernel that takes others has one launched ahead of it in the same
    /// call, which transposes them into its workspace.
    #[default]
    Rows,
    /// Contiguous \[batch, heads_kv, head_dim, [`Transpose::row_bytes`](crate::Transpose::row_bytes) of kv_len\], with
    /// the keys of a row in the order of [`Transpose::key`](crate::Transpose::key), and zeros behind the last valid one
    /// of a sequence. Kernels that take rows do not take the problem.
    Transposed,
    /// As the kernel of the plan takes them, which
    /// [`Plan::takes_transposed_values`](crate::Plan::takes_transposed_values) says: for a caller who lays them out
    /// when the plan is there, as [`QuantizePlan::with_attention`](crate::QuantizePlan::with_attention) does.
    Planned,
}

impl fmt::Display for ValueLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueLayout::Rows => "rows",
            ValueLayout::Transposed => "transposed",
            ValueLayout::Planned => "as planned",
        })
    }
}

/// Values that do not lie in rows are e4m3, and contiguous.
pub(crate) fn validate(problem: &Problem) -> Result<()> {
    let Problem { value_layout, v, .. } = problem;
    if *value_layout == ValueLayout::Rows {
        return Ok(());
    }
    if problem.fp8.is_none() {
        let allowed = "rows where inputs are not e4m3".into();
        return Err(Error::Unsupported { field: "value_layout", value: value_layout.to_string(), allowed });
    }
    let contiguous = Layout::bhsd(v.shape());
    if *v == contiguous {
        return Ok(());
    }
    let allowed = format!("strides {:?}, or values in rows", contiguous.strides());
    Err(Error::Layout { field: "v", value: format!("{v}, {value_layout}"), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceSpec;
    use crate::fp8::{Fp8, ScaleBlocks};
    use crate::model::Prediction;
    use crate::plan::{DevicePointers, Plan};
    use evo_sdpa_kernels::config::{DType, Kernel};
    use evo_sdpa_kernels::entry::Entry;
    use evo_sdpa_kernels::params::Workspace;
    use evo_sdpa_kernels::transpose::Transpose;

    fn problem() -> Problem {
        Problem::contiguous(DType::Bf16, [2, 8, 2, 64, 96, 64])
    }

    fn refused(problem: &Problem) -> String {
        problem.validate().unwrap_err().to_string()
    }

    fn e4m3(shape: [usize; 6], blocks: ScaleBlocks) -> Problem {
        Problem::contiguous(DType::Bf16, shape).with_fp8(Some(Fp8::uniform(blocks)))
    }

    fn hopper(head_dim: u32) -> Kernel {
        Kernel::parse(&format!("fwd_fp8_sm90_bf16_d{head_dim}_q128_kv128_s3")).unwrap()
    }

    #[test]
    fn values_are_transposed_where_they_are_contiguous_and_e4m3_alone() {
        let e4m3 = problem().with_fp8(Some(Fp8::uniform(ScaleBlocks::Head)));
        let strided = Problem { v: Layout::bshd(e4m3.v.shape()), ..e4m3 };
        assert_eq!(strided.validate(), Ok(()));
        for (layout, name) in [(ValueLayout::Transposed, "transposed"), (ValueLayout::Planned, "as planned")] {
            assert_eq!(e4m3.with_value_layout(layout).validate(), Ok(()));
            let error = refused(&problem().with_value_layout(layout));
            assert_eq!(
                error,
                format!("value_layout: {name} is not supported, allowed: rows where inputs are not e4m3")
            );
            let error = refused(&strided.with_value_layout(layout));
            assert!(error.starts_with("v: [2, 2, 96, 64] with strides [12288, 64, 128, 1]") && error.contains(name));
            assert!(error.contains("allowed: strides [12288, 6144, 64, 1], or values in rows"), "{error}");
        }
        let name = |layout| e4m3.with_value_layout(layout).to_string();
        assert_eq!(name(ValueLayout::Transposed), format!("{e4m3} transposed values"));
        assert_eq!(name(ValueLayout::Planned), e4m3.to_string());
    }

    #[test]
    fn transposed_values_take_neither_a_launch_ahead_nor_a_workspace_for_it() {
        let rows = e4m3([2, 8, 2, 300, 500, 112], ScaleBlocks::Head);
        let plan = |layout| Plan::with_kernel(&rows.with_value_layout(layout), &DeviceSpec::H200, hopper(128)).unwrap();
        let (ahead, transposed) = (plan(ValueLayout::Rows), plan(ValueLayout::Transposed));
        assert_eq!((ahead.ahead(), ahead.takes_transposed_values()), (Some(Entry::Transpose), false));
        assert_eq!((transposed.ahead(), transposed.takes_transposed_values()), (None, true));
        assert_eq!(plan(ValueLayout::Planned), transposed);
        let values = 2 * 2 * 112 * Transpose::row_bytes(500) as usize;
        assert_eq!(ahead.workspace_bytes(), Workspace::COUNTER_BYTES as usize + values);
        assert_eq!(transposed.workspace_bytes(), 0, "every block has one tile");
        assert_eq!(ahead.tensors(), transposed.tensors());
        let pointers = DevicePointers {
            q: 16,
            k: 32,
            v: 48,
            out: 64,
            q_scales: 4,
            k_scales: 4,
            v_scales: 4,
            ..DevicePointers::default()
        };
        assert_eq!(transposed.bind(&pointers).unwrap().v, 48);
        let error = transposed.bind(&DevicePointers { v: 40, ..pointers }).unwrap_err().to_string();
        assert!(error.starts_with("v: address 0x28"), "{error}");
        // More tiles than blocks are taken by a counter.
        let long = e4m3([4, 16, 16, 4096, 4096, 128], ScaleBlocks::Head).with_value_layout(ValueLayout::Transposed);
        assert_eq!(Plan::new(&long, &DeviceSpec::H200).unwrap().workspace_bytes(), Workspace::COUNTER_BYTES as usize);
    }

    #[test]
    fn a_kernel_is_predicted_faster_by_the_launch_that_it_does_without() {
        let rows = e4m3([4, 16, 16, 4096, 4096, 128], ScaleBlocks::Head);
        let predict = |layout| Prediction::of(hopper(128), &rows.with_value_layout(layout), &DeviceSpec::H200).unwrap();
        let ahead = predict(ValueLayout::Rows);
        assert!(ahead.transpose > 0.0);
        for layout in [ValueLayout::Transposed, ValueLayout::Planned] {
            assert_eq!(predict(layout), Prediction { transpose: 0.0, ..ahead });
        }
    }

    #[test]
    fn values_as_planned_are_compared_by_every_kernel_and_transposed_ones_by_those_that_take_them() {
        let rows = e4m3([2, 8, 8, 2048, 2048, 128], ScaleBlocks::Head);
        let kernels = |layout| -> Vec<Kernel> {
            let candidates = Plan::candidates(&rows.with_value_layout(layout), &DeviceSpec::H200).unwrap();
            candidates.into_iter().map(|(kernel, _)| kernel).collect()
        };
        assert_eq!(kernels(ValueLayout::Planned), kernels(ValueLayout::Rows));
        assert_eq!(kernels(ValueLayout::Transposed), [hopper(128)]);
        let transposed = rows.with_value_layout(ValueLayout::Transposed);
        let others = Plan::refused(&transposed, &DeviceSpec::H200).unwrap();
        assert_eq!(others.len() + 1, kernels(ValueLayout::Rows).len());
        for (kernel, error) in others {
            let allowed = format!("allowed: rows for {kernel}");
            assert_eq!(error.to_string(), format!("value_layout: transposed is not supported, {allowed}"));
            assert_eq!(Plan::with_kernel(&transposed, &DeviceSpec::H200, kernel).unwrap_err(), error);
        }
    }

    #[test]
    fn transposed_values_that_no_kernel_takes_are_refused_with_what_stands_in_the_way() {
        let shape = |head_dim, keys| [1, 2, 2, 64, keys, head_dim];
        for (problem, device, words) in [
            (e4m3(shape(64, 96), ScaleBlocks::Head), DeviceSpec::L4, "device: compute capability 89 is not supported"),
            (e4m3(shape(64, 96), ScaleBlocks::Rows(64)), DeviceSpec::H200, "k_scales: a scale for 64 rows"),
            (e4m3(shape(64, 0), ScaleBlocks::Head), DeviceSpec::H200, "kv_len: 0 is not supported"),
            (
                e4m3(shape(192, 96), ScaleBlocks::Head),
                DeviceSpec::H200,
                "head_dim: 192 is not supported, allowed: at most 128 where values are transposed",
            ),
        ] {
            assert!(Plan::new(&problem, &device).is_ok(), "in rows they are taken");
            let error = Plan::new(&problem.with_value_layout(ValueLayout::Transposed), &device).unwrap_err();
            assert!(error.to_string().starts_with(words), "{error}");
            let planned = Plan::new(&problem.with_value_layout(ValueLayout::Planned), &device).unwrap();
            assert!(!planned.takes_transposed_values());
        }
    }
}
