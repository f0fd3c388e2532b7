//! The ladder: one idea more a rung, on the shape that the project began with.

/// A kernel and the idea that it adds to the one before it, for the first acceptance shape in bf16.
pub struct Rung {
    /// Entry name.
    pub kernel: &'static str,
    /// What is new.
    pub idea: &'static str,
}

/// From the first rung to the last.
pub const RUNGS: [Rung; 7] = [
    Rung { kernel: "fwd_scalar_bf16", idea: "online softmax on plain cores, a warp for each row" },
    Rung {
        kernel: "fwd_sm80_bf16_d64_q128_kv64_w4_s1",
        idea: "both products on tensor cores, the softmax between them in registers",
    },
    Rung { kernel: "fwd_sm80_bf16_d64_q128_kv64_w4_s2", idea: "the next keys under way during a step" },
    Rung { kernel: "fwd_sm80_bf16_d64_q128_kv64_w4_s3", idea: "two steps under way" },
    Rung { kernel: "fwd_sm80_bf16_d64_q64_kv64_w4_s2", idea: "blocks half as tall, so that twice as many work" },
    Rung { kernel: "fwd_sm80_bf16_d64_q32_kv64_w8_x4_s1", idea: "blocks of 32 rows, whose warps split the keys" },
    Rung { kernel: "fwd_sm80_bf16_d64_q32_kv128_w8_x4_s1", idea: "one step of 128 keys a warp in place of two" },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse_kernel;
    use evo_sdpa::shapes::ACCEPTANCE;
    use evo_sdpa::{DType, DeviceSpec, Plan, Problem};

    #[test]
    fn every_rung_ships_and_the_last_is_the_planners_choice() {
        let (shape, causal) = ACCEPTANCE[0];
        let problem = Problem::contiguous(DType::Bf16, shape).with_causal(causal);
        let rungs = RUNGS.map(|rung| parse_kernel(rung.kernel).unwrap());
        for kernel in rungs {
            assert_eq!(Plan::with_kernel(&problem, &DeviceSpec::H200, kernel).unwrap().kernel, kernel);
        }
        assert_eq!(rungs.last(), Some(&Plan::new(&problem, &DeviceSpec::H200).unwrap().kernel));
    }
}
