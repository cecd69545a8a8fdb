//! Settings: what administrators change while the server runs. The one table of them, with ZStack's
//! names where it has one.

use ipnet::IpNet;
use uuid::Uuid;

use crate::{
    Kind,
    field::FieldValue,
    resource::{quota::Quota, vtep::VXLAN_PORT},
    words,
};

/// Something that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is about, such as `identity`.
    pub category: &'static str,
    /// Its name there, such as `session.timeout`.
    pub name: &'static str,
    /// What it may be, and what it is if nobody says otherwise.
    pub of: Values,
    /// The kinds of resources of which each may have another value.
    pub per: &'static [Kind],
    /// What it does, with the unit and when a change takes effect.
    pub doc: &'static str,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// A whole number, both ends included.
    Number {
        /// The value if nobody says otherwise.
        default: i64,
        /// The smallest.
        low: i64,
        /// The largest.
        high: i64,
    },
    /// One of some words.
    Word {
        /// The value if nobody says otherwise.
        default: &'static str,
        /// All of them.
        one_of: &'static [&'static str],
    },
    /// Networks such as `10.0.0.0/8`, separated by commas; none if nobody says otherwise.
    Networks,
    /// Any text; none if nobody says otherwise.
    Text {
        /// Its longest, in bytes.
        bytes_max: usize,
    },
}

/// Networks in one setting at most.
const NETWORKS_MAX: usize = 64;

impl Values {
    /// The value if nobody says otherwise, as text.
    #[must_use]
    pub fn default(&self) -> String {
        match self {
            Values::Number { default, .. } => default.to_string(),
            Values::Word { default, .. } => (*default).to_owned(),
            Values::Networks | Values::Text { .. } => String::new(),
        }
    }

    /// Whether this is a value.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self {
            Values::Number { low, high, .. } => match value.parse::<i64>() {
                Ok(number) if (*low..=*high).contains(&number) => Ok(()),
                Ok(number) => Err(format!("{number} is outside {low} to {high}")),
                Err(_) => Err(format!("\"{value}\" is no whole number from {low} to {high}")),
            },
            Values::Word { one_of, .. } if one_of.contains(&value) => Ok(()),
            Values::Word { one_of, .. } => {
                Err(format!("\"{value}\" is not one of {}", one_of.join(", ")))
            }
            Values::Networks => networks(value).map(|_| ()),
            Values::Text { bytes_max } if value.len() <= *bytes_max => Ok(()),
            Values::Text { bytes_max } => {
                Err(format!("its {} bytes are over {bytes_max}, the limit", value.len()))
            }
        }
    }
}

/// The networks that a text names.
///
/// # Errors
/// The rule that it breaks.
pub fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let read = |word: &str| {
        word.parse().map_err(|_| format!("\"{word}\" is not a network such as 192.168.100.0/24"))
    };
    let networks = words.map(read).collect::<Result<Vec<_>, _>>()?;
    match networks.len() > NETWORKS_MAX {
        true => Err(format!("has over {NETWORKS_MAX} networks")),
        false => Ok(networks),
    }
}

impl Setting {
    /// The number that it is where this is its value, if it has one. Its default stands in for a
    /// value that an earlier release allowed and this one does not.
    #[must_use]
    pub fn number(&self, value: Option<&str>) -> i64 {
        let number = value.filter(|value| self.of.check(value).is_ok());
        let number = number.and_then(|number| number.parse().ok());
        number.or_else(|| self.of.default().parse().ok()).unwrap_or_default()
    }

    /// The uuid of the row that has its value.
    #[must_use]
    pub fn row(&self) -> Uuid {
        self.row_of(Uuid::nil())
    }

    /// The uuid of the row that has its value for a resource.
    #[must_use]
    pub fn row_of(&self, resource: Uuid) -> Uuid {
        Uuid::new_v5(&resource, format!("{}/{}", self.category, self.name).as_bytes())
    }

    /// Every setting.
    pub fn all() -> impl Iterator<Item = Setting> {
        let quotas = Quota::counted().map(|(_, counted)| Setting {
            category: "quota",
            name: counted.name,
            of: Values::Number { default: counted.default, low: 0, high: i64::MAX },
            per: &[],
            doc: "How many an account may have that has no quota of its own; a new one gets it as its own.",
        });
        FIXED.iter().map(|setting| **setting).chain(quotas)
    }

