//! Traffic of VMs whose connections are filtered, with few and with many rules and members: netloom's
//! security groups, and what else a Linux host has. Without rules, a bare cable and a bridge.

use std::time::{Duration, Instant};

use crate::{
    Failure,
    filtered::Filtered,
    load::Load,
    loom::Loom,
    plan::{Group, Metric, Step},
    rivals::{self, Size},
    site::Site,
    traffic::{self, Pair, Traffic},
};

/// Traffic with rules.
pub(crate) const GROUPS: Group = Group {
    id: "groups",
    steps: &[
        step("connect.0-rules", NO_RULES, &[metric("connect-0", "1/s")]),
        step("connect.10-rules", RULES, &[metric("connect-10", "1/s")]),
        step("connect.1000-rules", RULES, &[metric("connect-1000", "1/s")]),
        step("connect.10000-rules", RULES, &[metric("connect-10000", "1/s")]),
        step("udp-64.0-rules", NO_RULES, &[metric("udp-64-0", "1000/s")]),
        step("udp-64.10-rules", RULES, &[metric("udp-64-10", "1000/s")]),
        step("udp-64.1000-rules", RULES, &[metric("udp-64-1000", "1000/s")]),
        step("udp-64.10000-rules", RULES, &[metric("udp-64-10000", "1000/s")]),
        step("rr.0-rules", NO_RULES, &[metric("rr-0-p50", "us"), metric("rr-0-p99", "us")]),
        step("rr.10-rules", RULES, &[metric("rr-10-p50", "us"), metric("rr-10-p99", "us")]),
        step("rr.1000-rules", RULES, &[metric("rr-1000-p50", "us"), metric("rr-1000-p99", "us")]),
        step(
            "rr.10000-rules",
            RULES,
            &[metric("rr-10000-p50", "us"), metric("rr-10000-p99", "us")],
        ),
        step("tcp-no-gso.0-rules", NO_RULES, &[metric("tcp-no-gso-0", "Gbit/s")]),
        step("tcp-no-gso.10-rules", RULES, &[metric("tcp-no-gso-10", "Gbit/s")]),
        step("tcp-no-gso.1000-rules", RULES, &[metric("tcp-no-gso-1000", "Gbit/s")]),
        step("tcp-no-gso.10000-rules", RULES, &[metric("tcp-no-gso-10000", "Gbit/s")]),
    ],
};

const NO_RULES: &[&str] = &[VETH, BRIDGE, "netloom"];
const RULES: &[&str] = &[VETH, "iptables", "nftables", "netloom"];
/// What has the same number of rules in all steps: none.
const VETH: &str = "veth";
const BRIDGE: &str = "bridge";

/// Rules of the server, and members of the group that the last of them name.
const SIZES: [Size; 3] = [
    Size { rules: 10, members: 10 },
    Size { rules: 1_000, members: 1_000 },
    Size { rules: 10_000, members: 100_000 },
];

const fn step(
    id: &'static str,
    contenders: &'static [&'static str],
    metrics: &'static [Metric],
) -> Step {
    Step { id, contenders, metrics }
}

const fn metric(id: &'static str, unit: &'static str) -> Metric {
    Metric { id, unit, quantile: 0.5 }
}

/// All contenders, which stand there all the time.
pub(crate) struct Groups(Traffic);

impl Groups {
    /// Builds those of the steps that are selected, and sees that they filter.
    ///
    /// # Errors
    /// What the kernel or the lab says, or one lets pass what it should not.
    pub(crate) fn new(
        loom: &Loom,
        time: Duration,
        is_wanted: &dyn Fn(u32) -> bool,
    ) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let start = Instant::now();
        let filtered = Filtered::new(loom)?;
        let mut open = vec![traffic::veth(&mut site)?];
        if is_wanted(0) {
            open.extend([traffic::bridge(&mut site)?, filtered.open()?]);
        }
        let mut closed = Vec::new();
        for size in SIZES.into_iter().filter(|size| is_wanted(size.rules)) {
            closed.push(rivals::iptables(&mut site, size)?);
            closed.push(rivals::nftables(&mut site, size)?);
            closed.push(filtered.pair(size)?);
        }
        for (pair, is_open) in
            open.iter_mut().map(|pair| (pair, 1.0)).chain(closed.iter_mut().map(|pair| (pair, 0.0)))
        {
            check(pair, is_open)?;
        }
        eprintln!("groups: the contenders are there after {:.1} s", start.elapsed().as_secs_f64());
        open.extend(closed);
        Ok(Self(Traffic::of(open, time, site)))
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let (load, rules) = parts(step).ok_or("a step without rules")?;
        let name = match contender {
            VETH | BRIDGE => contender.to_owned(),
            _ => format!("{contender}-{rules}"),
        };
        self.0.measure(load, &name)
    }
}

/// Whether a step with so many rules is to be measured.
pub(crate) fn has_step(only: &str, rules: u32) -> bool {
    let rules = rules.to_string();
    GROUPS.selected(only).any(|step| parts(step.id).is_some_and(|(_, own)| own == rules))
}

/// The load of a step, and how many rules there are.
fn parts(step: &str) -> Option<(&str, &str)> {
    step.strip_suffix("-rules")?.split_once('.')
}

/// What is closed where there are rules is asked for: it must not be answered there, and must be
/// elsewhere, or the question says nothing.
fn check(pair: &mut Pair, expected: f64) -> Result<(), Failure> {
    let found = pair.run(Load::Probe, Duration::ZERO)?;
    match found.first() {
        Some(found) if found.to_bits() == expected.to_bits() => Ok(()),
        _ => Err(format!("{} does not filter as it should", pair.contender()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_load_and_its_contenders() {
        for step in GROUPS.steps {
            let (_, rules) = parts(step.id).unwrap();
            let rules: u32 = rules.parse().unwrap();
            assert!(rules == 0 || SIZES.iter().any(|size| size.rules == rules), "{}", step.id);
            assert_eq!(step.contenders.contains(&BRIDGE), rules == 0);
            assert!(step.metrics.iter().all(|metric| metric.id.contains(&format!("-{rules}"))));
        }
    }

    #[test]
    fn what_is_not_measured_is_not_built() {
        assert!(has_step("groups.connect.10-", 10) && !has_step("groups.connect.10-", 1_000));
        assert!([0, 10, 1_000, 10_000].iter().all(|rules| has_step("", *rules)));
    }
}
