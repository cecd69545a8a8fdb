//! Cuts snapshots and deltas into parts that fit a message, and puts parts together again.

use std::iter::Peekable;

use thiserror::Error;

use crate::{
    PART_BYTES,
    digest::TableDigests,
    holding::Holding,
    message::{Delta, ServerMessage, Snapshot},
    object::ObjectKey,
    shared::Shared,
};

/// What carries an object adds at most so many bytes to its own.
const OBJECT_BYTES: usize = 16;

/// The parts of a snapshot; at least one. Each is cut when it is asked for.
pub fn snapshot(
    revision: u64,
    objects: impl IntoIterator<Item = Shared>,
    digests: TableDigests,
) -> impl Iterator<Item = ServerMessage> {
    Cut::new(objects).map(move |(objects, is_last)| {
        let last = is_last.then_some(digests);
        ServerMessage::Snapshot(Snapshot { revision, objects, last })
    })
}

/// The parts of a delta; at least one. Removals go with the first part.
pub fn delta(
    revision: u64,
    upserts: impl IntoIterator<Item = Shared>,
    mut removes: Vec<ObjectKey>,
    digests: TableDigests,
) -> impl Iterator<Item = ServerMessage> {
    Cut::new(upserts).map(move |(upserts, is_last)| {
        let (removes, last) = (std::mem::take(&mut removes), is_last.then_some(digests));
        ServerMessage::Delta(Delta { revision, upserts, removes, last })
    })
}

/// Groups of at most [`PART_BYTES`] and one object, with whether it is the last; at least one.
struct Cut<I: Iterator> {
    objects: Peekable<I>,
    over: bool,
}

impl<I: Iterator<Item = Shared>> Cut<I> {
    fn new(objects: impl IntoIterator<IntoIter = I>) -> Self {
        Self { objects: objects.into_iter().peekable(), over: false }
    }
}

impl<I: Iterator<Item = Shared>> Iterator for Cut<I> {
    type Item = (Vec<Shared>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(object) = self.objects.next()
        {
            bytes += object.encoded().len() + OBJECT_BYTES;
            part.push(object);
        }
        self.over = self.objects.peek().is_none();
        Some((part, self.over))
    }
}

/// Why parts do not go together.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AssemblyError {
    /// A part of something else came in between.
    #[error("parts of different snapshots or deltas are mixed")]
    Mixed,
    /// Something came that is no part of what a host must hold.
    #[error("a second Welcome came")]
    Welcome,
    /// The same.
    #[error("a question is no part of what a host must hold")]
    Question,
    /// What the host would hold is not what the server says it should.
    #[error("the digests at revision {0} are not those that the server expects")]
    Digests(u64),
}

/// Puts parts together. Nothing takes effect before the last part.
#[derive(Debug, Default)]
pub struct Assembly {
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    revision: u64,
    /// A snapshot starts from nothing, a delta from what is held.
    whole: bool,
    upserts: Vec<Shared>,
    removes: Vec<ObjectKey>,
}

