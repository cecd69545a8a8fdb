//! Where the server may be made to connect to: whoever names an address in `X-Web-Hook` makes the
//! server, which stands where its tenants do not, send something there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What one account's results may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any address: for administrators, who reach all of them anyway.
    Everywhere,
    /// Addresses that are public, and those in these networks.
    Public(Vec<IpNet>),
}

impl Reach {
    /// Whether something may be sent to this address.
    #[must_use]
    pub fn includes(&self, ip: IpAddr) -> bool {
        // `::ffff:127.0.0.1` is 127.0.0.1 for whoever connects.
        let ip = ip.to_canonical();
        match self {
            Reach::Everywhere => true,
            Reach::Public(also) => is_public(ip) || also.iter().any(|net| net.contains(&ip)),
        }
    }
}

/// Whether an address is everybody's to reach. What is not known to be is not.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// The networks of the IANA's special-purpose registry (RFC 6890) that are not globally reachable,
/// multicast, and what is reserved.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_protocols = (a, b, c) == (192, 0, 0);
    let is_6to4_relay = (a, b, c) == (192, 88, 99);
    let is_benchmarking = a == 198 && (18..20).contains(&b);
    let is_reserved = a == 0 || a >= 240;
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || is_shared
        || is_protocols
        || is_6to4_relay
        || is_benchmarking
        || is_reserved)
}

/// Global unicast is 2000::/3; what carries an IPv4 address in it (6to4, Teredo) may lead anywhere.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let is_global = first & 0xe000 == 0x2000;
    let is_special = first == 0x2001 && second < 0x200 || (first, second) == (0x2001, 0xdb8);
    let is_6to4 = first == 0x2002;
    let is_documentation = first == 0x3fff && second < 0x1000;
    is_global && !is_special && !is_6to4 && !is_documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normal_account_reaches_what_is_public_and_what_is_allowed() {
        let nobody = Reach::Public(Vec::new());
        for (ip, expected) in [
            ("1.1.1.1", true),
            ("100.63.255.255", true),
            ("172.32.0.1", true),
            ("2606:4700::1", true),
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("192.0.0.192", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::7f00:1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            assert_eq!(nobody.includes(ip.parse().unwrap()), expected, "{ip}");
            assert!(Reach::Everywhere.includes(ip.parse().unwrap()));
        }
        let allowed = Reach::Public(vec!["10.1.0.0/16".parse().unwrap()]);
        for (ip, expected) in [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false)] {
            assert_eq!(allowed.includes(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
