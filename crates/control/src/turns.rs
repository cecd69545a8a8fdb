//! Whose turn it is: so many at a time, so many of them of one account. No account's work keeps all
//! others waiting.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::Hash,
};

use model::{Id, resource::account::Account};

/// Work of accounts, or of others who are each to have their turns, that waits for its own.
pub(crate) struct Turns<T, A = Id<Account>> {
    /// For each account with some: what waits, and how much is being done.
    accounts: BTreeMap<A, (VecDeque<T>, usize)>,
    /// What waits or is being done.
    known: HashSet<T>,
    running: usize,
    most: usize,
    most_of_account: usize,
}

impl<T: Copy + Eq + Hash, A: Copy + Ord> Turns<T, A> {
    /// `most` are done at a time, `most_of_account` of one account.
    pub(crate) fn new(most: usize, most_of_account: usize) -> Self {
        let (accounts, known) = (BTreeMap::new(), HashSet::new());
        Self { accounts, known, running: 0, most, most_of_account }
    }

    /// Work waits for its turn, unless it does already or is being done.
    pub(crate) fn add(&mut self, (account, work): (A, T)) {
        if self.known.insert(work) {
            self.accounts.entry(account).or_default().0.push_back(work);
        }
    }

    /// What is next, if anything is: of the account of which the fewest are being done.
    pub(crate) fn next(&mut self) -> Option<(A, T)> {
        if self.running >= self.most {
            return None;
        }
        let most = self.most_of_account;
        let may =
            |(waiting, running): &(VecDeque<T>, usize)| !waiting.is_empty() && *running < most;
        let fitting = self.accounts.iter_mut().filter(|(_, entry)| may(entry));
        let (account, (waiting, running)) = fitting.min_by_key(|(_, (_, running))| *running)?;
        let work = waiting.pop_front()?;
        *running += 1;
        self.running += 1;
        Some((*account, work))
    }

    /// Work is done; it may be added again.
    pub(crate) fn ended(&mut self, (account, work): (A, T)) {
        self.known.remove(&work);
        self.running = self.running.saturating_sub(1);
        if let Some((waiting, running)) = self.accounts.get_mut(&account) {
            *running = running.saturating_sub(1);
            if waiting.is_empty() && *running == 0 {
                self.accounts.remove(&account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn account(number: u128) -> Id<Account> {
        Id::new(Uuid::from_u128(number))
    }

    #[test]
    fn an_account_with_much_work_leaves_turns_to_others() {
        let mut turns = Turns::new(4, 3);
        (0..9).for_each(|work| turns.add((account(1), work)));
        let first: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(first, [0, 1, 2].map(|work| (account(1), work)));
        turns.add((account(2), 20));
        turns.add((account(2), 20));
        turns.add((account(3), 30));
        assert_eq!(turns.next(), Some((account(2), 20)));
        assert_eq!(turns.next(), None, "so many at a time");
        turns.ended((account(1), 0));
        assert_eq!(turns.next(), Some((account(3), 30)), "who has none running comes first");
        turns.ended((account(2), 20));
        assert_eq!(turns.next(), Some((account(1), 3)));
        turns.add((account(2), 20));
        turns.ended((account(3), 30));
        assert_eq!(turns.next(), Some((account(2), 20)), "what is done may come again");
    }
}
