//! What an end of another release knows: tables, and up to which version.
//!
//! A server sends an older agent only what that agent can hold. A newer agent with an older server
//! needs nothing: tables that the server does not know stay empty, and fields that it does not know
//! are as if they were left out.

use crate::object::{Object, Table};

/// The tables that an agent knows, each with the newest version of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions([u32; Table::ALL.len()]);

impl Versions {
    /// No table at all.
    pub const NONE: Self = Self([0; Table::ALL.len()]);

    /// Those of this release.
    #[must_use]
    pub fn own() -> Self {
        let mut own = Self::NONE;
        Table::ALL.iter().for_each(|table| own.note(table.number(), table.version()));
        own
    }

    /// Notes that the table with this number is known up to this version. A table that this
    /// release does not know does not matter to it.
    pub fn note(&mut self, number: u32, version: u32) {
        if let Some(table) = Table::from_number(number) {
            self.0[table as usize] = version;
        }
    }

    /// The newest version that is known of a table's objects, 0 if it is not known at all.
    #[must_use]
    pub const fn of(&self, table: Table) -> u32 {
        self.0[table as usize]
    }

    /// Whether an agent that knows these can hold this object.
    #[must_use]
    pub fn can_hold(&self, object: &Object) -> bool {
        let version = self.of(object.key().table);
        // Most agents are not older, so the version that the object needs is seldom asked for.
        version >= object.key().table.version() || object.needs() <= version
    }

    /// Whether an agent that knows these can hold whatever this release knows.
    #[must_use]
    pub fn can_hold_all(&self) -> bool {
        Table::ALL.iter().all(|table| self.of(*table) >= table.version())
    }

    /// Each table that is known, by number.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, u32)> {
        let all = Table::ALL.iter().map(|table| (table.number(), self.of(*table)));
        all.filter(|(_, version)| *version > 0)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::object::{Driver, Instance, Peer, Prefix};

    #[test]
    fn an_older_agent_holds_what_has_no_prefixes() {
        let mut versions = Versions::own();
        versions.note(Table::Peer.number(), 1);
        let peer = |prefixes| {
            let (uuid, network) = (Uuid::from_u128(1), Uuid::from_u128(2));
            let vtep = [192, 0, 2, 1].into();
            Object::Peer(Peer {
                uuid,
                network,
                mac: [2; 6],
                addresses: Vec::new(),
                vtep,
                prefixes,
                goes: None,
                known_as: None,
            })
        };
        assert!(versions.can_hold(&peer(Vec::new())));
        let prefix = Prefix { ip: [192, 168, 77, 0].into(), bits: 24 };
        assert!(!versions.can_hold(&peer(vec![prefix])));
    }

    #[test]
    fn an_object_of_a_table_that_is_not_known_cannot_be_held() {
        let (uuid, name) = (Uuid::from_u128(1), "vm".to_owned());
        let instance = Object::Instance(Instance {
            uuid,
            name,
            driver: Driver::Netns,
            generation: 0,
            machine: None,
            goes: None,
            comes: None,
        });
        let mut versions = Versions::own();
        assert!(versions.can_hold(&instance) && versions.can_hold_all());
        versions.note(Table::Instance.number(), 0);
        assert!(!versions.can_hold(&instance) && !versions.can_hold_all());
        versions.note(99, 7);
        versions.note(Table::Instance.number(), 6);
        assert!(versions.can_hold(&instance) && versions.can_hold_all(), "a newer agent");
        assert_eq!(versions.numbered().last(), Some((9, 1)));
    }
}
