//! EC2's tree, and with it ZStack's, which has a part of its paths.
//!
//! A directory lists its entries, one a line, with a slash behind those that are directories; with or
//! without a slash behind its own path.
//!
//! Source: AWS, "Instance metadata categories".

use std::net::IpAddr;

use serde_json::json;
use wire::object::{Port, Prefix};

use super::{BYTES, JSON, TEXT, View, mac};
use crate::directory::contains;

/// All that clients are known to ask for; they find the same in each.
const VERSIONS: [&str; 26] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-03-23",
    "2021-07-15",
    "latest",
];

/// A file, or a directory with its entries: name, how it is listed, what it is.
enum Node {
    File(&'static str, Vec<u8>),
    Directory(Vec<(String, String, Self)>),
}

/// What is at a path: its kind and its bytes.
pub(super) fn find(view: &View<'_>, path: &[&str]) -> Option<(&'static str, Vec<u8>)> {
    let Some((version, rest)) = path.split_first() else {
        return Some((TEXT, VERSIONS.join("\n").into_bytes()));
    };
    if !VERSIONS.contains(version) {
        return None;
    }
    let mut node = tree(view);
    for part in rest {
        let Node::Directory(entries) = node else { return None };
        node = entries.into_iter().find(|(name, ..)| name == part)?.2;
    }
    Some(match node {
        Node::File(kind, bytes) => (kind, bytes),
        Node::Directory(entries) => {
            let lines: Vec<_> = entries.into_iter().map(|(_, line, _)| line).collect();
            (TEXT, lines.join("\n").into_bytes())
        }
    })
}

fn directory(entries: impl IntoIterator<Item = (String, Node)>) -> Node {
    let listed = entries.into_iter().map(|(name, node)| {
        let line = match node {
            Node::File(..) => name.clone(),
            Node::Directory(_) => format!("{name}/"),
        };
        (name, line, node)
    });
    Node::Directory(listed.collect())
}

fn text(name: &str, content: impl Into<String>) -> (String, Node) {
    (name.to_owned(), Node::File(TEXT, content.into().into_bytes()))
}

fn below(name: &str, entries: impl IntoIterator<Item = (String, Node)>) -> (String, Node) {
    (name.to_owned(), directory(entries))
}

fn tree(view: &View<'_>) -> Node {
    let mut entries = vec![
        below("dynamic", [below("instance-identity", [identity(view)])]),
        below("meta-data", meta_data(view)),
    ];
    if let Some(user_data) = &view.about.user_data {
        entries.push(("user-data".to_owned(), Node::File(BYTES, user_data.0.clone())));
    }
    directory(entries)
}

/// The document; EC2 signs it too, with keys that nobody has here.
fn identity(view: &View<'_>) -> (String, Node) {
    let ip = view.main_nic().and_then(first_ipv4).map(|ip| ip.to_string());
    let document = json!({
        "accountId": view.about.account.simple().to_string(),
        "availabilityZone": view.about.zone,
        "instanceId": view.instance_id(),
        "instanceType": view.about.offering,
        "imageId": image(view),
        "privateIp": ip,
        "region": view.about.zone,
        "version": "2017-09-30",
    });
    let bytes = serde_json::to_vec_pretty(&document).unwrap_or_default();
    ("document".to_owned(), Node::File(JSON, bytes))
}

fn image<'a>(view: &View<'a>) -> Option<&'a str> {
    let machine = view.directory.instance(view.about.uuid)?.machine.as_ref()?;
    Some(&machine.image)
}

