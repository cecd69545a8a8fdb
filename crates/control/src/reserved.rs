//! Addresses that are no machine's: neither an instance's nor a host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::{Error, Result};

/// Blocks of which no address can be a machine's (RFC 6890): this network, loopback, link-local,
/// multicast and class E with broadcast; of IPv6 what IETF reserves at its start (loopback, mapped
/// and translated IPv4: as numbers, these would collide with IPv4), link-local, multicast.
const SPECIAL: [IpNet; 7] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// The special block that shares an address with `low` to `high`, both of one family.
pub(crate) fn block(low: IpAddr, high: IpAddr) -> Option<IpNet> {
    let alike = |net: &&IpNet| net.addr().is_ipv4() == low.is_ipv4();
    let meets = |net: &&IpNet| net.network() <= high && low <= net.broadcast();
    SPECIAL.iter().filter(alike).find(meets).copied()
}

/// Checks that an address may be a host's, for management or tunnels: others must reach it.
///
/// # Errors
/// [`model::Code::InvalidArgument`] on `field`.
pub(crate) fn check_host(field: &str, ip: IpAddr) -> Result<()> {
    let Some(net) = block(ip, ip) else { return Ok(()) };
    let error = Error::field(field, format!("{ip} is no host's: {net} is for other purposes"));
    Err(error.hint("give a unicast address of the host's own that the other hosts reach"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_reach_are_a_hosts() {
        let fine = ["10.0.0.1", "172.30.0.1", "223.255.255.254", "2001:db8::1", "fd00::1"];
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.1.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "fe80::1",
            "ff02::1",
        ];
        for (addresses, expected) in [(&fine[..], true), (&special[..], false)] {
            for text in addresses {
                let seen = check_host("managementIp", text.parse().unwrap()).is_ok();
                assert_eq!(seen, expected && *text != "{text}");
            }
        }
    }
}
