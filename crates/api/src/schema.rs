//! `schema`: which Java class each object of an answer is, as ZStack tells it. Its Java SDK needs it to
//! choose among the types of a resource; all other clients pass it over.

use model::{Kind, shown::Shown};
use serde_json::{Map, Value};

/// ZStack's inventories: the kind, the value of its field `type` if classes differ by it, the package
/// and the class. Only what is netloom's [`OWN`] has none.
const CLASSES: &[(Kind, Option<&str>, &str, &str)] = &[
    (Kind::AccessKey, None, "org.zstack.accessKey", "AccessKey"),
    (Kind::Account, None, "org.zstack.header.identity", "Account"),
    (Kind::AccountResourceRef, None, "org.zstack.header.identity", "AccountResourceRef"),
    (Kind::Cluster, None, "org.zstack.header.cluster", "Cluster"),
    (Kind::Eip, None, "org.zstack.network.service.eip", "Eip"),
    (Kind::GlobalConfig, None, "org.zstack.core.config", "GlobalConfig"),
    (Kind::Host, None, "org.zstack.kvm", "KVMHost"),
    (Kind::Image, None, "org.zstack.header.image", "Image"),
    (Kind::InstanceOffering, None, "org.zstack.header.configuration", "InstanceOffering"),
    (Kind::IpRange, None, "org.zstack.header.network.l3", "IpRange"),
    (Kind::L2Network, Some("L2VlanNetwork"), "org.zstack.header.network.l2", "L2VlanNetwork"),
    (
        Kind::L2Network,
        Some("VxlanNetwork"),
        "org.zstack.network.l2.vxlan.vxlanNetwork",
        "L2VxlanNetwork",
    ),
    (
        Kind::L2Network,
        Some("VxlanNetworkPool"),
        "org.zstack.network.l2.vxlan.vxlanNetworkPool",
        "L2VxlanNetworkPool",
    ),
    (Kind::L2Network, None, "org.zstack.header.network.l2", "L2Network"),
    (Kind::L2NetworkClusterRef, None, "org.zstack.header.network.l2", "L2NetworkClusterRef"),
    (Kind::L3Network, None, "org.zstack.header.network.l3", "L3Network"),
    (Kind::L3NetworkHostRoute, None, "org.zstack.header.network.l3", "L3NetworkHostRoute"),
    (Kind::LongJob, None, "org.zstack.header.longjob", "LongJob"),
    (
        Kind::NetworkServiceL3NetworkRef,
        None,
        "org.zstack.header.network.service",
        "NetworkServiceL3NetworkRef",
    ),
    (
        Kind::NetworkServiceProvider,
        None,
        "org.zstack.header.network.service",
        "NetworkServiceProvider",
    ),
    (
        Kind::PortForwardingRule,
        None,
        "org.zstack.network.service.portforwarding",
        "PortForwardingRule",
    ),
    (Kind::Quota, None, "org.zstack.header.identity", "Quota"),
    (Kind::RemoteVtep, None, "org.zstack.network.l2.vxlan.vtep", "RemoteVtep"),
    (Kind::ReservedIpRange, None, "org.zstack.header.network.l3", "ReservedIpRange"),
    (Kind::ResourceConfig, None, "org.zstack.resourceconfig", "ResourceConfig"),
    (Kind::SecurityGroup, None, "org.zstack.network.securitygroup", "SecurityGroup"),
    (Kind::SecurityGroupRule, None, "org.zstack.network.securitygroup", "SecurityGroupRule"),
    (Kind::SharedResource, None, "org.zstack.header.identity", "SharedResource"),
    (Kind::SystemTag, None, "org.zstack.header.tag", "SystemTag"),
    (Kind::UsedIp, None, "org.zstack.header.network.l3", "UsedIp"),
    (Kind::User, None, "org.zstack.header.identity", "User"),
    (Kind::UserTag, None, "org.zstack.header.tag", "UserTag"),
    (Kind::Vip, None, "org.zstack.network.service.vip", "Vip"),
    (Kind::VmInstance, None, "org.zstack.header.vm", "VmInstance"),
    (Kind::VmNic, None, "org.zstack.header.vm", "VmNic"),
    (
        Kind::VmNicSecurityGroupRef,
        None,
        "org.zstack.network.securitygroup",
        "VmNicSecurityGroupRef",
    ),
    (Kind::VmNicSecurityPolicy, None, "org.zstack.network.securitygroup", "VmNicSecurityPolicy"),
    (Kind::VniRange, None, "org.zstack.network.l2.vxlan.vxlanNetworkPool", "VniRange"),
    (Kind::Vtep, None, "org.zstack.network.l2.vxlan.vtep", "Vtep"),
    (Kind::Webhook, None, "org.zstack.header.core.webhooks", "Webhook"),
    (Kind::Zone, None, "org.zstack.header.zone", "Zone"),
];

