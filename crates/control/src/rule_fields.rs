//! What a rule of a security group says, as messages have it, and whether it makes sense: ZStack's rules
//! (`SecurityGroupApiInterceptor`), with its codes.

use model::{
    Code, Error, Id, Result,
    resource::{
        address_group::AddressGroup,
        security_group::SecurityGroup,
        security_group_rule::{
            Remote, RuleAction, RuleParam, RuleProtocol, RuleType, SecurityGroupRule,
            ValidateSecurityGroupRule,
        },
        zone::EnableState,
    },
    spans::{self, AddressSpan, PortSpan},
};
use serde_json::Value;

/// Longest description, as of other resources.
const DESCRIPTION_MAX: usize = 2048;

/// A rule of ZStack's that is broken, with its code for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    field: &'static str,
    rule: String,
}

/// `SecurityGroupErrors` of ZStack.
pub(crate) const DUPLICATE: &str = "SG.1002";
const CONFLICT: &str = "SG.1003";
const UNSUPPORTED: &str = "SG.1004";
const PORT: &str = "SG.1005";
const IP: &str = "SG.1006";

impl Fault {
    pub(crate) const fn new(code: &'static str, field: &'static str, rule: String) -> Self {
        Self { code, field, rule }
    }

    /// The refusal of a message whose field `field` has the rule in place `at`.
    pub(crate) fn of_list(self, field: &str, at: usize) -> Error {
        Error::field(field, format!("entry {at}: {}: {}", self.field, self.rule)).hint(HINT)
    }

    /// The refusal of a message that has the field itself.
    pub(crate) fn of_field(self) -> Error {
        Error::field(self.field, self.rule).hint(HINT)
    }

    /// What is wrong.
    pub(crate) fn reason(&self) -> String {
        format!("{}: {}", self.field, self.rule)
    }
}

const HINT: &str = r#"such as {"type":"Ingress","protocol":"TCP","dstPortRange":"22,80-90","srcIpRange":"10.0.0.0/8"}; Ingress has srcIpRange, Egress dstIpRange, ICMP icmpType and icmpCode"#;

/// Reads the rule in place `at` of a message's field `rules`.
pub(crate) fn read(at: usize, entry: &Value) -> Result<RuleParam> {
    serde_json::from_value(entry.clone())
        .map_err(|cause| Error::field("rules", format!("entry {at}: {cause}")).hint(HINT))
}

/// The rule that is to be validated.
pub(crate) fn of_message(message: ValidateSecurityGroupRule) -> RuleParam {
    RuleParam {
        rule_type: message.rule_type,
        state: None,
        description: None,
        remote_security_group_uuid: message.remote_security_group_uuid,
        remote_address_group_uuid: message.remote_address_group_uuid,
        ip_version: message.ip_version,
        protocol: message.protocol,
        src_ip_range: message.src_ip_range,
        dst_ip_range: message.dst_ip_range,
        src_port_range: None,
        dst_port_range: message.dst_port_range,
        action: message.action,
        icmp_type: message.icmp_type,
        icmp_code: message.icmp_code,
        allowed_cidr: message.allowed_cidr,
        start_port: message.start_port,
        end_port: message.end_port,
    }
}

/// The ids and the place of a rule.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) uuid: Id<SecurityGroupRule>,
    pub(crate) group: Id<SecurityGroup>,
    pub(crate) number: u32,
    pub(crate) priority: u32,
}

/// The rule that a message wants; `family`: of one that names none.
pub(crate) fn rule(
    wanted: RuleParam,
    family: u8,
    place: Place,
) -> std::result::Result<SecurityGroupRule, Fault> {
    let wanted = modern(wanted)?;
    let remotes = one_remote(&wanted)?;
    let ip_version = family_of(&wanted, remotes, family)?;
    let protocol: RuleProtocol =
        wanted.protocol.parse().map_err(|rule| Fault::new(UNSUPPORTED, "protocol", rule))?;
    let protocol = protocol.named(ip_version);
    let range = |field, list: Option<&String>| {
        let Some(list) = list else { return Ok(None) };
        let spans =
            spans::addresses(list, ip_version).map_err(|rule| Fault::new(IP, field, rule))?;
        Ok(Some(spans::show_addresses(&spans)))
    };
    check_icmp(&wanted, protocol)?;
    if wanted.description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_MAX) {
        let rule = format!("is over {DESCRIPTION_MAX} characters long");
        return Err(Fault::new(UNSUPPORTED, "description", rule));
    }
    Ok(SecurityGroupRule {
        uuid: place.uuid,
        security_group_uuid: place.group,
        number: place.number,
        rule_type: wanted.rule_type,
        ip_version,
        protocol,
        state: wanted.state.unwrap_or(EnableState::Enabled),
        priority: place.priority,
        src_ip_range: range("srcIpRange", wanted.src_ip_range.as_ref())?,
        dst_ip_range: range("dstIpRange", wanted.dst_ip_range.as_ref())?,
        dst_port_range: ports(&wanted, protocol)?,
        description: wanted.description,
        action: wanted.action.unwrap_or(RuleAction::Accept),
        remote_security_group_uuid: wanted.remote_security_group_uuid,
        remote_address_group_uuid: wanted.remote_address_group_uuid,
        icmp_type: wanted.icmp_type,
        icmp_code: wanted.icmp_code,
    })
}

