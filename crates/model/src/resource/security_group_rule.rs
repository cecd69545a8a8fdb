//! Rule of a security group: which connections it is about, and whether they pass.

use std::{fmt, str::FromStr};

use derive::{Message, Resource};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use uuid::Uuid;

use super::{address_group::AddressGroup, security_group::SecurityGroup, zone::EnableState};
use crate::{
    FieldDef, FieldType, Id, Message, MessageDef, Plain, Record, Resource, Update,
    declare::Column,
    field::{FieldValue, Readable},
    spans::{self, AddressSpan, PortSpan},
    words,
};

words! {
    /// Who opens the connections that a rule is about.
    RuleType {
        /// Others, to the group's members.
        Ingress = "Ingress",
        /// The group's members.
        Egress = "Egress",
    }
}

words! {
    /// What becomes of a connection that a rule is about.
    RuleAction {
        /// It passes.
        Accept = "ACCEPT",
        /// It does not.
        Drop = "DROP",
    }
}

/// A protocol above IP: one of ZStack's words, or the number that IANA gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleProtocol {
    /// Every one.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of the rule's family: number 1 in IPv4, 58 in IPv6.
    Icmp,
    /// Any other by its number, such as 132, SCTP.
    Number(u8),
}

impl RuleProtocol {
    /// Its number in packets of a family; `None`: every one.
    #[must_use]
    pub const fn number(self, ip_version: u8) -> Option<u8> {
        match (self, ip_version) {
            (Self::All, _) => None,
            (Self::Tcp, _) => Some(6),
            (Self::Udp, _) => Some(17),
            (Self::Icmp, 6) => Some(58),
            (Self::Icmp, _) => Some(1),
            (Self::Number(number), _) => Some(number),
        }
    }

    /// The same with its word, if it has one in rules of a family.
    #[must_use]
    pub const fn named(self, ip_version: u8) -> Self {
        match (self, ip_version) {
            (Self::Number(6), _) => Self::Tcp,
            (Self::Number(17), _) => Self::Udp,
            (Self::Number(1), 4) | (Self::Number(58), 6) => Self::Icmp,
            _ => self,
        }
    }

    /// Whether rules name ports of it.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl FromStr for RuleProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match (text, is_number.then(|| text.parse().ok()).flatten()) {
            ("ALL", _) => Ok(Self::All),
            ("TCP", _) => Ok(Self::Tcp),
            ("UDP", _) => Ok(Self::Udp),
            ("ICMP", _) => Ok(Self::Icmp),
            (_, Some(number)) => Ok(Self::Number(number)),
            (_, None) => {
                Err(format!("\"{text}\" is not ALL, TCP, UDP, ICMP or a number up to 255"))
            }
        }
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::Tcp => f.write_str("TCP"),
            Self::Udp => f.write_str("UDP"),
            Self::Icmp => f.write_str("ICMP"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl Serialize for RuleProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RuleProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl FieldValue for RuleProtocol {
    const TYPE: FieldType = FieldType::Text;
}

impl Readable for RuleProtocol {
    fn plain(&self) -> Plain<'_> {
        Plain::Text(self.to_string().into())
    }
}

