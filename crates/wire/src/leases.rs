//! What guests ask for their addresses, and are told: what an agent has seen last of each NIC.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    LEASES_MAX,
    codec::{ParseError, bytes_of, uuid},
    field::fixed,
    r#gen as pb,
};

/// Bytes of a client's identifier, and of a name that it gives, that are kept.
pub const CLIENT_TEXT_MAX: usize = 255;

/// What became of a guest's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKind {
    /// It was offered an address.
    Offered,
    /// It has the address from now on.
    Leased,
    /// It was told that the address is not its own.
    Refused,
    /// It has found somebody else at the address.
    Declined,
    /// It has given the address back.
    Released,
    /// It was told all but an address.
    Informed,
    /// It was told of routers and prefixes.
    Advertised,
}

/// What a guest asked last, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseSeen {
    /// The NIC.
    pub nic: Uuid,
    /// When, in milliseconds since 1970, by the host's clock.
    pub at_ms: u64,
    /// What became of it.
    pub kind: LeaseKind,
    /// Whether it is IPv6: DHCPv6 or a router solicitation.
    pub is_v6: bool,
    /// The address that this was about.
    pub address: Option<IpAddr>,
    /// The name that the guest gave itself, which nobody else has to believe.
    pub hostname: Option<String>,
    /// How the client identified itself (RFC 2132, 9.14; a DUID, RFC 8415, 11).
    pub client_id: Vec<u8>,
}

impl LeaseKind {
    /// Every kind, each with its number in messages and its word for people.
    pub const ALL: [(LeaseKind, u32, &'static str); 7] = [
        (LeaseKind::Offered, 1, "offered"),
        (LeaseKind::Leased, 2, "leased"),
        (LeaseKind::Refused, 3, "refused"),
        (LeaseKind::Declined, 4, "declined"),
        (LeaseKind::Released, 5, "released"),
        (LeaseKind::Informed, 6, "informed"),
        (LeaseKind::Advertised, 7, "advertised"),
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<LeaseKind> {
        LeaseKind::ALL.iter().find(|(_, of, _)| *of == number).map(|(kind, ..)| *kind)
    }

    /// Its number in messages.
    #[must_use]
    pub fn number(self) -> u32 {
        LeaseKind::ALL.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, number, _)| *number)
    }

    /// Its word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        LeaseKind::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., word)| word)
    }
}

impl From<&LeaseSeen> for pb::LeaseSeen {
    fn from(seen: &LeaseSeen) -> Self {
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self {
            nic: bytes_of(seen.nic),
            at_ms: seen.at_ms,
            kind: seen.kind.number(),
            is_v6: seen.is_v6,
            address: seen.address.map(octets).unwrap_or_default(),
            hostname: seen.hostname.clone().unwrap_or_default(),
            client_id: seen.client_id.clone(),
        }
    }
}

/// Reads them. What a newer agent may have seen besides is left out.
pub(crate) fn seen(leases: Vec<pb::LeaseSeen>) -> Result<Vec<LeaseSeen>, ParseError> {
    if leases.len() > LEASES_MAX {
        return Err(ParseError::TooMany("leases"));
    }
    let known =
        leases.into_iter().filter_map(|seen| Some((LeaseKind::from_number(seen.kind)?, seen)));
    known.map(|(kind, seen)| one(kind, seen)).collect()
}

fn one(kind: LeaseKind, seen: pb::LeaseSeen) -> Result<LeaseSeen, ParseError> {
    let pb::LeaseSeen { nic, at_ms, is_v6, address, hostname, client_id, .. } = seen;
    if hostname.len() > CLIENT_TEXT_MAX || client_id.len() > CLIENT_TEXT_MAX {
        return Err(ParseError::TooMany("leases.client"));
    }
    let address = match address.len() {
        0 => None,
        4 => Some(fixed::<4>("leases.address", &address).map(IpAddr::from)?),
        _ => Some(fixed::<16>("leases.address", &address).map(IpAddr::from)?),
    };
    let hostname = Some(hostname).filter(|name| !name.is_empty());
    let nic = uuid("leases.nic", &nic)?;
    Ok(LeaseSeen { nic, at_ms, kind, is_v6, address, hostname, client_id })
}
