//! Who holds which claim, and which claims of a sequence are held without a gap.
//!
//! Of two or more consecutive claims, the first and the last are kept as a run. So the first free
//! claim is found by one look at a run, however many addresses of a network are in use.

use std::fmt::Debug;

use imbl::OrdMap;
use uuid::Uuid;

/// What at most one row may hold, derived from the rows themselves: an address in a network, a
/// name in its scope.
pub trait ClaimKey: Ord + Clone + Debug + Send + Sync + 'static {
    /// The claim that follows this one in its sequence (the next address, the next VNI): greater
    /// than this one, with no other claim between the two. `None` where claims are no sequence
    /// (names), or at its end.
    fn next(&self) -> Option<Self>;
}

/// Every claim that is held, by rows of tables `K`.
#[derive(Clone, Debug)]
pub(crate) struct Claims<C: ClaimKey, K> {
    holders: OrdMap<C, (K, Uuid)>,
    /// First and last of each run of two or more. Runs neither touch nor overlap.
    runs: OrdMap<C, C>,
}

impl<C: ClaimKey, K: Copy + PartialEq> Claims<C, K> {
    pub(crate) fn new() -> Self {
        Self { holders: OrdMap::new(), runs: OrdMap::new() }
    }

    pub(crate) fn holder(&self, claim: &C) -> Option<(K, Uuid)> {
        self.holders.get(claim).copied()
    }

    /// The first claim from `from` on that nobody holds; `None`: the sequence ends before.
    pub(crate) fn first_free(&self, from: &C) -> Option<C> {
        if !self.holders.contains_key(from) {
            return Some(from.clone());
        }
        match self.run_with(from) {
            Some((_, last)) => last.next(),
            None => from.next(),
        }
    }

    /// The first claim from `low` to `high` that is held, and by whom.
    pub(crate) fn first_held(&self, low: &C, high: &C) -> Option<(C, (K, Uuid))> {
        let held = self.holders.range(low.clone()..=high.clone()).next();
        held.map(|(claim, holder)| (claim.clone(), *holder))
    }

    /// Every claim that is held, in order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (C, (K, Uuid))> {
        self.holders.iter().map(|(claim, holder)| (claim.clone(), *holder))
    }

    /// Gives a claim that nobody holds to a row.
    pub(crate) fn take(&mut self, claim: C, holder: (K, Uuid)) {
        if let Some(before) = self.holders.insert(claim.clone(), holder) {
            debug_assert!(before == holder, "{claim:?} was taken from {}", before.1);
            return;
        }
        let first = match self.before(&claim) {
            Some(before) => {
                let first = self.run_with(&before).map(|(first, _)| first.clone());
                first.unwrap_or(before)
            }
            None => claim.clone(),
        };
        let last = match claim.next().filter(|next| self.holders.contains_key(next)) {
            Some(next) => self.runs.remove(&next).unwrap_or(next),
            None => claim,
        };
        if first != last {
            self.runs.insert(first, last);
        }
    }

    /// A row no longer holds a claim; nothing happens when it did not.
    pub(crate) fn give_up(&mut self, claim: &C, holder: (K, Uuid)) {
        if self.holder(claim) != Some(holder) {
            return;
        }
        let run = self.run_with(claim).map(|(first, last)| (first.clone(), last.clone()));
        if let Some((first, last)) = run {
            self.runs.remove(&first);
            if let Some(before) = self.before(claim).filter(|before| *before > first) {
                self.runs.insert(first, before);
            }
            if let Some(next) = claim.next().filter(|next| *next < last) {
                self.runs.insert(next, last);
            }
        }
        self.holders.remove(claim);
    }

    /// The run that this claim is in.
    fn run_with(&self, claim: &C) -> Option<(&C, &C)> {
        self.runs.get_prev(claim).filter(|(_, last)| *last >= claim)
    }

    /// The claim whose next one is this one, if it is held.
    fn before(&self, claim: &C) -> Option<C> {
        let (before, _) = self.holders.range(..claim.clone()).next_back()?;
        (before.next().as_ref() == Some(claim)).then(|| before.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Two sequences that end, and names.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Toy {
        Number(u8, u8),
        Name(u8),
    }

    const LAST: u8 = 19;

    impl ClaimKey for Toy {
        fn next(&self) -> Option<Self> {
            match self {
                Toy::Number(line, n) if *n < LAST => Some(Toy::Number(*line, n + 1)),
                Toy::Number(..) | Toy::Name(_) => None,
            }
        }
    }

    fn toy() -> impl Strategy<Value = Toy> {
        prop_oneof![
            9 => (0..2u8, 0..=LAST).prop_map(|(line, n)| Toy::Number(line, n)),
            1 => (0..4u8).prop_map(Toy::Name),
        ]
    }

    fn naive_first_free(held: &BTreeMap<Toy, (u8, Uuid)>, from: &Toy) -> Option<Toy> {
        let mut all = std::iter::successors(Some(from.clone()), ClaimKey::next);
        all.find(|claim| !held.contains_key(claim))
    }

    /// Every run of two or more, by walking.
    fn naive_runs(held: &BTreeMap<Toy, (u8, Uuid)>) -> Vec<(Toy, Toy)> {
        let mut runs: Vec<(Toy, Toy)> = Vec::new();
        for claim in held.keys() {
            match runs.last_mut() {
                Some((_, last)) if last.next().as_ref() == Some(claim) => *last = claim.clone(),
                _ => runs.push((claim.clone(), claim.clone())),
            }
        }
        runs.retain(|(first, last)| first != last);
        runs
    }

    proptest! {
        #[test]
        fn whatever_is_taken_and_given_up_runs_and_first_free_are_what_a_walk_finds(
            steps in prop::collection::vec((any::<bool>(), toy()), 0..120),
        ) {
            let (mut claims, mut held) = (Claims::new(), BTreeMap::new());
            let (me, other) = ((0, Uuid::nil()), (1, Uuid::nil()));
            for (take, claim) in steps {
                if take {
                    claims.take(claim.clone(), me);
                    held.insert(claim.clone(), me);
                } else {
                    claims.give_up(&claim, other);
                    prop_assert_eq!(claims.holder(&claim), held.get(&claim).copied());
                    claims.give_up(&claim, me);
                    held.remove(&claim);
                }
                prop_assert!(claims.holders.iter().eq(held.iter()));
                let runs = claims.runs.iter().map(|(first, last)| (first.clone(), last.clone()));
                prop_assert_eq!(runs.collect::<Vec<_>>(), naive_runs(&held));
                prop_assert_eq!(claims.first_free(&claim), naive_first_free(&held, &claim));
            }
        }
    }
}