/// The same without the forms of ZStack before 5.
fn modern(mut wanted: RuleParam) -> std::result::Result<RuleParam, Fault> {
    for list in [
        &mut wanted.src_ip_range,
        &mut wanted.dst_ip_range,
        &mut wanted.src_port_range,
        &mut wanted.allowed_cidr,
    ] {
        // Clients send empty texts for what they do not set.
        list.take_if(|list| list.is_empty());
    }
    if wanted.src_port_range.is_some() {
        let rule = "nothing is decided by the port that a connection comes from".to_owned();
        return Err(Fault::new(UNSUPPORTED, "srcPortRange", rule));
    }
    let cidr = wanted.allowed_cidr.take();
    if let Some(cidr) = cidr.filter(|cidr| !["0.0.0.0/0", "::/0"].contains(&cidr.as_str())) {
        let (field, range) = match wanted.rule_type {
            RuleType::Ingress => ("srcIpRange", &mut wanted.src_ip_range),
            RuleType::Egress => ("dstIpRange", &mut wanted.dst_ip_range),
        };
        if range.is_some() {
            let rule = format!("and {field} are two forms of the same: send {field} alone");
            return Err(Fault::new(CONFLICT, "allowedCidr", rule));
        }
        *range = Some(cidr);
    }
    match (wanted.start_port.take(), wanted.end_port.take()) {
        (None | Some(-1), None | Some(-1)) => {}
        (start, end) => {
            let list = old_ports(&wanted, start.unwrap_or(-1), end.unwrap_or(-1))?;
            wanted.dst_port_range = Some(list);
        }
    }
    Ok(wanted)
}

fn old_ports(wanted: &RuleParam, start: i64, end: i64) -> std::result::Result<String, Fault> {
    let wrong = |code, rule: String| Err(Fault::new(code, "startPort", rule));
    if !has_ports(&wanted.protocol) {
        return wrong(PORT, format!("and endPort are -1 for {}", wanted.protocol));
    }
    if wanted.dst_port_range.is_some() {
        return wrong(CONFLICT, "and dstPortRange are two forms of the same".to_owned());
    }
    match (u16::try_from(start), u16::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => Ok(spans::show_ports(&[(start, end)])),
        (Ok(_), Ok(_)) => wrong(PORT, format!("{start} is behind endPort, {end}")),
        _ => wrong(PORT, format!("{start} to {end} is not within 0 to 65535")),
    }
}

fn has_ports(protocol: &str) -> bool {
    protocol.parse().is_ok_and(|protocol: RuleProtocol| protocol.named(4).has_ports())
}

/// The addresses at the other end, if that is how it is given: of all forms there is one.
fn one_remote(wanted: &RuleParam) -> std::result::Result<Option<&String>, Fault> {
    let (own, other, wrong) = match wanted.rule_type {
        RuleType::Ingress => (&wanted.src_ip_range, &wanted.dst_ip_range, "dstIpRange"),
        RuleType::Egress => (&wanted.dst_ip_range, &wanted.src_ip_range, "srcIpRange"),
    };
    if other.is_some() {
        let (code, kind) = (UNSUPPORTED, wanted.rule_type.as_str());
        return Err(Fault::new(code, wrong, format!("is for the other type: this is {kind}")));
    }
    let given = [
        own.is_some(),
        wanted.remote_security_group_uuid.is_some(),
        wanted.remote_address_group_uuid.is_some(),
    ];
    if given.into_iter().filter(|is_given| *is_given).count() > 1 {
        let rule =
            "of addresses, remoteSecurityGroupUuid and remoteAddressGroupUuid a rule has one";
        return Err(Fault::new(CONFLICT, "remoteSecurityGroupUuid", rule.to_owned()));
    }
    Ok(own.as_ref())
}

/// The family: what is said, else that of the addresses, else the group's.
fn family_of(
    wanted: &RuleParam,
    remotes: Option<&String>,
    family: u8,
) -> std::result::Result<u8, Fault> {
    let first = remotes.and_then(|list| list.split(',').next());
    let first = first.and_then(|item| spans::address_span(item.trim()).ok());
    let of_addresses = first.map(|(first, _)| spans::version(first));
    match wanted.ip_version.or(of_addresses).unwrap_or(family) {
        version @ (4 | 6) => Ok(version),
        other => Err(Fault::new(IP, "ipVersion", format!("{other} is neither 4 nor 6"))),
    }
}

