//! What a case has done, and whether that is what it must do.

use std::{collections::BTreeMap, fs};

use crate::{
    attacker::{Account, Case, Count},
    ears::{Ears, Heard},
    site::{EVIL, HOSTS, NEIGHBOURS, Site},
};

/// Reasons that honest kernels give too: they report what they listen to, look for routers, and say of many
/// odd packets what is wrong with them, more often than anybody needs.
const HONEST: [&str; 3] = ["multicast_listener", "router_solicitation", "icmp_error_rate"];

/// Counters before a case.
pub(crate) struct Baseline {
    drops: [BTreeMap<&'static str, u64>; 2],
    /// Of the attacker's port.
    port: u64,
    lost: u64,
}

/// What has happened since.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By reason, on each host.
    drops: [BTreeMap<&'static str, u64>; 2],
    port: u64,
    lost: u64,
    heard: Heard,
    /// Frames that the sender's own kernel has not sent.
    refused: u64,
}

impl Baseline {
    pub(crate) fn take(site: &Site) -> Self {
        let [h1, h2] = site.views.each_ref().map(|view| view.counters().unwrap());
        let port = h1.traffic.get(&site.port).map_or(0, |port| port.dropped_packets);
        Self { drops: [h1.drops, h2.drops], port, lost: lost(site) }
    }
}

impl Seen {
    /// Nothing yet, but that the sender's own kernel has not sent so many frames.
    pub(crate) fn nothing(refused: u64) -> Self {
        Self { refused, ..Self::default() }
    }

    /// Brings it up to date.
    pub(crate) fn look(&mut self, site: &Site, before: &Baseline, ears: &mut Ears) {
        let now = Baseline::take(site);
        for (at, drops) in now.drops.into_iter().enumerate() {
            let earlier = |reason| before.drops[at].get(reason).copied().unwrap_or_default();
            let grown = drops.into_iter().map(|(reason, count)| (reason, count - earlier(reason)));
            self.drops[at] = grown.filter(|(_, count)| *count > 0).collect();
        }
        self.port = now.port - before.port;
        self.lost = now.lost - before.lost;
        ears.look(&mut self.heard);
    }

    /// What is not as the case says.
    pub(crate) fn complaints(&self, case: &Case) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut must = |what: &str, count: Count, seen: u64| {
            if !count.holds(seen) {
                complaints.push(format!("{what}: {seen}, not {count:?}"));
            }
        };
        for (at, host) in HOSTS.iter().enumerate() {
            for (reason, count) in &case.drops[at] {
                let seen = self.drops[at].get(reason.as_str()).copied().unwrap_or_default();
                // Of these, the attacker's port has its own count.
                let is_honest = HONEST.contains(&reason.as_str());
                let count = if is_honest { count.or_more() } else { *count };
                must(&format!("{reason} on {host}"), count, seen);
                if is_honest && at == 0 && case.drops[0].len() == 1 && case.arrives_nowhere() {
                    must("dropped of the attacker's port", case.drops[0][reason], self.port);
                }
            }
            for (reason, seen) in &self.drops[at] {
                if !case.drops[at].contains_key(*reason) && !HONEST.contains(reason) {
                    must(&format!("{reason} on {host}"), Count::Exactly(0), *seen);
                }
            }
        }
        for (at, name) in NEIGHBOURS.iter().enumerate() {
            must(&format!("at {name}"), case.arrives[at], self.heard.arrived[at]);
        }
        must("on the underlay", case.underlay, self.heard.underlay);
        must("at another tenant's", Count::Exactly(0), self.heard.others);
        if !case.is_from_a_stranger {
            must("in the hosts' stacks", Count::Exactly(0), self.heard.hosts);
        }
        if let Some(answers) = case.answers {
            must("answers", answers, self.heard.answers);
        }
        must("refused by the sender's kernel", Count::Exactly(case.refused), self.refused);
        must("lost by the host's kernel", Count::Exactly(case.lost), self.lost);
        if let Some(account) = case.accounted {
            self.account(account, |what, seen| must(what, Count::Exactly(case.frames), seen));
        }
        complaints
    }

    /// Each frame is either dropped or arrives.
    fn account(&self, account: Account, mut must: impl FnMut(&str, u64)) {
        let dropped: u64 = self.drops.iter().flat_map(BTreeMap::values).sum();
        let [near, far] = self.heard.arrived;
        match account {
            Account::AtOneNeighbour => must("dropped, or arrived", dropped + near + far),
            Account::AtEachNeighbour => {
                must("dropped, or arrived at near", dropped + near);
                must("dropped, or arrived at far", dropped + far);
            }
        }
    }
}

impl Case {
    fn arrives_nowhere(&self) -> bool {
        self.arrives.iter().all(|count| matches!(count, Count::Exactly(0)))
    }
}

impl Count {
    fn or_more(self) -> Self {
        match self {
            Self::Exactly(count) | Self::AtLeast(count) => Self::AtLeast(count),
        }
    }
}

/// Frames of the attacker that the other end of its cable did not take.
fn lost(site: &Site) -> u64 {
    let table = site.lab.namespace(EVIL).run_in(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.unwrap().unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    // Eight columns of what came in; then bytes, packets, errors, drops of what went out.
    line.split_whitespace().nth(8 + 3).unwrap().parse().unwrap()
}
