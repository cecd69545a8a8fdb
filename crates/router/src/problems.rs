//! What of a router does not work, service by service. The others do.

use std::{collections::BTreeMap, fmt::Display};

use serde::{Deserialize, Serialize};

/// Most problems of a service that are told one by one.
const TOLD_MAX: usize = 16;

/// A service of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Service {
    /// NICs, addresses and routes.
    Network,
    /// The packet filter itself.
    Firewall,
    /// Connections from guests to the outside.
    Snat,
    /// Elastic addresses.
    Eip,
    /// Forwarded ports.
    PortForwarding,
}

/// What does not work, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems(pub BTreeMap<Service, Vec<String>>);

impl Problems {
    /// Notes one: of what, and why.
    pub fn note(&mut self, service: Service, of: impl Display, why: &str) {
        let told = self.0.entry(service).or_default();
        match told.len() {
            TOLD_MAX => told.push("and more".to_owned()),
            count if count < TOLD_MAX => told.push(format!("{of}: {why}")),
            _ => {}
        }
    }

    /// Notes all of others.
    pub fn add(&mut self, others: Problems) {
        for (service, told) in others.0 {
            self.0.entry(service).or_default().extend(told);
        }
    }

    /// Whether all works.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
