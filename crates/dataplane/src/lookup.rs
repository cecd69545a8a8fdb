//! Reading side: single entries of the maps, as a program looks them up. A host may have a hundred
//! thousand of them, so whoever wants to know about one packet does not read all.

use crate::error::Error;
use crate::tables::Tables;
use crate::view::View;
use packet::{
    Addr, ClassKey, Config, Learned, MAX_MOVES, Plain, PrefixKey, TIMEOUTS_COUNT, Timeout, Timeouts,
};
use std::collections::BTreeMap;

/// What each filled map is asked, and what of the kept ones says how the host is set up.
macro_rules! lookup {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        /// Looks up single entries, as the programs do: of prefixes the longest that the key is in.
        /// Nothing is changed.
        ///
        /// # Errors
        /// Each call: [`Error::Map`].
        pub trait Lookup {
            $(
                $(#[$doc])*
                #[allow(clippy::missing_errors_doc, reason = "said once, above")]
                fn $name(&self, key: &$key) -> Result<Option<$value>, Error>;
            )*
            /// The configuration.
            #[allow(clippy::missing_errors_doc, reason = "said once, above")]
            fn config(&self) -> Result<Config, Error>;
            /// How long a connection lives that is idle, in ticks.
            #[allow(clippy::missing_errors_doc, reason = "said once, above")]
            fn timeout(&self, timeout: Timeout) -> Result<u32, Error>;
            /// A slot of the machines that were learned.
            #[allow(clippy::missing_errors_doc, reason = "said once, above")]
            fn learned(&self, slot: u32) -> Result<Learned, Error>;
            /// A place of the moves that have come to their end.
            #[allow(clippy::missing_errors_doc, reason = "said once, above")]
            fn arrived(&self, place: u32) -> Result<u64, Error>;
            /// Dropped frames that concerned the port at this place, since it has it.
            #[allow(clippy::missing_errors_doc, reason = "said once, above")]
            fn dropped_at(&self, place: u32) -> Result<u64, Error>;
        }

        impl Lookup for View {
            $(
                fn $name(&self, key: &$key) -> Result<Option<$value>, Error> {
                    self.maps.$name.get(key)
                }
            )*

            fn config(&self) -> Result<Config, Error> {
                self.maps.config()
            }

            fn timeout(&self, timeout: Timeout) -> Result<u32, Error> {
                self.maps.timeouts.get(timeout as u32 % TIMEOUTS_COUNT)
            }

            fn learned(&self, slot: u32) -> Result<Learned, Error> {
                match slot < self.maps.learned.limit() {
                    true => self.maps.learned.get(slot),
                    false => Ok(Learned::default()),
                }
            }

            fn arrived(&self, place: u32) -> Result<u64, Error> {
                self.maps.arrived.get(place % MAX_MOVES)
            }

            fn dropped_at(&self, place: u32) -> Result<u64, Error> {
                let of_cpus = self.maps.traffic.get(place)?;
                Ok(of_cpus.iter().map(|traffic| traffic.dropped_packets).sum())
            }
        }

        /// Of a host that has a tunnel device, and where nothing has happened yet.
        impl Lookup for Tables {
            $(
                fn $name(&self, key: &$key) -> Result<Option<$value>, Error> {
                    Ok(found!($shape self.$name, key).copied())
                }
            )*

            fn config(&self) -> Result<Config, Error> {
                Ok(Config { tunnel_ifindex: 1, ..Config::default() })
            }

            fn timeout(&self, timeout: Timeout) -> Result<u32, Error> {
                Ok(Timeouts::default().ticks().get(timeout as usize).copied().unwrap_or_default())
            }

            fn learned(&self, _slot: u32) -> Result<Learned, Error> {
                Ok(Learned::default())
            }

            fn arrived(&self, _place: u32) -> Result<u64, Error> {
                Ok(0)
            }

            fn dropped_at(&self, _place: u32) -> Result<u64, Error> {
                Ok(0)
            }
        }
    };
}

macro_rules! found {
    (lpm $map:expr, $key:ident) => {
        longest(&$map, $key)
    };
    ($exact:ident $map:expr, $key:ident) => {
        $map.get($key)
    };
}

packet::maps!(lookup);

/// A key of a trie.
trait Prefix: Plain + Ord {
    /// The address that it ends with.
    fn address(&self) -> Addr;
    /// The same with that address cut to so many bits.
    fn cut(&self, lowest: Addr, bits: u8) -> Self;
}

impl Prefix for PrefixKey {
    fn address(&self) -> Addr {
        self.addr
    }

    fn cut(&self, lowest: Addr, bits: u8) -> Self {
        PrefixKey::new(self.net, lowest, bits)
    }
}

impl Prefix for ClassKey {
    fn address(&self) -> Addr {
        self.addr
    }

    fn cut(&self, lowest: Addr, bits: u8) -> Self {
        let [low, high] = self.ruleset.map(u64::from);
        ClassKey::new(low | high << 32, lowest, bits)
    }
}

/// The value of the longest prefix that the key's address is in.
fn longest<'a, K: Prefix, V>(map: &'a BTreeMap<K, V>, key: &K) -> Option<&'a V> {
    let addr = key.address();
    let most = if addr.is_v4() { 32 } else { 128 };
    let prefixes = (0..=most).rev().filter_map(|bits| {
        let lowest = lowest(addr, bits, most);
        // A short prefix of IPv6 is not one of IPv4.
        (lowest.is_v4() == addr.is_v4()).then(|| key.cut(lowest, bits))
    });
    prefixes.into_iter().find_map(|prefix| map.get(&prefix))
}

/// The lowest address with the same first bits, of so many that an address of its family has.
fn lowest(addr: Addr, bits: u8, most: u8) -> Addr {
    let mask = u128::MAX.checked_shl(u32::from(most - bits)).unwrap_or(0);
    let number = u128::from_be_bytes(addr.octets()) & mask;
    let mapped = if most == 32 { 0xffff_u128 << 32 } else { 0 };
    Addr::v6((number | mapped).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Behind, Mac};

    #[test]
    fn the_longest_prefix_of_tables_is_found() {
        let addr = |text: &str| Addr::from(text.parse::<std::net::IpAddr>().unwrap());
        let mut tables = Tables::default();
        let behind = |last| Behind::local(Mac([2, 0, 0, 0, 0, last]), 0);
        for (net, at, bits, last) in
            [(1, "10.0.0.0", 8, 1), (1, "10.9.0.0", 16, 2), (2, "0.0.0.0", 0, 3), (1, "::", 0, 4)]
        {
            tables.behind.insert(PrefixKey::new(net, addr(at), bits), behind(last));
        }
        let find = |net, at: &str| Lookup::behind(&tables, &PrefixKey::of(net, addr(at))).unwrap();
        assert_eq!(find(1, "10.9.1.1"), Some(behind(2)));
        assert_eq!(find(1, "10.8.1.1"), Some(behind(1)));
        assert_eq!(find(1, "11.8.1.1"), None);
        assert_eq!(find(2, "11.8.1.1"), Some(behind(3)));
        assert_eq!(find(2, "2001:db8::1"), None);
        assert_eq!(find(1, "2001:db8::1"), Some(behind(4)));
    }
}