/// The kinds that people see and that are no inventory of ZStack's. Its audit is another product.
#[cfg(test)]
const OWN: &[Kind] = &[
    Kind::L2Realiser,
    Kind::L2Realisation,
    Kind::DhcpOption,
    Kind::AddressGroup,
    Kind::WebhookCall,
    Kind::Audit,
    Kind::Job,
];

/// An answer that shows resources of `kind` under `inventory` or `inventories`, with its schema; as it
/// is for no kind.
pub(crate) fn beside(mut answer: Value, kind: Option<Kind>) -> Value {
    let (Some(kind), Value::Object(shown)) = (kind, &mut answer) else { return answer };
    let mut schema = Map::new();
    if let Some(Value::Object(one)) = shown.get("inventory") {
        note(&mut schema, "inventory", kind, one);
    }
    if let Some(several) = shown.get("inventories") {
        note_all(&mut schema, "inventories", kind, several);
    }
    shown.insert("schema".to_owned(), schema.into());
    answer
}

fn note(schema: &mut Map<String, Value>, path: &str, kind: Kind, shown: &Map<String, Value>) {
    if let Some(class) = class(kind, shown.get("type").and_then(Value::as_str)) {
        schema.insert(path.to_owned(), class.into());
    }
    for child in kind.def().children.iter().filter(|child| child.shown != Shown::No) {
        if let Some(several) = shown.get(child.name) {
            note_all(schema, &format!("{path}.{}", child.name), child.kind, several);
        }
    }
}

fn note_all(schema: &mut Map<String, Value>, path: &str, kind: Kind, several: &Value) {
    for (at, shown) in several.as_array().into_iter().flatten().enumerate() {
        if let Value::Object(shown) = shown {
            note(schema, &format!("{path}[{at}]"), kind, shown);
        }
    }
}

/// The Java class of an inventory.
fn class(kind: Kind, of_type: Option<&str>) -> Option<String> {
    let fits = |(of, only, ..): &&(Kind, Option<&str>, &str, &str)| {
        *of == kind && only.is_none_or(|only| of_type == Some(only))
    };
    let (.., package, name) = CLASSES.iter().find(fits)?;
    Some(format!("{package}.{name}Inventory"))
}

/// Messages that are not in the package of what they are about.
const ELSEWHERE: &[(&str, &str)] = &[
    ("CreateL2VxlanNetwork", "org.zstack.network.l2.vxlan.vxlanNetwork"),
    ("CreateL2VxlanNetworkPool", "org.zstack.network.l2.vxlan.vxlanNetworkPool"),
    ("CreateVxlanPoolRemoteVtep", "org.zstack.network.l2.vxlan.vxlanNetworkPool"),
    ("DeleteVxlanPoolRemoteVtep", "org.zstack.network.l2.vxlan.vxlanNetworkPool"),
    ("DeleteHost", "org.zstack.header.host"),
    ("UpdateHost", "org.zstack.header.host"),
];

/// The Java package of a message: that of the inventories of its kind.
pub(crate) fn package(message: &str) -> &'static str {
    if let Some((_, package)) = ELSEWHERE.iter().find(|(name, _)| *name == message) {
        return package;
    }
    let is_about = |kind: Kind| kind.def().messages.iter().any(|def| def.name == message);
    let classes = CLASSES.iter().rev();
    let found = classes.clone().find(|(kind, ..)| is_about(*kind));
    found.map_or("org.zstack.netloom", |(_, _, package, _)| package)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn whatever_an_answer_shows_has_a_class_or_is_netlooms_own() {
        let shown = Kind::ALL.iter().filter(|kind| kind.def().is_shown());
        let children = Kind::ALL.iter().flat_map(|kind| kind.def().children);
        let children = children.filter(|child| child.shown != Shown::No).map(|child| child.kind);
        // A message may create what no query shows, and answer with it.
        let made = model::resource::messages().filter_map(|def| def.creates);
        let needed: BTreeSet<Kind> = shown.copied().chain(children).chain(made).collect();
        let without: Vec<_> =
            needed.into_iter().filter(|kind| class(*kind, None).is_none()).collect();
        assert_eq!(without, OWN);
    }

    #[test]
    fn a_kind_that_differs_by_type_has_a_class_for_the_others_last() {
        for (at, (kind, of_type, ..)) in CLASSES.iter().enumerate() {
            let later = CLASSES[at + 1..].iter().any(|(other, ..)| other == kind);
            assert_eq!(of_type.is_some(), later, "{kind:?} {of_type:?}");
        }
    }
}