fn ports(wanted: &RuleParam, protocol: RuleProtocol) -> std::result::Result<Option<String>, Fault> {
    const FIELD: &str = "dstPortRange";
    match (&wanted.dst_port_range, protocol.has_ports()) {
        (Some(list), true) => {
            let spans = spans::ports(list).map_err(|rule| Fault::new(PORT, FIELD, rule))?;
            Ok(Some(spans::show_ports(&spans)))
        }
        (None, true) => {
            let rule = format!("is needed with {protocol}; 0-65535 is every port");
            Err(Fault::new(PORT, FIELD, rule))
        }
        (Some(list), false) if !list.is_empty() => {
            let rule = format!("is for TCP and UDP: {protocol} has no ports");
            Err(Fault::new(UNSUPPORTED, FIELD, rule))
        }
        (_, false) => Ok(None),
    }
}

fn check_icmp(wanted: &RuleParam, protocol: RuleProtocol) -> std::result::Result<(), Fault> {
    match (wanted.icmp_type, wanted.icmp_code, protocol) {
        (None, None, _) | (Some(_), _, RuleProtocol::Icmp) => Ok(()),
        (None, Some(_), RuleProtocol::Icmp) => {
            Err(Fault::new(CONFLICT, "icmpCode", "needs icmpType".to_owned()))
        }
        _ => {
            let rule = format!("is for ICMP, and this is {protocol}");
            Err(Fault::new(UNSUPPORTED, "icmpType", rule))
        }
    }
}

/// The rule as a message would have it, for one that changes it.
pub(crate) fn of_rule(rule: &SecurityGroupRule) -> RuleParam {
    RuleParam {
        rule_type: rule.rule_type,
        state: Some(rule.state),
        description: rule.description.clone(),
        remote_security_group_uuid: rule.remote_security_group_uuid,
        remote_address_group_uuid: rule.remote_address_group_uuid,
        ip_version: Some(rule.ip_version),
        protocol: rule.protocol.to_string(),
        src_ip_range: rule.src_ip_range.clone(),
        dst_ip_range: rule.dst_ip_range.clone(),
        src_port_range: None,
        dst_port_range: rule.dst_port_range.clone(),
        action: Some(rule.action),
        icmp_type: rule.icmp_type,
        icmp_code: rule.icmp_code,
        allowed_cidr: None,
        start_port: None,
        end_port: None,
    }
}

/// What a rule decides, whichever way it is written. Two rules of a group that agree in it are one too
/// many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Meaning {
    rule_type: RuleType,
    ip_version: u8,
    protocol: RuleProtocol,
    action: RuleAction,
    ports: Vec<PortSpan>,
    addresses: Vec<AddressSpan>,
    groups: (Option<Id<SecurityGroup>>, Option<Id<AddressGroup>>),
}

impl Meaning {
    pub(crate) fn of(rule: &SecurityGroupRule) -> Self {
        let (mut ports, mut addresses) = (rule.ports(), Vec::new());
        if let Remote::Addresses(spans) = rule.remote() {
            addresses = spans;
        }
        ports.sort_unstable();
        addresses.sort_unstable();
        if ["0.0.0.0/0", "::/0"].contains(&spans::show_addresses(&addresses).as_str()) {
            addresses.clear();
        }
        Self {
            rule_type: rule.rule_type,
            ip_version: rule.ip_version,
            protocol: rule.protocol,
            action: rule.action,
            ports,
            addresses,
            groups: (rule.remote_security_group_uuid, rule.remote_address_group_uuid),
        }
    }
}

