//! What guests asked last, and what became of it: for the server, and for whoever looks at the host.

use std::net::IpAddr;

use imbl::OrdMap;
use uuid::Uuid;
use wire::leases::{CLIENT_TEXT_MAX, LeaseKind, LeaseSeen};

/// A question, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: LeaseKind,
    pub(crate) is_v6: bool,
    pub(crate) address: Option<IpAddr>,
    /// As the guest has sent it.
    pub(crate) hostname: Option<Vec<u8>>,
    pub(crate) client_id: Vec<u8>,
}

impl Seen {
    /// That of this NIC, at this time. What a guest says of itself is cut, and made text.
    pub(super) fn of(self, nic: Uuid, at_ms: u64) -> LeaseSeen {
        let Self { kind, is_v6, address, hostname, mut client_id } = self;
        client_id.truncate(CLIENT_TEXT_MAX);
        let hostname = hostname.map(|bytes| text(&bytes)).filter(|name| !name.is_empty());
        LeaseSeen { nic, at_ms, kind, is_v6, address, hostname, client_id }
    }
}

/// Printable text of no more than so many bytes.
fn text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(CLIENT_TEXT_MAX / 3)];
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(cut).trim_end_matches('\0').chars().map(printable).collect()
}

/// The last of each NIC and family. A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases(OrdMap<(Uuid, bool), LeaseSeen>);

/// NICs of which something is kept: those of a host, twice.
const MOST: usize = 2 * packet::MAX_PORTS as usize;

impl Leases {
    /// Notes one.
    pub(super) fn note(&mut self, seen: LeaseSeen) {
        let key = (seen.nic, seen.is_v6);
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, seen)| seen.at_ms).map(|(key, _)| *key);
            oldest.into_iter().for_each(|key| _ = self.0.remove(&key));
        }
        self.0.insert(key, seen);
    }

    /// Takes these in, too.
    pub(crate) fn extend(&mut self, news: &[LeaseSeen]) {
        self.0.extend(news.iter().map(|seen| ((seen.nic, seen.is_v6), seen.clone())));
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LeaseSeen> {
        self.0.values()
    }

    /// Those that are others than before.
    pub(crate) fn since(&self, before: &Self) -> Vec<LeaseSeen> {
        let is_new = |(key, seen): &(&(Uuid, bool), &LeaseSeen)| before.0.get(*key) != Some(*seen);
        self.0.iter().filter(is_new).map(|(_, seen)| seen.clone()).collect()
    }
}
