//! Options of DHCP that operators choose: which there are, how their values are written, and what stands
//! in the message (RFC 2132, RFC 8415). What netloom computes itself nobody chooses.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Most bytes of one option: its length is one byte in IPv4's (RFC 2132, 2), and IPv6's is held to the same.
pub const OPTION_BYTES_MAX: usize = 255;

/// Time servers (RFC 2132, 8.3), of IPv4.
pub const TIME_SERVERS: u16 = 42;

/// Domains in which names without a dot are looked for (RFC 3397), of IPv4.
pub const SEARCH: u16 = 119;

/// How the value of an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it is.
    Text,
    /// Addresses of the option's family, with commas between them.
    Addresses,
    /// Domain names, with commas between them.
    Domains,
    /// A whole number of so many bytes.
    Number(usize),
}

/// Options that have names, as dnsmasq and Neutron have them. Others are named by their code.
const NAMED: &[(&str, u8, u16, Form)] = &[
    ("time-server", 4, 4, Form::Addresses),
    ("log-server", 4, 7, Form::Addresses),
    ("boot-file-size", 4, 13, Form::Number(2)),
    ("root-path", 4, 17, Form::Text),
    ("default-ttl", 4, 23, Form::Number(1)),
    ("ntp-server", 4, TIME_SERVERS, Form::Addresses),
    ("netbios-ns", 4, 44, Form::Addresses),
    ("netbios-nodetype", 4, 46, Form::Number(1)),
    ("vendor-class", 4, 60, Form::Text),
    ("tftp-server", 4, 66, Form::Text),
    ("bootfile-name", 4, 67, Form::Text),
    ("smtp-server", 4, 69, Form::Addresses),
    ("posix-timezone", 4, 100, Form::Text),
    ("tzdb-timezone", 4, 101, Form::Text),
    ("captive-portal", 4, 114, Form::Text),
    ("domain-search", 4, SEARCH, Form::Domains),
    ("tftp-server-address", 4, 150, Form::Addresses),
    ("pxelinux-configfile", 4, 209, Form::Text),
    ("pxelinux-pathprefix", 4, 210, Form::Text),
    ("wpad", 4, 252, Form::Text),
    ("sntp-server", 6, 31, Form::Addresses),
    ("bootfile-url", 6, 59, Form::Text),
    ("captive-portal", 6, 103, Form::Text),
];

/// What netloom computes, or what a message of DHCP is made of: nobody else says it. Of IPv4.
const OWN: &[u16] =
    &[0, 1, 3, 6, 12, 15, 26, 28, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 82, 118, 121, 249, 255];

/// The same of IPv6: all of RFC 8415 and RFC 3646, and the client's name.
const OWN_V6: std::ops::RangeInclusive<u16> = 0..=26;
const FQDN_V6: u16 = 39;

/// The code of an option that is named by a word or a number.
///
/// # Errors
/// The rule that the name breaks.
pub fn code(name: &str, version: u8) -> Result<u16, String> {
    let known = NAMED.iter().find(|(known, of, ..)| *known == name && *of == version);
    let most = if version == 4 { u16::from(u8::MAX) } else { u16::MAX };
    let code = match (known, name.parse::<u16>()) {
        (Some((.., code, _)), _) => *code,
        (None, Ok(code)) if code <= most => code,
        (None, Ok(code)) => return Err(format!("{code} is over {most}, the largest code")),
        (None, Err(_)) => {
            return Err(format!("\"{}\" is neither a code nor a name of one", short(name)));
        }
    };
    let is_own = match version {
        4 => OWN.contains(&code),
        _ => OWN_V6.contains(&code) || code == FQDN_V6,
    };
    match is_own {
        true => Err(format!("{code} is what netloom says itself")),
        false => Ok(code),
    }
}

/// The name of an option, if it has one.
#[must_use]
pub fn name(code: u16, version: u8) -> Option<&'static str> {
    let known = NAMED.iter().find(|(_, of, known, _)| *known == code && *of == version);
    known.map(|(name, ..)| *name)
}

/// What stands in the message for this value of an option.
///
/// # Errors
/// The rule that the value breaks.
pub fn encode(code: u16, version: u8, value: &str) -> Result<Vec<u8>, String> {
    let known = NAMED.iter().find(|(_, of, known, _)| *known == code && *of == version);
    let form = known.map_or(Form::Text, |(.., form)| *form);
    let bytes = match value.strip_prefix("hex:") {
        Some(digits) => hex(digits)?,
        None => formed(form, version, value)?,
    };
    match bytes.len() {
        0 => Err("it is empty".to_owned()),
        len if len > OPTION_BYTES_MAX => {
            Err(format!("its {len} bytes are over {OPTION_BYTES_MAX}, the limit"))
        }
        _ => Ok(bytes),
    }
}

