//! Who counts as one: limits are shared by what one customer commonly has.

use std::net::{IpAddr, Ipv6Addr};

/// What shares limits with an address: an IPv4 address alone, an IPv6 address with its /64. IPv4 that
/// is written as IPv6 is IPv4, and `::1` is alone.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() && !v6.is_loopback() => {
            Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into()
        }
        other => other.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customers_network_is_one() {
        let cases = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::"),
            ("2001:db8::ffff:2", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
            ("::1", "::1"),
        ];
        for (address, expected) in cases {
            let [address, expected] =
                [address, expected].map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(source(address), expected, "{address}");
        }
    }
}
