//! Picks free numbers out of ranges: pure arithmetic, no store.

/// The lowest number of `span` (both ends included) that is not in `taken`, which is sorted.
/// Runs in O(log n + used numbers before the first gap).
#[must_use]
pub fn lowest_free((start, end): (u128, u128), taken: &[u128]) -> Option<u128> {
    let mut candidate = start;
    let from = taken.partition_point(|used| *used < start);
    for used in taken.get(from..).unwrap_or_default() {
        if *used != candidate {
            break;
        }
        candidate = candidate.checked_add(1)?;
    }
    (candidate <= end).then_some(candidate)
}

/// How many random picks are tried before the whole range is searched: at 90 % full, all eight
/// miss in 43 of 100 cases; below two thirds in 4 of 100.
pub const RANDOM_PICKS: u64 = 8;

/// The `attempt`-th pick out of `span`, even over the span for even `random`.
#[must_use]
pub fn pick((start, end): (u128, u128), random: u128) -> u128 {
    match (end - start).checked_add(1) {
        Some(size) => start + random % size,
        None => random,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lowest_free_is_what_a_naive_search_finds(
            start in 0u128..40, size in 0u128..40, taken in prop::collection::btree_set(0u128..90, 0..60)
        ) {
            let naive = (start..=start + size).find(|n| !taken.contains(n));
            let taken: Vec<u128> = taken.into_iter().collect();
            prop_assert_eq!(lowest_free((start, start + size), &taken), naive);
        }

        #[test]
        fn a_pick_is_inside_the_range(start in any::<u128>(), size in any::<u128>(), random in any::<u128>()) {
            let end = start.saturating_add(size);
            let picked = pick((start, end), random);
            prop_assert!(start <= picked && picked <= end);
        }
    }

    #[test]
    fn a_range_at_the_end_of_all_numbers_can_be_full() {
        let taken: Vec<u128> = BTreeSet::from([u128::MAX]).into_iter().collect();
        assert_eq!(lowest_free((u128::MAX, u128::MAX), &taken), None);
    }
}