/// Which connections pass, and which do not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/security-groups/rules", also, messages)]
pub struct SecurityGroupRule {
    /// Its id.
    pub uuid: Id<SecurityGroupRule>,
    /// The group.
    #[field(on_delete = "cascade", part)]
    pub security_group_uuid: Id<SecurityGroup>,
    /// Its number in the data plane, by which hosts name the rule that decided; never reused.
    #[field(hidden)]
    pub number: u32,
    /// Who opens the connections.
    #[serde(rename = "type")]
    pub rule_type: RuleType,
    /// 4 or 6: their family.
    pub ip_version: u8,
    /// Their protocol.
    pub protocol: RuleProtocol,
    /// One that is disabled is passed over.
    pub state: EnableState,
    /// Its place among the group's rules of its type: 0 for default rules, which are asked first; then 1,
    /// and no place is empty.
    pub priority: u32,
    /// Free text.
    pub description: Option<String>,
    /// From where: addresses, networks and `first-last`, 10 at most; from anywhere if absent.
    pub src_ip_range: Option<String>,
    /// To where, likewise.
    pub dst_ip_range: Option<String>,
    /// To which ports: `22,80-90`, 10 at most; to any if absent.
    pub dst_port_range: Option<String>,
    /// What becomes of them.
    pub action: RuleAction,
    /// The group whose members are at the other end.
    #[field(on_delete = "refuse")]
    pub remote_security_group_uuid: Option<Id<SecurityGroup>>,
    /// The addresses at the other end.
    #[field(on_delete = "refuse")]
    pub remote_address_group_uuid: Option<Id<AddressGroup>>,
    /// The type of ICMP; any if absent.
    pub icmp_type: Option<u8>,
    /// Its code; any if absent.
    pub icmp_code: Option<u8>,
}

/// Who is at the other end of the connections that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Anybody.
    Any,
    /// Who has an address in one of these spans.
    Addresses(Vec<AddressSpan>),
    /// The members of a group.
    Group(Id<SecurityGroup>),
    /// Who has an address of an address group: [`AddressGroup::spans`] of the rule's family. Of a group
    /// without any it is nobody.
    AddressGroup(Id<AddressGroup>),
}

impl SecurityGroupRule {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &AddSecurityGroupRule::DEF,
        &DeleteSecurityGroupRule::DEF,
        &ChangeSecurityGroupRule::DEF,
        &ChangeSecurityGroupRuleState::DEF,
        &UpdateSecurityGroupRulePriority::DEF,
        &ValidateSecurityGroupRule::DEF,
    ];

    /// The spans of what packets have in the place of ports: destination ports of TCP and UDP; type and
    /// code of ICMP, `type << 8 | code`. None: every one.
    #[must_use]
    pub fn ports(&self) -> Vec<PortSpan> {
        match (self.icmp_type, self.icmp_code, &self.dst_port_range) {
            (Some(icmp), code, _) => {
                let first = u16::from(icmp) << 8;
                let span = |code| (first | u16::from(code), first | u16::from(code));
                vec![code.map_or((first, first | 0xff), span)]
            }
            (None, _, Some(list)) => spans::ports(list).unwrap_or_default(),
            (None, _, None) => Vec::new(),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn remote(&self) -> Remote {
        let range = match self.rule_type {
            RuleType::Ingress => &self.src_ip_range,
            RuleType::Egress => &self.dst_ip_range,
        };
        match (self.remote_security_group_uuid, self.remote_address_group_uuid, range) {
            (Some(group), ..) => Remote::Group(group),
            (None, Some(group), _) => Remote::AddressGroup(group),
            (None, None, Some(list)) => {
                Remote::Addresses(spans::addresses(list, self.ip_version).unwrap_or_default())
            }
            (None, None, None) => Remote::Any,
        }
    }

    /// The number of its protocol; `None`: every one.
    #[must_use]
    pub const fn protocol_number(&self) -> Option<u8> {
        self.protocol.number(self.ip_version)
    }

    /// Whether it came with its group.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.priority == 0
    }

    /// The forms of ZStack before 5: the first span of ports, and one network.
    const ALSO: &'static [Column] = &[
        Column::computed(
            FieldDef::of::<Option<u16>>("startPort", "The first port; -1 for every one."),
            |record| Self::port(record, |(first, _)| first),
        ),
        Column::computed(
            FieldDef::of::<Option<u16>>(
                "endPort",
                "The last port of the first span; -1 for every one.",
            ),
            |record| Self::port(record, |(_, last)| last),
        ),
        Column::computed(
            FieldDef::of::<Option<String>>(
                "allowedCidr",
                "The addresses at the other end, if they are in it as such: `0.0.0.0/0` or `::/0` for every one.",
            ),
            |record| Self::of(record).map_or(Plain::Null, Self::allowed),
        ),
    ];

    fn port(record: &Record, of: impl Fn(PortSpan) -> u16) -> Plain<'_> {
        let Some(rule) = Self::of(record) else { return Plain::Null };
        let span = rule
            .protocol
            .has_ports()
            .then(|| rule.ports())
            .and_then(|ports| ports.first().copied());
        Plain::Integer(span.map_or(-1, |span| of(span).into()))
    }

    fn allowed(&self) -> Plain<'_> {
        match (self.remote(), self.ip_version) {
            (Remote::Any, 6) => Plain::word("::/0"),
            (Remote::Any, _) => Plain::word("0.0.0.0/0"),
            (Remote::Addresses(spans), _) => Plain::Text(spans::show_addresses(&spans).into()),
            (Remote::Group(_) | Remote::AddressGroup(_), _) => Plain::Null,
        }
    }
}

