//! Audit: who has changed what, from where, when, and what came of it.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::{Id, Timestamp};

/// A message that changed something or was refused, or a login. It names uuids as text: nothing of
/// it goes when what it is about goes. Of administrators alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/audits")]
pub struct Audit {
    /// Its id. Those that were made later are greater.
    pub uuid: Id<Audit>,
    /// The message's name.
    #[field(index)]
    pub message: String,
    /// The account that sent it; of a login that failed, the one that was named, if there is one.
    #[field(index)]
    pub account_uuid: String,
    /// The user of the account who sent it or has logged in, unless the account itself did.
    #[field(index)]
    pub user_uuid: Option<String>,
    /// Where it came from.
    pub source: String,
    /// The kind of the resource that it was about, as ZStack names it.
    pub resource_type: Option<String>,
    /// The resource that it was about.
    #[field(index)]
    pub resource_uuid: Option<String>,
    /// Its fields as JSON text, cut if they are long; of secret ones only the names.
    pub fields: String,
    /// `SUCCESS`, or the code of the error. A success is durable; whether hosts have done it tells
    /// the job.
    pub outcome: String,
}

impl Audit {
    /// The outcome of what was done.
    pub const SUCCESS: &'static str = "SUCCESS";

    /// An id in the order of time.
    #[must_use]
    pub fn id_at(now: Timestamp, random: Uuid) -> Id<Audit> {
        let millis = u64::try_from(now.0).unwrap_or(0);
        let bytes = random.as_u128().to_be_bytes();
        let mut tail = [0; 10];
        tail.copy_from_slice(&bytes[6..]);
        Id::new(Builder::from_unix_timestamp_millis(millis, &tail).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time() {
        let random = [Uuid::max(), Uuid::nil(), Uuid::from_u128(7)];
        let ids: Vec<_> =
            (1..).zip(random).map(|(at, random)| Audit::id_at(Timestamp(at), random)).collect();
        assert!(ids.is_sorted());
    }
}
