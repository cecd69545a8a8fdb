//! Installation: what the database knows of the files beside it.

use std::collections::BTreeMap;

use derive::Resource;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{doctor::GetDoctorReport, zql::ZQLQuery};
use crate::{
    Id, Message, MessageDef, Plain,
    field::{FieldType, FieldValue, Readable},
};

/// The uuid of the one [`Installation`]: there is no other.
pub const INSTALLATION: Uuid = Uuid::from_u128(1);

/// What the database knows of the files beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(messages)]
pub struct Installation {
    /// Its id: [`INSTALLATION`].
    pub uuid: Id<Installation>,
    /// SHA-256 of the certificate of the authority to which hosts are bound, hex.
    #[field(hidden)]
    pub authority_sha256: String,
    /// The server's newest starts, oldest first: [`STARTS_MAX`] at most.
    #[field(hidden)]
    pub starts: Vec<Start>,
}

/// Starts that are remembered. A host that was away for more of them is told nothing until an
/// operator says so.
pub const STARTS_MAX: usize = 1000;

/// A start of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// Drawn at random for it. Hosts keep it beside the revision that they were told.
    pub lineage: Uuid,
    /// The store's revision then.
    pub revision: u64,
}

impl Installation {
    /// Those about no resource, or about all.
    const MESSAGES: &'static [&'static MessageDef] = &[&ZQLQuery::DEF, &GetDoctorReport::DEF];

    /// Remembers a start.
    pub fn started(&mut self, start: Start) {
        self.starts.push(start);
        let surplus = self.starts.len().saturating_sub(STARTS_MAX);
        self.starts.drain(..surplus);
    }

    /// The newest revision that hosts can have been told in each lineage but the newest: the one
    /// with which the next began. A host that was told more, or in a lineage that is not here, has
    /// seen a newer database, or another one.
    #[must_use]
    pub fn earlier_lineages(&self) -> BTreeMap<Uuid, u64> {
        let next = self.starts.iter().skip(1);
        self.starts.iter().zip(next).map(|(start, next)| (start.lineage, next.revision)).collect()
    }
}

impl FieldValue for Start {
    const TYPE: FieldType = FieldType::Object;
}

impl Readable for Start {
    fn plain(&self) -> Plain<'_> {
        Plain::Object(json!({"lineage": self.lineage, "revision": self.revision}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_ends_where_the_next_begins_and_few_are_kept() {
        let (uuid, authority_sha256) = (Id::new(INSTALLATION), String::new());
        let mut installation = Installation { uuid, authority_sha256, starts: Vec::new() };
        let start = |n: u64| Start { lineage: Uuid::from_u128(n.into()), revision: 10 * n };
        (1..=3).for_each(|n| installation.started(start(n)));
        let ends = installation.earlier_lineages();
        assert_eq!(ends, [(Uuid::from_u128(1), 20), (Uuid::from_u128(2), 30)].into());
        (4..=STARTS_MAX as u64 + 1).for_each(|n| installation.started(start(n)));
        assert_eq!(installation.starts.len(), STARTS_MAX);
        assert_eq!(installation.starts[0], start(2));
    }
}