/// Adds rules to a security group: all of them or none.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/security-groups/{securityGroupUuid}/rules")]
pub struct AddSecurityGroupRule {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The rules: `[{"type": "Ingress", "protocol": "TCP", "dstPortRange": "22,80-90", "srcIpRange":
    /// "10.0.0.0/8"}]`; further `state`, `description`, `ipVersion`, `dstIpRange`, `action`,
    /// `remoteSecurityGroupUuid`, `remoteAddressGroupUuid`, `icmpType`, `icmpCode`, and the older
    /// `allowedCidr`, `startPort`, `endPort`.
    #[field(required, max_len = 20000)]
    pub rules: Vec<Value>,
    /// Each rule once for each of these groups, as its remote.
    #[serde(default)]
    #[field(max_len = 100)]
    pub remote_security_group_uuids: Vec<Id<SecurityGroup>>,
    /// The place of the first of each type, from 1; those from there on move up. After all others if
    /// absent or -1.
    #[field(range = "-1..=10000")]
    pub priority: Option<i64>,
}

/// A rule as a message has it: ZStack's `SecurityGroupRuleAO`, and what Neutron has beside it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields of `SecurityGroupRule`, and of ZStack's older form")]
pub struct RuleParam {
    #[serde(rename = "type")]
    pub rule_type: RuleType,
    pub state: Option<EnableState>,
    pub description: Option<String>,
    pub remote_security_group_uuid: Option<Id<SecurityGroup>>,
    pub remote_address_group_uuid: Option<Id<AddressGroup>>,
    pub ip_version: Option<u8>,
    pub protocol: String,
    pub src_ip_range: Option<String>,
    pub dst_ip_range: Option<String>,
    pub src_port_range: Option<String>,
    pub dst_port_range: Option<String>,
    pub action: Option<RuleAction>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
    pub allowed_cidr: Option<String>,
    pub start_port: Option<i64>,
    pub end_port: Option<i64>,
}

/// The place that a rule is to have: ZStack's `SecurityGroupRulePriorityAO`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleRank {
    /// The rule.
    pub rule_uuid: Id<SecurityGroupRule>,
    /// Its priority.
    pub priority: u32,
}

/// Deletes rules of one security group. Those behind them move down.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/security-groups/rules")]
pub struct DeleteSecurityGroupRule {
    /// The rules. One that is not there is gone already.
    #[field(required, max_len = 20000)]
    pub rule_uuids: Vec<Uuid>,
}

