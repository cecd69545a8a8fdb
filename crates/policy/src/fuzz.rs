//! Security groups as a host gets them, for property tests and fuzzing: whatever is in them, they
//! compile or are refused, and what is compiled decides as the rules do.

use damage::Target;
use wire::{
    object::{Object, Table},
    policy::{Action, Way},
};

use crate::{Probe, RuleSet, Said, Salt, fuzz::maps::Entries, identity, sample};

/// All of them.
pub const TARGETS: &[Target] = &[GROUP];

/// A security group, encoded.
pub const GROUP: Target = Target { name: "group", read, samples };

fn read(bytes: &[u8]) -> bool {
    let Ok(Object::SecurityGroup(group)) = Object::decode(Table::SecurityGroup, bytes) else {
        return false;
    };
    [Way::Ingress, Way::Egress].into_iter().any(|way| {
        let said = Said { groups: &[&group], way, default: Action::Drop };
        decides_alike(&said)
    })
}

/// Whether it compiles; panics if it decides otherwise than its rules at an edge of one of them.
fn decides_alike(said: &Said<'_>) -> bool {
    let salt = Salt(7);
    let Ok(mut set) = RuleSet::compile(said, salt) else { return false };
    let named: Vec<u32> = set.names().take(2).collect();
    let Ok(about) = set.about(&named) else { return false };
    let entries = Entries::of(&set, &about);
    for (rule, _) in said.rules().take(8) {
        let any = if rule.is_v6 { [0_u16; 8].into() } else { [0_u8; 4].into() };
        let ends = rule.addresses.iter().flat_map(|span| [span.first, span.last]);
        for remote in ends.take(8).chain([any]) {
            for port in
                rule.ports.iter().take(8).flat_map(|span| [span.first, span.last]).chain([0])
            {
                let protocol = rule.protocol.unwrap_or(6);
                let probe = Probe { remote, groups: &named, protocol, port };
                entries.check(said, set.number, &probe, Some(identity(salt, &named)));
            }
        }
    }
    true
}

fn samples() -> Vec<Vec<u8>> {
    let web = sample::tcp(1, Action::Accept, &[(80, 80), (443, 443)]);
    let inner = sample::of(
        sample::tcp(2, Action::Drop, &[(1, 65_535)]),
        &[("10.0.0.0", "10.255.255.255"), ("10.1.0.7", "10.1.2.3")],
    );
    let mut members = sample::rule(3, Way::Egress, Action::Accept);
    members.group = Some(5);
    let mut v6 =
        sample::of(sample::rule(4, Way::Ingress, Action::Accept), &[("fd00::", "fd00::ff")]);
    v6.is_v6 = true;
    let groups = [
        vec![web.clone()],
        vec![inner.clone(), web.clone()],
        vec![members, v6.clone(), inner, web, v6],
    ];
    groups.map(|rules| Object::SecurityGroup(sample::group(9, rules)).encode()).to_vec()
}

/// Entries of one rule set, as they would be in maps.
pub(crate) mod maps {
    use std::collections::BTreeMap;

    use packet::{Addr, Cell, Chapter, ChapterKey, ClassKey, Node, Plain as _};
    use wire::policy::Action;

    use crate::{Maps, Probe, RuleSet, Said, first_match, walk};

    pub(crate) struct Entries<'a> {
        set: &'a RuleSet,
        about: &'a BTreeMap<ChapterKey, Chapter>,
        /// Prefixes without the bits that do not count, by how many count.
        classes: BTreeMap<(u32, Vec<u8>), u32>,
    }

    /// A key of the trie: how many bits count, and the bits.
    fn parts(key: &ClassKey) -> (u32, Vec<u8>) {
        let bytes = key.to_bytes();
        let (bits, rest) = bytes.split_at(4);
        let bits = bits.try_into().map(u32::from_ne_bytes).expect("four bytes");
        (bits, rest.to_vec())
    }

    /// The first bits of these.
    fn cut(mut bytes: Vec<u8>, bits: u32) -> Vec<u8> {
        for (at, byte) in (0..).zip(&mut bytes) {
            let count = bits.saturating_sub(at * 8).min(8);
            *byte &= 0xff_u8.checked_shl(8 - count).unwrap_or(0);
        }
        bytes
    }

    impl<'a> Entries<'a> {
        pub(crate) fn of(set: &'a RuleSet, about: &'a BTreeMap<ChapterKey, Chapter>) -> Self {
            let classes = set.classes.iter().map(|(key, class)| {
                let (bits, bytes) = parts(key);
                assert_eq!(cut(bytes.clone(), bits), bytes, "{key:?} is not the lowest address");
                ((bits, bytes), *class)
            });
            Self { set, about, classes: classes.collect() }
        }

        /// Panics unless entries and rules decide alike.
        pub(crate) fn check(
            &self,
            said: &Said<'_>,
            number: u64,
            probe: &Probe<'_>,
            identity: Option<u64>,
        ) {
            let is_mapped = probe.remote.is_ipv6() && Addr::from(probe.remote).is_v4();
            if is_mapped {
                return;
            }
            let expected = first_match(said, probe);
            let end = (probe.remote.into(), identity);
            let found = walk(self, number, end, (probe.protocol, probe.port));
            let found = found.map(|cell| {
                let has = |bit| cell.rank & bit != 0;
                (cell.rule, has(Cell::ACCEPT), has(Cell::STATELESS))
            });
            let accepts = expected.action == Action::Accept;
            assert_eq!(found, Some((expected.number, accepts, expected.is_stateless)), "{probe:?}");
        }
    }

    impl Maps for Entries<'_> {
        fn class(&self, key: &ClassKey) -> Option<u32> {
            let (bits, bytes) = parts(key);
            (0..=bits)
                .rev()
                .find_map(|bits| self.classes.get(&(bits, cut(bytes.clone(), bits))).copied())
        }

        fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
            self.set.chapters.get(key).or_else(|| self.about.get(key)).copied()
        }

        fn node(&self, key: u64) -> Option<Node> {
            self.set.node(key).copied()
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_group_makes_the_compiler_panic() {
        damage::check(super::TARGETS);
    }
}