fn meta_data(view: &View<'_>) -> Vec<(String, Node)> {
    let about = view.about;
    let mut entries = vec![
        text("hostname", &*about.hostname),
        text("instance-action", "none"),
        text("instance-id", view.instance_id()),
        text("instance-type", &*about.offering),
        text("local-hostname", &*about.hostname),
    ];
    entries.extend(image(view).map(|image| text("ami-id", image)));
    if let Some(nic) = view.main_nic() {
        entries.push(text("mac", mac(nic.mac)));
        entries.extend(first_ipv4(nic).map(|ip| text("local-ipv4", ip.to_string())));
        let first_ipv6 = ips(nic, false).next();
        entries.extend(first_ipv6.map(|ip| text("ipv6", ip.to_string())));
    }
    let macs = view.nics.iter().map(|nic| below(&mac(nic.mac), interface(view, nic)));
    entries.push(below("network", [below("interfaces", [below("macs", macs)])]));
    let zone = text("availability-zone", &*about.zone);
    entries.push(below("placement", [zone, text("region", &*about.zone)]));
    if !about.ssh_keys.is_empty() {
        entries.push(("public-keys".to_owned(), keys(view)));
    }
    if !about.tags.is_empty() {
        let tags = about.tags.iter().map(|tag| super::openstack::pair(tag));
        // A slash would be another path.
        let tags = tags.filter(|(name, _)| !name.is_empty() && !name.contains('/'));
        entries
            .push(below("tags", [below("instance", tags.map(|(name, value)| text(name, value)))]));
    }
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    entries
}

/// Listed by number and name, read by number.
fn keys(view: &View<'_>) -> Node {
    let keys = view.about.ssh_keys.iter().enumerate().map(|(number, key)| {
        let node = directory([text("openssh-key", format!("{}\n", key.key.trim_end()))]);
        let name: String = key.name.chars().filter(|c| !c.is_control()).collect();
        (number.to_string(), format!("{number}={name}"), node)
    });
    Node::Directory(keys.collect())
}

fn interface(view: &View<'_>, nic: &Port) -> Vec<(String, Node)> {
    let lines = |is_ipv4| ips(nic, is_ipv4).map(|ip| ip.to_string()).collect::<Vec<_>>().join("\n");
    let mut entries = vec![
        text("device-number", nic.device_id.to_string()),
        text("interface-id", nic.uuid.simple().to_string()),
        text("mac", mac(nic.mac)),
        text("owner-id", view.about.account.simple().to_string()),
    ];
    if let Some(name) = nic.told.as_ref().and_then(|told| told.hostname.as_deref()) {
        entries.push(text("local-hostname", name));
    }
    let subnet = nic.addresses.iter().find_map(|address| address.subnet);
    entries.extend(subnet.map(|uuid| text("subnet-id", uuid.simple().to_string())));
    for (is_ipv4, names) in [
        (true, ["local-ipv4s", "subnet-ipv4-cidr-block"]),
        (false, ["ipv6s", "subnet-ipv6-cidr-blocks"]),
    ] {
        if let Some(address) = nic.addresses.iter().find(|address| address.ip.is_ipv4() == is_ipv4)
        {
            entries.push(text(names[0], lines(is_ipv4)));
            let network = network(address.ip, address.prefix_bits);
            entries.push(text(names[1], format!("{network}/{}", address.prefix_bits)));
        }
    }
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    entries
}

fn ips(nic: &Port, is_ipv4: bool) -> impl Iterator<Item = IpAddr> {
    nic.addresses.iter().map(|address| address.ip).filter(move |ip| ip.is_ipv4() == is_ipv4)
}

fn first_ipv4(nic: &Port) -> Option<IpAddr> {
    ips(nic, true).next()
}

/// The lowest address with the same first bits.
pub(super) fn network(ip: IpAddr, bits: u8) -> IpAddr {
    let network = match ip {
        IpAddr::V4(v4) => {
            let rest = u32::MAX.checked_shr(bits.into()).unwrap_or_default();
            IpAddr::from((v4.to_bits() & !rest).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let rest = u128::MAX.checked_shr(bits.into()).unwrap_or_default();
            IpAddr::from((v6.to_bits() & !rest).to_be_bytes())
        }
    };
    debug_assert!(contains(&Prefix { ip: network, bits }, ip), "{ip}/{bits}");
    network
}
