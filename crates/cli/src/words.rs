//! The words of the command line: short nouns for what is queried, the columns of its tables, short
//! verbs for messages. What is not here gets its words by rule (`noun.rs`).

/// What people call the resources of one face.
pub(crate) struct Words {
    /// The face, such as `VmInstance`.
    pub(crate) face: &'static str,
    /// Its noun.
    pub(crate) noun: &'static str,
    /// Other nouns that mean the same.
    pub(crate) also: &'static [&'static str],
    /// The columns of its tables, in this order. A dot leads into a list.
    pub(crate) columns: &'static [&'static str],
}

const fn words(
    face: &'static str,
    noun: &'static str,
    also: &'static [&'static str],
    columns: &'static [&'static str],
) -> Words {
    Words { face, noun, also, columns }
}

/// In the order in which help lists them.
pub(crate) const WORDS: &[Words] = &[
    words("VmInstance", "vm", &["instance"], &["name", "state", "vmNics.ip", "hostUuid", "uuid"]),
    words(
        "VmNic",
        "nic",
        &["port"],
        &["ip", "mac", "state", "vmInstanceUuid", "l3NetworkUuid", "uuid"],
    ),
    words("Zone", "zone", &[], &["name", "state", "isDefault", "uuid"]),
    words("Cluster", "cluster", &[], &["name", "state", "hypervisorType", "zoneUuid", "uuid"]),
    words(
        "Host",
        "host",
        &["node"],
        &["name", "status", "synced", "state", "managementIp", "clusterUuid", "uuid"],
    ),
    words("L2Network", "l2", &[], &["name", "type", "virtualNetworkId", "zoneUuid", "uuid"]),
    words("L2VlanNetwork", "vlan", &[], &["name", "vlan", "physicalInterface", "uuid"]),
    words("L2VxlanNetwork", "vxlan", &[], &["name", "vni", "poolUuid", "uuid"]),
    words("L2VxlanNetworkPool", "pool", &[], &["name", "zoneUuid", "uuid"]),
    words("L2GreNetwork", "gre", &[], &["name", "vni", "poolUuid", "uuid"]),
    words("L2GreNetworkPool", "gre-pool", &[], &["name", "zoneUuid", "uuid"]),
    words("VniRange", "vnis", &["vni"], &["name", "startVni", "endVni", "l2NetworkUuid", "uuid"]),
    words("Vtep", "vtep", &[], &["vtepIp", "port", "hostUuid", "poolUuid", "uuid"]),
    words(
        "L3Network",
        "l3",
        &["network"],
        &["name", "state", "category", "ipRanges.networkCidr", "l2NetworkUuid", "uuid"],
    ),
    words(
        "IpRange",
        "range",
        &[],
        &["name", "startIp", "endIp", "networkCidr", "l3NetworkUuid", "uuid"],
    ),
    words(
        "ReservedIpRange",
        "reserved",
        &[],
        &["startIp", "endIp", "ipVersion", "l3NetworkUuid", "uuid"],
    ),
    words(
        "IpAddress",
        "ip",
        &["address"],
        &["ip", "state", "l3NetworkUuid", "ipRangeUuid", "vmNicUuid", "uuid"],
    ),
    words(
        "NetworkServiceProvider",
        "provider",
        &[],
        &["name", "type", "networkServiceTypes", "uuid"],
    ),
    words("Account", "account", &[], &["name", "type", "description", "uuid"]),
    words("User", "user", &[], &["name", "accountUuid", "description", "uuid"]),
    words("Quota", "quota", &[], &["name", "value", "identityUuid"]),
    words("AccessKey", "key", &[], &[]),
    words("SharedResource", "share", &["shared"], &[]),
    words("UserTag", "tag", &[], &["tag", "resourceType", "resourceUuid", "uuid"]),
    words("SystemTag", "system-tag", &[], &["tag", "resourceType", "resourceUuid", "uuid"]),
    words("GlobalConfig", "setting", &["config"], &["category", "name", "value", "defaultValue"]),
    words("Job", "job", &[], &["message", "state", "progress", "waitsFor", "createDate", "uuid"]),
    words("Audit", "audit", &[], &["createDate", "message", "outcome", "source", "accountUuid"]),
];

/// Verbs that the names of messages do not give, or give too long.
pub(crate) const VERBS: &[(&str, &str)] = &[
    ("CreateHostEnrolment", "enrol"),
    ("GetFreeIp", "free-ips"),
    ("GetIpAddressCapacity", "capacity"),
    ("CheckIpAvailability", "check"),
    ("GetL3NetworkIpStatistic", "addresses"),
    ("ChangeResourceOwner", "give"),
];

/// First words of a message's name that mean that something is made, or deleted.
pub(crate) const MAKES: &[&str] = &["create", "add"];
pub(crate) const DELETES: &[&str] = &["delete", "destroy"];

/// Fields whose values are the verbs of a message: `enable` and `disable` of a zone.
pub(crate) const EVENT: &str = "stateEvent";

/// Fields by which people name a resource that has no name.
pub(crate) const KEYS: &[&str] = &["name", "ip", "vtepIp"];