fn formed(form: Form, version: u8, value: &str) -> Result<Vec<u8>, String> {
    match form {
        Form::Text => Ok(value.as_bytes().to_vec()),
        Form::Addresses => {
            let addresses = items(value).map(|item| {
                let bytes = match version {
                    4 => item.parse::<Ipv4Addr>().ok().map(|ip| ip.octets().to_vec()),
                    _ => item.parse::<Ipv6Addr>().ok().map(|ip| ip.octets().to_vec()),
                };
                let wrong = || format!("\"{}\" is no address of IPv{version}", short(item));
                bytes.ok_or_else(wrong)
            });
            addresses.collect::<Result<Vec<_>, _>>().map(|all| all.concat())
        }
        Form::Domains => {
            let domains = items(value).map(|item| {
                wire_name(item).ok_or_else(|| format!("\"{}\" is no domain name", short(item)))
            });
            domains.collect::<Result<Vec<_>, _>>().map(|all| all.concat())
        }
        Form::Number(bytes) => {
            let number: u64 =
                value.parse().map_err(|_| format!("\"{}\" is no whole number", short(value)))?;
            let all = number.to_be_bytes();
            let (rest, last) = all.split_at(all.len().saturating_sub(bytes));
            match rest.iter().all(|byte| *byte == 0) {
                true => Ok(last.to_vec()),
                false => Err(format!("{number} does not fit into {bytes} bytes")),
            }
        }
    }
}

/// The parts of a list.
pub fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// A domain name as it stands in messages (RFC 1035, 3.1).
fn wire_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = (1..=63).contains(&label.len()) && label.bytes().all(is_plain);
        bytes.push(u8::try_from(label.len()).ok().filter(|_| is_label)?);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    (bytes.len() <= OPTION_BYTES_MAX).then_some(bytes)
}

fn hex(digits: &str) -> Result<Vec<u8>, String> {
    let wrong = || "after hex: come pairs of hexadecimal digits".to_owned();
    let digits = digits.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let [a, b] = *pair else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        u8::try_from((digit(a)? << 4) | digit(b)?).ok()
    });
    pairs.collect::<Option<Vec<_>>>().ok_or_else(wrong)
}

/// The start of a text, for an error.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_named_by_word_or_code_and_not_one_of_netlooms_own() {
        for (name, version, expected) in [
            ("tftp-server", 4, Some(66)),
            ("67", 4, Some(67)),
            ("bootfile-url", 6, Some(59)),
            ("bootfile-url", 4, None),
            ("256", 4, None),
            ("256", 6, Some(256)),
            ("3", 4, None),
            ("121", 4, None),
            ("23", 6, None),
            ("23", 4, Some(23)),
            ("tea", 4, None),
            ("", 4, None),
            ("-1", 4, None),
        ] {
            assert_eq!(code(name, version).ok(), expected, "{name} of IPv{version}");
        }
    }

    #[test]
    fn a_value_becomes_what_stands_in_the_message() {
        for (code, version, value, expected) in [
            (66, 4, "boot", Some(b"boot".to_vec())),
            (150, 4, "10.0.0.1, 10.0.0.2", Some(vec![10, 0, 0, 1, 10, 0, 0, 2])),
            (150, 4, "fd00::1", None),
            (150, 4, "", None),
            (46, 4, "8", Some(vec![8])),
            (46, 4, "256", None),
            (13, 4, "256", Some(vec![1, 0])),
            (119, 4, "a.b,c", Some(b"\x01a\x01b\x00\x01c\x00".to_vec())),
            (119, 4, "a..b", None),
            (200, 4, "hex:0aFF", Some(vec![10, 255])),
            (200, 4, "hex:0aF", None),
            (200, 4, "hex:é", None),
            (200, 4, "", None),
        ] {
            assert_eq!(encode(code, version, value).ok(), expected, "{code}: {value}");
        }
        assert!(
            encode(66, 4, &"x".repeat(255)).is_ok() && encode(66, 4, &"x".repeat(256)).is_err()
        );
    }

    #[test]
    fn every_name_is_of_an_option_that_may_be_chosen() {
        for (known, version, expected, _) in NAMED {
            assert_eq!(code(known, *version), Ok(*expected));
            assert_eq!(name(*expected, *version), Some(*known));
        }
    }
}