    /// The setting of this name.
    #[must_use]
    pub fn find(category: &str, name: &str) -> Option<Setting> {
        Self::all().find(|setting| setting.category == category && setting.name == name)
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident = ($category:literal, $setting:literal, $of:expr, $per:expr),)*) => {
        $(
            $(#[doc = $doc])*
            pub const $name: Setting = Setting {
                category: $category,
                name: $setting,
                of: $of,
                per: $per,
                doc: concat!($($doc),*).trim_ascii(),
            };
        )*

        const FIXED: &[&Setting] = &[$(&$name,)*];
    };
}

const fn number(default: i64, low: i64, high: i64) -> Values {
    Values::Number { default, low, high }
}

settings! {
    /// How long a session lasts, in seconds. Counts for sessions opened or renewed from then on.
    SESSION_TIMEOUT = ("identity", "session.timeout", number(7200, 60, 31_536_000), &[Kind::Account]),
    /// Sessions of one account at most. A further one ends the one that was idle for the longest time.
    SESSIONS_MAX = ("identity", "session.maxConcurrent", number(500, 1, 10_000), &[]),
    /// How long a finished job can be asked for, in seconds. Counts for jobs made from then on.
    JOB_EXPIRY = ("rest", "completedApi.expiredPeriod", number(10_800, 60, 604_800), &[]),
    /// How long a job waits for hosts when its caller names no time, in seconds.
    JOB_TIMEOUT = ("rest", "api.timeout", number(1800, 1, 86_400), &[]),
    /// Networks that the results of normal accounts' calls may be sent to (`X-Web-Hook`), besides addresses
    /// that are public. Administrators' are sent anywhere.
    WEB_HOOK_NETWORKS = ("rest", "webHook.networks", Values::Networks, &[]),
    /// How long a row of the audit is kept, in seconds.
    AUDIT_EXPIRY = ("audit", "expiredPeriod", number(2_592_000, 3600, 315_360_000), &[]),
    /// Rows of the audit at most: beyond that the oldest go. With 0 none is written.
    AUDIT_MAX = ("audit", "max", number(100_000, 0, 1_000_000), &[]),
    /// UDP port of VXLAN, on all hosts and at all VTEPs that are no host's: 8472, which ZStack and Linux have by
    /// default, or RFC 7348's 4789, or another. Hosts that have not taken a change yet do not reach those that have.
    VXLAN_UDP_PORT = ("vxlan", "port", number(VXLAN_PORT as i64, 1, 65_535), &[]),
    /// What becomes of an instance that is destroyed: Delay, it can be recovered for expungePeriod;
    /// Direct, it is gone at once; Never, it can be recovered until ExpungeVmInstance ends it.
    VM_DELETION_POLICY = (
        "vm",
        "deletionPolicy",
        Values::Word {
            default: DeletionPolicy::Delay.as_str(),
            one_of: DeletionPolicy::ONE_OF,
        },
        &[Kind::VmInstance]
    ),
    /// What becomes of an instance that no other host can take when its host is taken into maintenance:
    /// JustMigrate, it goes on running and ChangeHostState fails, naming it; StopVmOnMigrationFailure, it
    /// is stopped and stays so.
    HOST_MAINTENANCE_POLICY = (
        "host",
        "maintenancePolicy",
        Values::Word {
            default: MaintenancePolicy::JustMigrate.as_str(),
            one_of: MaintenancePolicy::ONE_OF,
        },
        &[Kind::Host]
    ),
    /// How long an address that DHCP gives is good for, in seconds. Clients learn of a change as they renew:
    /// after half of the time that they were told.
    DHCP_LEASE_TIME = ("dhcp", "leaseTime", number(86_400, 60, 31_536_000), &[Kind::L3Network]),
    /// Which IPv6 addresses instances may use of ranges in which they make their own: Assigned, the one that
    /// the API shows; Any, every one of the range's network, such as privacy addresses (RFC 8981).
    DHCP_SLAAC_ADDRESSES = (
        "dhcp",
        "slaacAddresses",
        Values::Word {
            default: SlaacAddresses::Assigned.as_str(),
            one_of: SlaacAddresses::ONE_OF,
        },
        &[Kind::L3Network]
    ),
    /// How instances of the driver netns, which have no software of their own, come to their addresses of L3
    /// networks with DHCP: Client, a DHCP client is run in each; Injected, hosts set them, as they do
    /// where there is no DHCP; None, their owners see to it.
    DHCP_NETNS_ADDRESSES = (
        "dhcp",
        "netnsAddresses",
        Values::Word {
            default: NetnsAddresses::Client.as_str(),
            one_of: NetnsAddresses::ONE_OF,
        },
        &[Kind::L3Network]
    ),
    /// Whether an instance needs a token to read its metadata, as of EC2's IMDSv2: Optional or Required.
    METADATA_TOKEN = (
        "metadata",
        "token",
        Values::Word { default: TokenNeed::Optional.as_str(), one_of: TokenNeed::ONE_OF },
        &[Kind::VmInstance]
    ),
    /// What the operator tells the software of all instances beside their user data: cloud-init's vendor data.
    VENDOR_DATA = ("metadata", "vendorData", Values::Text { bytes_max: VENDOR_DATA_MAX }, &[]),
    /// What becomes of connections that others open to a NIC in security groups, if no rule decides: accept or
    /// drop. Counts for NICs that come into their first group from then on.
    INGRESS_POLICY = (
        "securityGroup",
        "ingress.defaultPolicy",
        Values::Word { default: DefaultPolicy::Drop.as_str(), one_of: &["accept", "drop"] },
        &[]
    ),
    /// The same for connections that the NIC opens; acceptUntilRule, as in ZStack up to 4.x and CloudStack: accept
    /// until a group of the NIC has an egress rule, and drop from then on.
    EGRESS_POLICY = (
        "securityGroup",
        "egress.defaultPolicy",
        Values::Word { default: DefaultPolicy::Accept.as_str(), one_of: DefaultPolicy::ONE_OF },
        &[]
    ),
    /// Rules that a security group may have of each type, Ingress and Egress, beside its default rules.
    GROUP_RULES_MAX = ("securityGroup", "rules.num.limit", number(100, 1, 10_000), &[]),
    /// Whether an account has a default group, for NICs that are made with no choice of groups: None or Account.
    /// Counts for NICs that are made from then on.
    DEFAULT_GROUP = (
        "securityGroup",
        "defaultGroup",
        Values::Word { default: DefaultGroup::None.as_str(), one_of: DefaultGroup::ONE_OF },
        &[Kind::Account]
    ),
    /// What passes at a NIC that is in no security group, where its L3 network has the service: Open, all;
    /// Closed, only what netloom answers itself (ARP, ND, DHCP, metadata, names).
    WITHOUT_GROUP = (
        "securityGroup",
        "nic.withoutGroup",
        Values::Word { default: WithoutGroup::Open.as_str(), one_of: WithoutGroup::ONE_OF },
        &[Kind::L3Network]
    ),
    /// Which connections of a NIC its host writes to its flow log: None; Denied, those that groups or a lack of
    /// room refused; All, those and new ones. Its own value counts, else that of its L3 network.
    FLOW_LOG = (
        "flowLog",
        "events",
        Values::Word { default: FlowLogEvents::None.as_str(), one_of: FlowLogEvents::ONE_OF },
        &[Kind::VmNic, Kind::L3Network]
    ),
    /// How long hosts remember TCP connections of VMs before the opener's ACK, in seconds. This and those that follow
    /// count for all connections at once.
    TCP_OPENING = ("securityGroup", "conntrack.tcpOpeningSeconds", number(30, 1, SECONDS_MAX), &[]),
    /// How long hosts remember TCP connections of VMs that are idle, in seconds.
    TCP_ESTABLISHED =
        ("securityGroup", "conntrack.tcpEstablishedSeconds", number(7_440, 1, SECONDS_MAX), &[]),
    /// How long hosts remember TCP connections that one end has closed, in seconds.
    TCP_CLOSING = ("securityGroup", "conntrack.tcpClosingSeconds", number(240, 1, SECONDS_MAX), &[]),
    /// How long hosts remember TCP connections that both ends have closed, or one has aborted, in seconds.
    TCP_CLOSED = ("securityGroup", "conntrack.tcpClosedSeconds", number(10, 1, SECONDS_MAX), &[]),
    /// How long hosts remember what else VMs begin, without an answer or with the first one, in seconds.
    OPENING = ("securityGroup", "conntrack.openingSeconds", number(30, 1, SECONDS_MAX), &[]),
    /// How long hosts remember UDP that goes on, in seconds.
    UDP_ESTABLISHED =
        ("securityGroup", "conntrack.udpEstablishedSeconds", number(120, 1, SECONDS_MAX), &[]),
    /// How long hosts remember ICMP echo, in seconds.
    ICMP = ("securityGroup", "conntrack.icmpSeconds", number(30, 1, SECONDS_MAX), &[]),
    /// How long hosts remember any other protocol that goes on, in seconds.
    OTHER = ("securityGroup", "conntrack.otherSeconds", number(600, 1, SECONDS_MAX), &[]),
    /// How long a destroyed instance can be recovered, in seconds. Counts for those that are destroyed already, too.
    VM_EXPUNGE_PERIOD = ("vm", "expungePeriod", number(86_400, 1, 31_536_000), &[Kind::VmInstance]),
    /// How often destroyed instances are looked for, in seconds. They are also looked for when one of these settings changes.
    VM_EXPUNGE_INTERVAL = ("vm", "expungeInterval", number(3600, 1, 86_400), &[]),
}

