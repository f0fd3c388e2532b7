//! What times amount to: rates, and how far they are from the best peer and from the device's limits.

use super::join::{Measured, Row};
use crate::cli::record::Limits;

impl Row {
    /// The fastest peer.
    pub fn best_peer(&self) -> Option<(&str, &Measured)> {
        let peers = self.peers.iter().map(|(name, time)| (name.as_str(), time));
        peers.min_by(|a, b| a.1.p50.total_cmp(&b.1.p50))
    }

    /// Our time over the best peer's.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ours.as_ref()?.time.p50 / self.best_peer()?.1.p50)
    }

    /// TFLOP/s of a time in microseconds.
    pub fn tflops(&self, us: f64) -> f64 {
        self.problem.flops() / us / 1e6
    }

    /// GB/s of a time in microseconds.
    pub fn gbs(&self, us: f64) -> f64 {
        self.call.bytes(&self.problem) / us / 1e3
    }

    /// FLOP a byte.
    pub fn intensity(&self) -> f64 {
        self.problem.flops() / self.call.bytes(&self.problem)
    }

    /// Whether each sequence has one query row.
    pub fn is_decoding(&self) -> bool {
        self.problem.q_len() == 1
    }
}

/// Whether a ratio of times, as it is printed, is below 1.
pub fn is_ahead(ratio: f64) -> bool {
    (ratio * 100.0).round() < 100.0
}

/// Mean of ratios, fit for ratios; none of no ratio.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (logarithms / ratios.len() as f64).exp())
}

/// The most that a device gives to any implementation, by what was measured on it.
pub struct Roofline<'a> {
    /// Highest rate of matrix products, TFLOP/s.
    pub matrix_tflops: f64,
    /// How that was measured.
    pub matrix_source: &'a str,
    /// Highest rate of a copy within device memory, GB/s.
    pub copy_gbs: f64,
    /// What measured that.
    pub copy_source: &'a str,
}

impl<'a> Roofline<'a> {
    /// For products of a type; none where its rate was not measured.
    pub fn of(limits: &'a [Limits], dtype: &str) -> Option<Self> {
        let matrix = matrix_rates(limits, dtype).max_by(|a, b| a.1.total_cmp(&b.1));
        let copy = limits.iter().max_by(|a, b| a.copy_gbs.total_cmp(&b.copy_gbs));
        let ((matrix_source, matrix_tflops), copy) = (matrix?, copy?);
        Some(Self { matrix_tflops, matrix_source, copy_gbs: copy.copy_gbs, copy_source: &copy.setup.software })
    }

    /// TFLOP/s that an intensity in FLOP a byte allows.
    pub fn at(&self, intensity: f64) -> f64 {
        self.matrix_tflops.min(intensity * self.copy_gbs / 1e3)
    }

    /// The part of it that a time in microseconds reaches.
    pub fn share(&self, row: &Row, us: f64) -> f64 {
        row.tflops(us) / self.at(row.intensity())
    }
}

/// The rates of matrix products of a type, TFLOP/s, each with its source.
pub fn matrix_rates<'a>(limits: &'a [Limits], dtype: &str) -> impl Iterator<Item = (&'a str, f64)> {
    limits.iter().filter_map(move |limits| Some((limits.source.as_str(), *limits.matrix_tflops.get(dtype)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::report::join::tests::example;

    #[track_caller]
    fn assert_near(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 1e-3, "{value}, expected {expected}");
    }

    #[test]
    fn the_best_peer_is_the_fastest_and_the_ratio_ours_over_it() {
        let results = example();
        let best = |i: usize| results.rows[i].best_peer().map(|(name, time)| (name, time.p50));
        assert_eq!(best(0), Some(("library B", 8.2)));
        assert_eq!(best(1), Some(("library A", 10.0)));
        // 5.1 / 8.2, 6 / 10, 50.5 / 41, 400 / 100.
        for (row, ratio) in results.rows.iter().zip([0.62195, 0.6, 1.23171, 4.0]) {
            assert_near(row.ratio().unwrap(), ratio);
        }
    }

    #[test]
    fn rates_follow_from_operations_and_bytes() {
        let results = example();
        // 4 * 64 * 512 * 512 * 8 operations in 5.1 us; 4 * 2 * 8 * 512 * 64 bytes.
        assert_near(results.rows[0].tflops(5.1), 105.27);
        assert_near(results.rows[0].intensity(), 256.0);
        // Keys and values of 2 * 2 * 16 * 8 * 8192 * 128 bytes, queries and output of 2 * 2 * 16 * 32 * 128.
        assert_near(results.rows[3].gbs(400.0), 1342.8);
    }

    #[test]
    fn the_roofline_has_the_highest_rates_that_were_measured() {
        let results = example();
        let roofline = Roofline::of(&results.limits, "bf16").unwrap();
        assert_eq!((roofline.matrix_tflops, roofline.matrix_source), (800.0, "torch matmul 8192"));
        assert_eq!((roofline.copy_gbs, roofline.copy_source), (4000.0, "evo-sdpa 0.0.0"));
        assert_eq!([roofline.at(100.0), roofline.at(200.0), roofline.at(300.0)], [400.0, 800.0, 800.0]);
        // 105.27 of 800; 5.3687 of 3.9981 * 4.
        assert_near(roofline.share(&results.rows[0], 5.1), 0.13159);
        assert_near(roofline.share(&results.rows[3], 400.0), 0.33571);
        assert!(Roofline::of(&results.limits, "f32").is_none());
    }

    #[test]
    fn a_ratio_is_ahead_where_it_is_printed_below_1() {
        assert_eq!([0.994, 0.996, 1.0, 1.2].map(is_ahead), [true, false, false, false]);
        assert_eq!(geometric_mean(&[0.5, 2.0, 8.0]), Some(2.0));
        assert_eq!(geometric_mean(&[]), None);
    }
}