/// Changes a rule. Of a default rule only the description and the state change. A remote that is named
/// takes the place of the one that was there, of whatever form; with a protocol that has no ports they
/// are gone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/security-groups/rules/{uuid}/actions", action = "changeSecurityGroupRule")]
pub struct ChangeSecurityGroupRule {
    /// The rule.
    pub uuid: Id<SecurityGroupRule>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// The group whose members are at the other end, or none.
    #[serde(default)]
    pub remote_security_group_uuid: Update<Id<SecurityGroup>>,
    /// The addresses at the other end, or none.
    #[serde(default)]
    pub remote_address_group_uuid: Update<Id<AddressGroup>>,
    /// What becomes of the connections.
    pub action: Option<RuleAction>,
    /// Whether it counts.
    pub state: Option<EnableState>,
    /// Its place, from 1; -1: the last. Those between move.
    #[field(range = "-1..=10000")]
    pub priority: Option<i64>,
    /// The protocol: ALL, TCP, UDP, ICMP or a number.
    #[field(max_len = 16)]
    pub protocol: Option<String>,
    /// From where, or from anywhere.
    #[serde(default)]
    #[field(max_len = 1024)]
    pub src_ip_range: Update<String>,
    /// To where, or to anywhere.
    #[serde(default)]
    #[field(max_len = 1024)]
    pub dst_ip_range: Update<String>,
    /// To which ports.
    #[serde(default)]
    #[field(max_len = 1024)]
    pub dst_port_range: Update<String>,
    /// The type of ICMP, or any.
    #[serde(default)]
    #[field(range = "0..=255")]
    pub icmp_type: Update<u8>,
    /// Its code, or any.
    #[serde(default)]
    #[field(range = "0..=255")]
    pub icmp_code: Update<u8>,
}

/// Enables or disables rules of a security group.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/security-groups/{securityGroupUuid}/rules/state/actions",
    action = "changeSecurityGroupRuleState"
)]
pub struct ChangeSecurityGroupRuleState {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The rules, one of which at least has another state.
    #[field(required, max_len = 20000)]
    pub rule_uuids: Vec<Uuid>,
    /// The state.
    pub state: EnableState,
}

/// Puts the rules of a security group into another order.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/security-groups/{securityGroupUuid}/rules/priority/actions",
    action = "updateSecurityGroupRulePriority"
)]
pub struct UpdateSecurityGroupRulePriority {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// Of which rules.
    #[serde(rename = "type")]
    pub rule_type: RuleType,
    /// All of them but the default rules: `[{"ruleUuid": "..", "priority": 1}]`.
    #[field(required, max_len = 10000)]
    pub rules: Vec<Value>,
}

/// Tells whether a rule could be added to a security group, and if not, why.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/security-groups/{securityGroupUuid}/rules/validation", answer = "now")]
pub struct ValidateSecurityGroupRule {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// Who opens the connections.
    #[serde(rename = "type")]
    pub rule_type: RuleType,
    /// The protocol: ALL, TCP, UDP, ICMP or a number.
    #[field(max_len = 16)]
    pub protocol: String,
    /// The group whose members are at the other end.
    pub remote_security_group_uuid: Option<Id<SecurityGroup>>,
    /// The addresses at the other end.
    pub remote_address_group_uuid: Option<Id<AddressGroup>>,
    /// 4 or 6.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
    /// From where.
    #[field(max_len = 1024)]
    pub src_ip_range: Option<String>,
    /// To where.
    #[field(max_len = 1024)]
    pub dst_ip_range: Option<String>,
    /// To which ports.
    #[field(max_len = 1024)]
    pub dst_port_range: Option<String>,
    /// What becomes of the connections.
    pub action: Option<RuleAction>,
    /// The older form of ports: the first.
    #[field(range = "-1..=65535")]
    pub start_port: Option<i64>,
    /// The last.
    #[field(range = "-1..=65535")]
    pub end_port: Option<i64>,
    /// The older form of addresses.
    #[field(max_len = 1024)]
    pub allowed_cidr: Option<String>,
    /// The type of ICMP.
    #[field(range = "0..=255")]
    pub icmp_type: Option<u8>,
    /// Its code.
    #[field(range = "0..=255")]
    pub icmp_code: Option<u8>,
}
