//! What the store keeps: rows of some type, and changes of them.

use std::{fmt::Debug, net::IpAddr, sync::Arc};

use model::{Claim, Plain, Record};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{ClaimKey, Key};

/// A row. Generic so that the contract suite runs on a toy and not on the product's resources.
///
/// What a row is found by and what it claims follow from the row alone: the store derives both
/// whenever a row comes, goes or is loaded, and stores neither.
pub trait Row: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// What tells tables apart. Must serialise as a JSON string: it is part of an engine's key.
    type Kind: Copy + Ord + Debug + Send + Sync + Serialize + DeserializeOwned + 'static;

    /// What no two rows, of whatever tables, may hold at once.
    type Claim: ClaimKey;

    /// The table that it belongs to.
    fn kind(&self) -> Self::Kind;

    /// Its id, unique in its table.
    fn id(&self) -> Uuid;

    /// What it is found by: field name and value. A field may have several values (a list). A
    /// reference to another row is a [`Key::Uuid`], see
    /// [`Read::referrers`](crate::Read::referrers).
    fn index(&self) -> Vec<(&'static str, Key)>;

    /// What it holds alone.
    fn claims(&self) -> Vec<Self::Claim>;

    /// The durable form.
    ///
    /// # Errors
    /// Whatever hinders that; the transaction is refused then.
    fn encode(&self) -> serde_json::Result<Box<RawValue>>;

    /// Reads what [`encode`](Self::encode) of this or any earlier release has written.
    ///
    /// # Errors
    /// It is of a later release, or damaged.
    fn decode(kind: Self::Kind, json: &RawValue) -> serde_json::Result<Self>;
}

impl ClaimKey for Claim {
    fn next(&self) -> Option<Self> {
        Claim::next(self)
    }
}

impl Row for Record {
    type Kind = model::Kind;
    type Claim = Claim;

    fn kind(&self) -> model::Kind {
        Record::kind(self)
    }

    fn id(&self) -> Uuid {
        self.uuid()
    }

    fn index(&self) -> Vec<(&'static str, Key)> {
        let found = Record::index(self).into_iter();
        found.filter_map(|(field, value)| Some((field, Key::of(&value)?))).collect()
    }

    fn claims(&self) -> Vec<Claim> {
        Record::claims(self)
    }

    fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        Record::encode(self)
    }

    fn decode(_: model::Kind, json: &RawValue) -> serde_json::Result<Self> {
        Record::decode(json)
    }
}

impl Key {
    /// The value of a field as the index has it; `None` for what no row is found by: nothing, and
    /// structures.
    #[must_use]
    pub fn of(value: &Plain<'_>) -> Option<Self> {
        Some(match value {
            Plain::Null | Plain::List(_) | Plain::Object(_) => return None,
            Plain::Uuid(uuid) => Key::Uuid(*uuid),
            Plain::Integer(number) => Key::Number(*number),
            Plain::Time(time) => Key::Number(time.0),
            Plain::Bool(value) => Key::Number((*value).into()),
            Plain::Ip(IpAddr::V4(ip)) => Key::Ip(ip.to_ipv6_mapped().into()),
            Plain::Ip(IpAddr::V6(ip)) => Key::Ip((*ip).into()),
            Plain::Mac(mac) => Key::Mac(mac.0),
            Plain::Text(text) => Key::Text(text.as_ref().into()),
            Plain::Cidr(cidr) => Key::Text(cidr.to_string().into()),
        })
    }
}

/// What a transaction did to one row. `before` and `after` differ, and one of them is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<R: Row> {
    /// Its table.
    pub kind: R::Kind,
    /// Its id.
    pub id: Uuid,
    /// The row before; `None`: it is new.
    pub before: Option<Arc<R>>,
    /// The row after; `None`: it is gone.
    pub after: Option<Arc<R>>,
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    #[test]
    fn values_are_found_as_what_they_are() {
        let ip = |text: &str| Key::of(&Plain::Ip(text.parse().unwrap()));
        assert_eq!(ip("10.0.0.1"), Some(Key::Ip(0xffff_0a00_0001)));
        assert_eq!(ip("fe80::1"), ip("FE80:0::1"));
        assert_eq!(Key::of(&Plain::word("a")), Some(Key::Text("a".into())));
        assert_eq!(Key::of(&Plain::Time(Timestamp(7))), Some(Key::Number(7)));
        assert_eq!(Key::of(&Plain::Null), None);
    }
}