/// The refusal of rules that would be too many of one type.
pub(crate) fn too_many(rule_type: RuleType, count: usize, max: usize) -> Error {
    let text = format!("the group would have {count} {} rules, over {max}", rule_type.as_str());
    let hint = "delete some; an administrator may raise securityGroup/rules.num.limit";
    Error::new(Code::InvalidArgument, text).on_field("rules").hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn made(fields: Value) -> std::result::Result<SecurityGroupRule, String> {
        let place = Place {
            uuid: Id::new(Uuid::nil()),
            group: Id::new(Uuid::nil()),
            number: 1,
            priority: 1,
        };
        let wanted = read(0, &fields).map_err(|error| error.to_string())?;
        rule(wanted, 4, place).map_err(|fault| fault.code.to_owned())
    }

    #[test]
    fn the_older_form_is_the_newer_one() {
        let old = json!({"type": "Ingress", "protocol": "TCP", "startPort": 80, "endPort": 90,
            "allowedCidr": "10.0.0.0/8"});
        let new = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80-90",
            "srcIpRange": "10.0.0.0/8"});
        assert_eq!(made(old), made(new));
        let all = json!({"type": "Egress", "protocol": "ALL", "startPort": -1, "endPort": -1,
            "allowedCidr": "0.0.0.0/0"});
        assert_eq!(made(all).unwrap().remote(), Remote::Any);
    }

    #[test]
    fn each_fault_has_the_code_that_zstack_gives_it() {
        let id = "00000000000000000000000000000001";
        for (fields, code) in [
            (json!({"protocol": "TCP"}), PORT),
            (json!({"protocol": "TCP", "dstPortRange": "90-80"}), PORT),
            (json!({"protocol": "TCP", "startPort": 90, "endPort": 80}), PORT),
            (json!({"protocol": "TCP", "startPort": 90}), PORT),
            (json!({"protocol": "ICMP", "startPort": 8, "endPort": 0}), PORT),
            (json!({"protocol": "ICMP", "dstPortRange": "80"}), UNSUPPORTED),
            (json!({"protocol": "132", "dstPortRange": "80"}), UNSUPPORTED),
            (json!({"protocol": "ALL", "dstPortRange": "80"}), UNSUPPORTED),
            (json!({"protocol": "256"}), UNSUPPORTED),
            (json!({"protocol": "tcp", "dstPortRange": "80"}), UNSUPPORTED),
            (json!({"protocol": "ALL", "dstIpRange": "10.0.0.1"}), UNSUPPORTED),
            (json!({"protocol": "ALL", "icmpType": 8}), UNSUPPORTED),
            (json!({"protocol": "ICMP", "icmpCode": 0}), CONFLICT),
            (json!({"protocol": "ALL", "srcPortRange": "80"}), UNSUPPORTED),
            (json!({"protocol": "ALL", "srcIpRange": "10.0.0.1/8"}), IP),
            (json!({"protocol": "ALL", "srcIpRange": "10.0.0.9-10.0.0.1"}), IP),
            (json!({"protocol": "ALL", "srcIpRange": "fd00::1", "ipVersion": 4}), IP),
            (json!({"protocol": "ALL", "ipVersion": 5}), IP),
            (
                json!({"protocol": "ALL", "srcIpRange": "10.0.0.1", "allowedCidr": "10.0.0.0/8"}),
                CONFLICT,
            ),
            (
                json!({"protocol": "ALL", "srcIpRange": "10.0.0.1", "remoteSecurityGroupUuid": id}),
                CONFLICT,
            ),
            (
                json!({"protocol": "TCP", "dstPortRange": "1", "startPort": 1, "endPort": 1}),
                CONFLICT,
            ),
        ] {
            let mut fields = fields;
            fields["type"] = json!("Ingress");
            assert_eq!(made(fields.clone()), Err(code.to_owned()), "{fields}");
        }
    }

    #[test]
    fn what_is_no_field_and_what_is_no_word_is_refused() {
        for fields in [
            json!({"protocol": "ALL"}),
            json!({"type": "Ingress"}),
            json!({"type": "ingress", "protocol": "ALL"}),
            json!({"type": "Ingress", "protocol": "ALL", "action": "ALLOW"}),
            json!({"type": "Ingress", "protocol": "ALL", "icmpType": 256}),
            json!({"type": "Ingress", "protocol": "ALL", "port": 1}),
            json!([]),
            json!("rule"),
        ] {
            let error = made(fields.clone()).unwrap_err();
            assert!(error.contains("entry 0"), "{fields}: {error}");
        }
    }

    #[test]
    fn the_family_is_what_is_said_else_the_addresses_else_the_groups() {
        let of = |fields: Value| made(fields).unwrap().ip_version;
        assert_eq!(of(json!({"type": "Ingress", "protocol": "ALL"})), 4);
        assert_eq!(of(json!({"type": "Ingress", "protocol": "ALL", "ipVersion": 6})), 6);
        assert_eq!(of(json!({"type": "Ingress", "protocol": "58", "srcIpRange": "fd00::/8"})), 6);
    }

    #[test]
    fn rules_that_are_written_in_two_ways_mean_the_same() {
        let same =
            |a: Value, b: Value| Meaning::of(&made(a).unwrap()) == Meaning::of(&made(b).unwrap());
        assert!(same(
            json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80,22"}),
            json!({"type": "Ingress", "protocol": "6", "dstPortRange": "22, 80",
                "srcIpRange": "0.0.0.0/0", "description": "a"}),
        ));
        assert!(!same(
            json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80"}),
            json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "80", "action": "DROP"}),
        ));
    }
}
