//! Which keys a query row sees, and which key tiles of a block need a mask at all.

/// Number of keys that query row `row` sees: keys `0..visible`, never negative.
///
/// One rule covers the three masks: the key exists (`kv_len`, the sequence's own length), and
/// `key <= row + causal_offset`. Rows and offsets are at most 2^30 in size, so that the sum fits.
#[inline(always)]
pub const fn visible_keys(row: i32, kv_len: i32, causal_offset: i32) -> i32 {
    let causal_end = row + causal_offset + 1;
    let end = if causal_end < kv_len { causal_end } else { kv_len };
    if end > 0 { end } else { 0 }
}

/// The steps of keys that a block of query rows walks, from the last down to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvSteps {
    /// Steps in which some row of the block sees some key.
    pub total: u32,
    /// Steps, counted from the first key, in which every row sees every key: they need no mask.
    pub full: u32,
}

/// The steps of `step` keys for query rows `first_row..=last_row`.
#[inline(always)]
pub const fn kv_steps(first_row: i32, last_row: i32, kv_len: i32, causal_offset: i32, step: u32) -> KvSteps {
    let any = visible_keys(last_row, kv_len, causal_offset) as u32;
    let all = visible_keys(first_row, kv_len, causal_offset) as u32;
    KvSteps { total: any.div_ceil(step), full: all / step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kv_steps_agree_with_counting_every_pair() {
        for (rows, step) in [(4, 3), (2, 5), (8, 4)] {
            for kv_len in 0..14 {
                for offset in -9..16 {
                    for first in (0..12).step_by(rows) {
                        let last = first + rows as i32 - 1;
                        let sees = |row: i32, key: i32| key < kv_len && key <= row + offset;
                        let steps = kv_steps(first, last, kv_len, offset, step);
                        for s in 0..6u32 {
                            let keys = || (s * step) as i32..((s + 1) * step) as i32;
                            let any = keys().any(|key| (first..=last).any(|row| sees(row, key)));
                            let all = keys().all(|key| (first..=last).all(|row| sees(row, key)));
                            assert_eq!(any, s < steps.total);
                            assert_eq!(all, s < steps.full);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn visible_keys_holds_at_the_ends_of_its_range() {
        assert_eq!(visible_keys(1 << 29, 7, 1 << 30), 7);
        assert_eq!(visible_keys(0, 7, -(1 << 30)), 0);
    }
}
