//! MAC addresses, written as every API writes them.

use std::{fmt, str::FromStr};

use macaddr::MacAddr6;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A MAC address: lower-case hex with colons, such as `fa:4c:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one by which hosts answer their instances, in every network.
    pub const SERVICES: Self = Self(*b"\x02netlm");

    /// Whether a machine may have it: not a group's (lowest bit of the first byte), not all zero, not
    /// netloom's own.
    #[must_use]
    pub fn is_machines(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6] && self != Self::SERVICES
    }
}

impl FromStr for Mac {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mac: Result<MacAddr6, _> = text.parse();
        mac.map(|mac| Self(mac.into_array())).map_err(|_| "not of the form fa:4c:00:00:00:01")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_text_in_json() {
        let mac: Mac = serde_json::from_str("\"FA:4c:00:00:00:01\"").unwrap();
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"fa:4c:00:00:00:01\"");
        assert!("fa:4c".parse::<Mac>().is_err());
        assert!(mac.is_machines() && !Mac([1, 0, 0, 0, 0, 0]).is_machines());
        assert!(!Mac::SERVICES.is_machines());
    }
}
