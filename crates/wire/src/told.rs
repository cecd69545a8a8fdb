//! What a guest is told about itself and its networks: by DHCP, router advertisements, metadata and
//! names. Parts of the objects [`Subnet`](crate::object::Subnet), [`Port`](crate::object::Port) and
//! [`About`](crate::object::About).

use std::net::IpAddr;

use uuid::Uuid;

pub use crate::field::Bytes;
use crate::{
    codec::ParseError,
    declare::{message, words},
    object::Prefix,
};

words! {
    /// How addresses of an IPv6 range come to guests (RFC 4861, 4.2; RFC 4862).
    AddressMode {
        /// Guests make them, of the prefix that routers advertise.
        1 => Slaac,
        /// By DHCPv6.
        2 => Stateful,
        /// As with SLAAC; all else is told by DHCPv6.
        3 => Stateless,
    }
}

message! {
    /// The addresses of an L3 network that come to guests in one way.
    AddressRange {
        /// The subnet.
        1 => prefix: Prefix,
        /// Its gateway.
        2 => gateway: Option<IpAddr>,
        /// How they come to guests; of IPv4 they come by DHCP.
        3 => mode: Option<AddressMode>,
    }
}

message! {
    /// A route that guests are told of.
    Route {
        /// Where to.
        1 => prefix: Prefix,
        /// Who knows the way.
        2 => via: IpAddr,
    }
}

message! {
    /// An option of DHCP as it stands in the message: what netloom does not know the meaning of.
    DhcpOption {
        /// Its code (RFC 2132; RFC 8415, 21).
        1 => code: u16,
        /// What it says.
        2 => data: Bytes,
        /// It is of DHCPv6.
        3 => is_v6: bool,
    }
}

message! {
    /// What DHCP is on an L3 network.
    Dhcp checked by check_lease {
        /// The address of the IPv4 server, the same on every host.
        1 => server: Option<IpAddr>,
        /// The address of the IPv6 server, the same on every host.
        2 => server6: Option<IpAddr>,
        /// How long an address is good for, in seconds.
        3 => lease_seconds: u32,
        /// What else all guests are told.
        4 => options: Vec<DhcpOption>,
        /// Time servers (RFC 2132, 8.3; RFC 5908).
        5 => time_servers: Vec<IpAddr>,
        /// Domains in which names without a dot are looked for, besides the network's own.
        6 => search: Vec<String>,
    }
}

message! {
    /// netloom's own DNS on an L3 network.
    Resolver {
        /// The addresses at which guests ask it.
        1 => addresses: Vec<IpAddr>,
        /// Whom it asks about names that are not of the network, in order.
        2 => forwarders: Vec<IpAddr>,
    }
}

words! {
    /// What netloom does for a port, of what its L3 networks have.
    Service {
        /// DHCP.
        1 => Dhcp,
        /// DHCPv6 and router advertisements.
        2 => Ipv6,
        /// Metadata and user data.
        3 => Metadata,
        /// Names.
        4 => Dns,
    }
}

message! {
    /// What a guest is told about one of its NICs, besides addresses.
    Told {
        /// What netloom does for it, sorted.
        1 => services: Vec<Service>,
        /// Its name there, without a domain.
        2 => hostname: Option<String>,
        /// What it is told in the place of, or besides, what all guests are told.
        3 => options: Vec<DhcpOption>,
        /// Its default route, DNS and name are those of this NIC.
        4 => is_default: bool,
        /// It may use any address of its SLAAC ranges: a privacy address (RFC 8981), or one that it has made
        /// of another identifier (RFC 7217).
        5 => may_choose: bool,
        /// How the guest comes to addresses that it can learn by itself, where it has no software of its own;
        /// it asks for them if absent.
        6 since 8 => addresses: Option<GuestAddresses>,
    }
}

words! {
    /// How a guest without software of its own, an instance of the driver netns, comes to addresses of L3
    /// networks with DHCP.
    GuestAddresses {
        /// A DHCP client is run in it.
        1 => Asked,
        /// They are set in it.
        2 => Injected,
        /// Its owner sees to it.
        3 => Left,
    }
}

message! {
    /// The name of a NIC in an L3 network.
    KnownAs {
        /// The name, without a domain.
        1 => hostname: String,
        /// The L3 network.
        2 => subnet: Uuid,
    }
}

message! {
    /// A key that opens an instance to its owner.
    SshKey {
        /// Its name.
        1 => name: String,
        /// As a line of `authorized_keys`.
        2 => key: String,
    }
}

/// The lease of an address is at least a minute: a shorter one is asked for more often than is good
/// for anybody. Of a server that gives none, 0.
fn check_lease(dhcp: &Dhcp) -> Result<(), ParseError> {
    const LEAST: u32 = 60;
    let value = dhcp.lease_seconds;
    let is_good = value >= LEAST;
    is_good.then_some(()).ok_or(ParseError::Range { field: "Dhcp.lease_seconds", value })
}