/// Longest time for which hosts remember an idle connection, in seconds: what their tables have room for.
const SECONDS_MAX: i64 = 14_400;

/// Longest vendor data, in bytes.
pub const VENDOR_DATA_MAX: usize = 16_384;

words! {
    /// How instances without software of their own come to addresses of networks with DHCP.
    NetnsAddresses {
        /// By a DHCP client.
        Client = "Client",
        /// From their hosts.
        Injected = "Injected",
        /// By what their owners do.
        None = "None",
    }
}

words! {
    /// What becomes of a connection that no rule of a security group decides.
    DefaultPolicy {
        /// It passes.
        Accept = "accept",
        /// It does not.
        Drop = "drop",
        /// It passes until there are rules.
        AcceptUntilRule = "acceptUntilRule",
    }
}

words! {
    /// Which default security groups there are.
    DefaultGroup {
        /// None.
        None = "None",
        /// One of each account.
        Account = "Account",
    }
}

words! {
    /// What passes at a NIC that is in no security group.
    WithoutGroup {
        /// All.
        Open = "Open",
        /// Nothing.
        Closed = "Closed",
    }
}

words! {
    /// Which connections are written to the flow log.
    FlowLogEvents {
        /// None.
        None = "None",
        /// Those that were denied.
        Denied = "Denied",
        /// New ones, too.
        All = "All",
    }
}

