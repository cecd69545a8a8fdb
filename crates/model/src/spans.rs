//! Lists of ports and of addresses, as security groups have them: `22,80-90`, `10.0.0.0/8,10.1.2.3-10.1.2.9`.
//!
//! What is read is what is kept: an item that says one thing and means another (`10.0.0.1/8`, `90-80`)
//! is refused. Lists are short, and each says what is wrong with it.

use std::net::IpAddr;

use ipnet::IpNet;

/// Items of a list in a rule at most, as in ZStack.
pub const ITEMS_MAX: usize = 10;

/// The first and the last port of a span.
pub type PortSpan = (u16, u16);

/// The first and the last address of a span, both of one family.
pub type AddressSpan = (IpAddr, IpAddr);

/// The spans of a list of ports such as `22,80-90`.
///
/// # Errors
/// The rule that it breaks.
pub fn ports(list: &str) -> Result<Vec<PortSpan>, String> {
    let spans = items(list, ITEMS_MAX)?.map(port_span).collect::<Result<Vec<_>, _>>()?;
    distinct(&spans).map_err(|at| format!("names {} twice", show_ports(&[spans[at]])))?;
    Ok(spans)
}

/// The spans of a list of addresses, networks and `first-last`, all of one family: 4 or 6.
///
/// # Errors
/// The rule that it breaks.
pub fn addresses(list: &str, ip_version: u8) -> Result<Vec<AddressSpan>, String> {
    let spans = items(list, ITEMS_MAX)?.map(address_span).collect::<Result<Vec<_>, _>>()?;
    if let Some((first, _)) = spans.iter().find(|(first, _)| version(*first) != ip_version) {
        return Err(format!("{first} is not IPv{ip_version}"));
    }
    distinct(&spans).map_err(|at| format!("names {} twice", show_addresses(&[spans[at]])))?;
    Ok(spans)
}

/// One item of a list of addresses: an address, a network, or `first-last`.
///
/// # Errors
/// The rule that it breaks.
pub fn address_span(item: &str) -> Result<AddressSpan, String> {
    let no_address = |text: &str| format!("\"{text}\" is no address, network or first-last");
    let ip = |text: &str| match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("{v6} is an IPv4 address in IPv6 form"))
        }
        read => read.map_err(|_| no_address(text)),
    };
    if item.contains('/') {
        let net: IpNet = item.parse().map_err(|_| no_address(item))?;
        return match net.trunc() == net {
            true => Ok((net.network(), net.broadcast())),
            false => {
                Err(format!("{net} has bits set behind its prefix: it would be {}", net.trunc()))
            }
        };
    }
    let Some((first, last)) = item.split_once('-') else { return ip(item).map(|ip| (ip, ip)) };
    let (first, last) = (ip(first.trim())?, ip(last.trim())?);
    if version(first) != version(last) {
        return Err(format!("{first} and {last} are of two families"));
    }
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!("\"{item}\" ends before it begins")),
    }
}

/// Ports as a list has them.
#[must_use]
pub fn show_ports(spans: &[PortSpan]) -> String {
    let show = |(first, last): &PortSpan| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    spans.iter().map(show).collect::<Vec<_>>().join(",")
}

/// Addresses as a list has them: networks where a span is one.
#[must_use]
pub fn show_addresses(spans: &[AddressSpan]) -> String {
    let show = |span: &AddressSpan| match (span.0 == span.1, network(*span)) {
        (true, _) => span.0.to_string(),
        (false, Some(net)) => net.to_string(),
        (false, None) => format!("{}-{}", span.0, span.1),
    };
    spans.iter().map(show).collect::<Vec<_>>().join(",")
}

/// The network that a span is, if it is one.
#[must_use]
pub fn network((first, last): AddressSpan) -> Option<IpNet> {
    let (a, b, bits): (u128, u128, u32) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.into(), b.into(), 128),
        _ => return None,
    };
    let differing = 128 - (a ^ b).leading_zeros();
    let prefix = u8::try_from(bits.checked_sub(differing)?).ok()?;
    let net = IpNet::new(first, prefix).ok()?;
    (net.network() == first && net.broadcast() == last).then_some(net)
}

/// 4 or 6.
#[must_use]
pub const fn version(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    }
}

fn items(list: &str, max: usize) -> Result<impl Iterator<Item = &str>, String> {
    match list.split(',').count() {
        count if count > max => Err(format!("has {count} items, and may have {max}")),
        _ => Ok(list.split(',').map(str::trim)),
    }
}

fn port_span(item: &str) -> Result<PortSpan, String> {
    let port = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse().ok()).flatten();
        number.ok_or_else(|| format!("\"{text}\" is no port from 0 to 65535"))
    };
    let Some((first, last)) = item.split_once('-') else {
        return port(item).map(|port| (port, port));
    };
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!("\"{item}\" ends before it begins")),
    }
}

/// The place of an item that is there before.
fn distinct<T: PartialEq>(items: &[T]) -> Result<(), usize> {
    let again = (1..items.len()).find(|at| items[..*at].contains(&items[*at]));
    again.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_and_spans_in_order() {
        let read = |list: &str| ports(list).ok();
        assert_eq!(read("22"), Some(vec![(22, 22)]));
        assert_eq!(read("80-90, 443"), Some(vec![(80, 90), (443, 443)]));
        assert_eq!(read("0-65535"), Some(vec![(0, 65535)]));
        for bad in [
            "",
            "22,",
            "65536",
            "-1",
            "90-80",
            "1-2-3",
            "22,22",
            "ssh",
            "+1",
            "1,2,3,4,5,6,7,8,9,10,11",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_addresses_networks_and_spans_of_one_family() {
        let read = |list: &str, version| {
            addresses(list, version).map(|spans| show_addresses(&spans)).map_err(|_| ())
        };
        for list in ["10.0.0.1", "10.0.0.0/8,10.1.2.3-10.1.2.9", "0.0.0.0/0"] {
            assert_eq!(read(list, 4), Ok(list.to_owned()));
        }
        assert_eq!(read("FD00::1,fd00:0::/64", 6), Ok("fd00::1,fd00::/64".to_owned()));
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-fd00::1",
            "fd00::1",
            "10.0.0.0/33",
            "10.0.0.1,10.0.0.1/32",
            "10.0.0",
            "a",
        ] {
            assert_eq!(read(bad, 4), Err(()), "{bad}");
        }
    }
}