impl Assembly {
    /// Takes a part. With the last one, gives the revision and what to hold from now on.
    ///
    /// # Errors
    /// [`AssemblyError`]; the caller starts over with a new stream and a fresh `Hello`.
    pub fn take(
        &mut self,
        held: &Holding,
        message: ServerMessage,
    ) -> Result<Option<(u64, Holding)>, AssemblyError> {
        let (revision, whole, upserts, removes, last) = match message {
            ServerMessage::Welcome(_) => return Err(AssemblyError::Welcome),
            ServerMessage::Asked(_) => return Err(AssemblyError::Question),
            ServerMessage::Snapshot(part) => {
                (part.revision, true, part.objects, Vec::new(), part.last)
            }
            ServerMessage::Delta(part) => {
                (part.revision, false, part.upserts, part.removes, part.last)
            }
        };
        let none = Parts { revision, whole, upserts: Vec::new(), removes: Vec::new() };
        let mut parts = self.parts.take().unwrap_or(none);
        if (parts.revision, parts.whole) != (revision, whole) {
            return Err(AssemblyError::Mixed);
        }
        parts.upserts.extend(upserts);
        parts.removes.extend(removes);
        let Some(digests) = last else {
            self.parts = Some(parts);
            return Ok(None);
        };
        let mut next = if whole { Holding::default() } else { held.clone() };
        parts.removes.iter().for_each(|key| next.remove(key));
        parts.upserts.into_iter().for_each(|object| next.upsert(object));
        if next.digests() == digests {
            Ok(Some((revision, next)))
        } else {
            Err(AssemblyError::Digests(revision))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;
    use crate::{
        MESSAGE_BYTES_MAX, r#gen as pb,
        object::{Driver, Instance},
        testing::objects,
    };

    fn assemble(
        held: &Holding,
        parts: impl IntoIterator<Item = ServerMessage>,
    ) -> Option<(u64, Holding)> {
        let mut assembly = Assembly::default();
        parts.into_iter().find_map(|part| assembly.take(held, part).unwrap())
    }

    fn instances(count: u128) -> Vec<Shared> {
        let name = "n".repeat(250);
        let instance = |at| Instance {
            uuid: Uuid::from_u128(at),
            name: name.clone(),
            driver: Driver::Netns,
            generation: 0,
            machine: None,
            goes: None,
            comes: None,
        };
        (0..count).map(|at| crate::object::Object::Instance(instance(at)).into()).collect()
    }

    #[test]
    fn a_large_snapshot_goes_in_parts_that_fit() {
        let all: Holding = instances(10_000).into_iter().collect();
        let parts: Vec<_> = snapshot(5, instances(10_000), all.digests()).collect();
        assert!(parts.len() > 1);
        let fits = |part| pb::ServerMessage::from(part).encoded_len() < MESSAGE_BYTES_MAX / 4;
        assert!(parts.iter().all(fits));
        let (last, first) = parts.split_last().unwrap();
        let mut assembly = Assembly::default();
        for part in first {
            assert_eq!(assembly.take(&Holding::default(), part.clone()), Ok(None));
        }
        let done = assembly.take(&Holding::default(), last.clone());
        assert_eq!(done, Ok(Some((5, all))));
    }

    #[test]
    fn a_snapshot_of_nothing_is_one_part() {
        let nothing: Vec<_> = snapshot(9, [], TableDigests::default()).collect();
        assert_eq!(nothing.len(), 1);
        let held: Holding = instances(3).into_iter().collect();
        assert_eq!(assemble(&held, nothing), Some((9, Holding::default())));
    }

    #[test]
    fn mixed_parts_are_refused() {
        let objects = instances(10_000);
        let first = snapshot(1, objects.clone(), TableDigests::default()).take(1);
        let parts = first.chain(delta(2, objects, Vec::new(), TableDigests::default()));
        let mut assembly = Assembly::default();
        let results: Vec<_> =
            parts.take(2).map(|p| assembly.take(&Holding::default(), p)).collect();
        assert_eq!(results, [Ok(None), Err(AssemblyError::Mixed)]);
    }

    #[test]
    fn wrong_digests_change_nothing() {
        let mut parts = delta(2, instances(1), Vec::new(), TableDigests::default());
        let part = parts.next().unwrap();
        let refused = Assembly::default().take(&Holding::default(), part);
        assert_eq!(refused, Err(AssemblyError::Digests(2)));
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_one_holding_to_the_next(before in objects(), after in objects()) {
            let (before, after): (Holding, Holding) =
                (before.into_iter().collect(), after.into_iter().collect());
            let gone = |key: &&ObjectKey| !after.objects().contains_key(*key);
            let removes = before.objects().keys().filter(gone).copied().collect();
            let parts = delta(3, after.objects().values().cloned(), removes, after.digests());
            prop_assert_eq!(assemble(&before, parts), Some((3, after)));
        }
    }
}