words! {
    /// Which addresses instances may use where they make their own.
    SlaacAddresses {
        /// The one that is made of the MAC.
        Assigned = "Assigned",
        /// Every one of the network.
        Any = "Any",
    }
}

words! {
    /// Whether metadata is read with a token.
    TokenNeed {
        /// With one, or without.
        Optional = "Optional",
        /// With one.
        Required = "Required",
    }
}

words! {
    /// What becomes of an instance that no other host can take, when its host is to be maintained.
    MaintenancePolicy {
        /// It stays, and the host is not maintained.
        JustMigrate = "JustMigrate",
        /// It is stopped.
        StopVmOnMigrationFailure = "StopVmOnMigrationFailure",
    }
}

words! {
    /// What becomes of an instance that is destroyed.
    DeletionPolicy {
        /// It can be recovered for some time.
        Delay = "Delay",
        /// It is gone at once.
        Direct = "Direct",
        /// It can be recovered for ever.
        Never = "Never",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_has_its_own_name_a_text_and_a_default_that_fits() {
        let mut names = BTreeSet::new();
        for setting in Setting::all() {
            assert!(names.insert((setting.category, setting.name)), "{setting:?}");
            assert_eq!(setting.of.check(&setting.of.default()), Ok(()), "{setting:?}");
            assert!(!setting.doc.is_empty());
        }
    }

    #[test]
    fn a_value_is_of_its_sort_and_in_its_range() {
        let check = |setting: &Setting, value: &str| setting.of.check(value).is_ok();
        for (value, fits) in
            [("60", true), ("59", false), ("", false), ("1.5", false), ("x", false)]
        {
            assert_eq!(check(&SESSION_TIMEOUT, value), fits, "{value}");
        }
        assert!(check(&VM_DELETION_POLICY, "Never") && !check(&VM_DELETION_POLICY, "never"));
        for (value, fits) in
            [("", true), ("10.0.0.0/8, fd00::/8", true), ("10.0.0.0", false), ("x", false)]
        {
            assert_eq!(check(&WEB_HOOK_NETWORKS, value), fits, "{value}");
        }
        assert!(!check(&WEB_HOOK_NETWORKS, &"10.0.0.0/8,".repeat(NETWORKS_MAX + 1)));
    }
}
