//! `netloom host list`, `show` and `counters`: what an operator wants to know of hosts, in words.

use client::Client;
use serde_json::Value;

use crate::{
    Error, names,
    noun::Noun,
    output::{Format, Manner},
    table::{self, harmless},
};

/// The verb that shows what hosts have dropped and how full they are.
pub(crate) const COUNTERS: &str = "counters";

/// The face whose list and fields are told here.
pub(crate) const FACE: &str = "Host";

/// What the list is made of.
const LISTED: &str = "uuid,name,status,statusSince,state,synced,notInEffect,refused,digests,\
    watermark,versions,maps,vteps,uplinks";

/// What the counters are made of.
const COUNTED: &str = "uuid,name,status,maps,drops,traffic";

const HEAD: [&str; 10] = [
    "NAME",
    "STATUS",
    "SINCE",
    "MODE",
    "AGREES",
    "BEHIND",
    "FULLEST MAP",
    "RELEASE",
    "VTEPS",
    "UPLINKS",
];

/// The conditions of a list, and what it is made of.
pub(crate) fn listed(mut pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.push(("fields".to_owned(), LISTED.to_owned()));
    pairs
}

/// A line for each host.
pub(crate) fn list(rows: &[Value], screen: table::Screen) -> String {
    let head = HEAD.map(str::to_owned);
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    table::draw(&head, &lines, screen)
}

fn line(host: &Value) -> Vec<String> {
    let fullest =
        host["maps"].get(0).map(|map| format!("{} {} %", word(&map["map"]), map["percent"]));
    vec![
        word(&host["name"]),
        word(&host["status"]),
        since(host),
        word(&host["state"]),
        agrees(host).to_owned(),
        behind(host),
        fullest.unwrap_or_default(),
        word(&host["versions"]["release"]),
        each(&host["vteps"], |vtep| word(&vtep["vtepIp"])).join(","),
        each(&host["uplinks"], |uplink| word(&uplink["interface"])).join(","),
    ]
}

/// Whether the host has what it should, in a word.
fn agrees(host: &Value) -> &'static str {
    match (&host["refused"], host["digests"]["agree"].as_bool(), host["synced"].as_bool()) {
        (Value::String(_), _, _) => "refused",
        (_, Some(true), Some(true)) => "yes",
        (_, Some(true), _) => "not all",
        (_, Some(false), _) => "no",
        (_, None, _) => "unknown",
    }
}

fn since(host: &Value) -> String {
    match host["statusSince"].as_str() {
        Some(since) => since.to_owned(),
        None => "the server's start".to_owned(),
    }
}

/// How far it is behind: what it has not confirmed, and what it could not do.
fn behind(host: &Value) -> String {
    let watermark = &host["watermark"];
    let number = |key: &str| watermark[key].as_u64().unwrap_or_default();
    let failed = match number("failed") {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    match (number("confirmedRevision"), number("pending")) {
        (0, _) => format!("has confirmed nothing{failed}"),
        (_, 0) => format!("nothing{failed}"),
        (_, pending) => format!("{pending} objects{failed}"),
    }
}

/// One host, a paragraph for each question.
pub(crate) fn show(host: &Value, cluster: &str) -> String {
    let mut lines = vec![
        format!("host        {} ({})", word(&host["name"]), word(&host["uuid"])),
        format!("status      {} since {}", word(&host["status"]), since(host)),
        format!("mode        {}, cluster {cluster}", word(&host["state"])),
        format!("management  {}", word(&host["managementIp"])),
    ];
    for (key, title) in [("refused", "refused"), ("notInEffect", "trouble"), ("clock", "clock")] {
        lines.extend(host[key].as_str().map(|text| format!("{title:<11} {text}")));
    }
    lines.push(format!("agrees      {}", agrees(host)));
    let digests = &host["digests"];
    if digests.is_object() {
        lines.push(digest("objects", &digests["objects"], ["server", "agent"]));
        lines.push(digest("facts", &digests["facts"], ["wanted", "kernel"]));
        let differing = each(&digests["differing"], word);
        if !differing.is_empty() {
            lines.push(format!("  differing: {}", differing.join(", ")));
        }
    }
    let watermark = &host["watermark"];
    lines.push(format!(
        "watermark   revision {} of {}; behind by {}",
        watermark["confirmedRevision"],
        watermark["revision"],
        behind(host)
    ));
    lines.push(format!("versions    {}", versions(&host["versions"])));
    section(&mut lines, "maps", each(&host["maps"], map));
    section(&mut lines, "vteps", each(&host["vteps"], vtep));
    section(&mut lines, "tunnels", tunnels(&host["tunnels"]));
    section(&mut lines, "uplinks", each(&host["uplinks"], uplink));
    section(&mut lines, "devices", each(&host["devices"], word));
    lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n")
}

/// What a host has counted: traffic, drops with what they mean, and how full it is.
pub(crate) fn counted(host: &Value) -> String {
    let mut lines = vec![format!("host        {}, {}", word(&host["name"]), word(&host["status"]))];
    let traffic = &host["traffic"];
    if !traffic.is_object() {
        lines.push("it has not told what it counts".to_owned());
        return lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n");
    }
    lines.push(format!(
        "sent        {} packets, {} bytes",
        traffic["sentPackets"], traffic["sentBytes"]
    ));
    lines.push(format!(
        "received    {} packets, {} bytes",
        traffic["receivedPackets"], traffic["receivedBytes"]
    ));
    lines.push(format!("dropped     {} packets", traffic["droppedPackets"]));
    let drop = |drop: &Value| {
        let packets = drop["packets"].to_string();
        format!("{packets:>12}  {}: {}", word(&drop["reason"]), word(&drop["meaning"]))
    };
    lines.extend(each(&host["drops"], drop));
    section(&mut lines, "maps", each(&host["maps"], map));
    lines.iter().map(|line| harmless(line)).collect::<Vec<_>>().join("\n")
}

/// The counters of the hosts that are named, or of all.
pub(crate) fn counters(
    client: &Client,
    noun: &Noun,
    (words, manner): (&[String], &Manner),
) -> Result<String, Error> {
    let mut pairs = vec![("fields".to_owned(), COUNTED.to_owned())];
    if !words.is_empty() {
        let uuids: Result<Vec<String>, Error> =
            words.iter().map(|word| names::uuid(client, noun, word)).collect();
        pairs.push(("q".to_owned(), format!("uuid?={}", uuids?.join(","))));
    }
    let rows = client.query_all(noun.face.path, &pairs)?;
    if manner.out.is_some() {
        manner.show_rows(client, noun, &rows)?;
        return Ok(String::new());
    }
    match manner.output {
        None | Some(Format::Table | Format::Wide) if rows.is_empty() => {
            Ok("no host found".to_owned())
        }
        None | Some(Format::Table | Format::Wide) => {
            Ok(rows.iter().map(counted).collect::<Vec<_>>().join("\n\n"))
        }
        Some(_) => manner.rows_text(client, noun, &rows),
    }
}

fn digest(what: &str, pair: &Value, keys: [&str; 2]) -> String {
    let [one, other] = keys.map(|key| word(&pair[key]));
    let verdict = if one == other { "the same" } else { "differ" };
    format!("  {what:<9} {} {one}, {} {other}: {verdict}", keys[0], keys[1])
}

fn versions(versions: &Value) -> String {
    let Some(tables) = versions["tables"].as_object() else {
        return "unknown: it has not connected since the server started".to_owned();
    };
    let tables: Vec<String> =
        tables.iter().map(|(table, version)| format!("{table} {version}")).collect();
    let (release, protocol) = (word(&versions["release"]), &versions["protocol"]);
    format!("release {release}, protocol {protocol}, tables {}", tables.join(", "))
}

fn map(map: &Value) -> String {
    let (percent, name) = (map["percent"].to_string(), word(&map["map"]));
    format!(
        "{percent:>3} %  {name}: {} of {} entries, version {}",
        map["entries"], map["capacity"], map["version"]
    )
}

fn vtep(vtep: &Value) -> String {
    format!(
        "{} {}, pool {}: {}",
        word(&vtep["vtepIp"]),
        match &vtep["port"] {
            Value::Number(port) if port.as_u64() == Some(0) => "GRE".to_owned(),
            port => format!("port {port}"),
        },
        word(&vtep["pool"]),
        word(&vtep["device"])
    )
}

/// How many ways to other hosts there are, and on which packets are lost.
fn tunnels(tunnels: &Value) -> Vec<String> {
    let Some(probed) = tunnels["probed"].as_u64().filter(|probed| *probed > 0) else {
        return Vec::new();
    };
    let blocked = each(&tunnels["blocked"], word);
    let first = format!("{probed} ways to other hosts asked, {} of them blocked", blocked.len());
    [vec![first], blocked].concat()
}

fn uplink(uplink: &Value) -> String {
    let network = |network: &Value| match network["vlan"].as_u64() {
        Some(vlan) => format!("{} (VLAN {vlan})", word(&network["name"])),
        None => format!("{} (untagged)", word(&network["name"])),
    };
    let networks = each(&uplink["networks"], network).join(", ");
    format!("{}: {}; carries {networks}", word(&uplink["interface"]), word(&uplink["state"]))
}

/// A title and what is below it; nothing where there is nothing.
fn section(lines: &mut Vec<String>, title: &str, below: Vec<String>) {
    if !below.is_empty() {
        lines.push(title.to_owned());
        lines.extend(below.into_iter().map(|line| format!("  {line}")));
    }
}

fn each(list: &Value, text: impl Fn(&Value) -> String) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn host() -> Value {
        json!({
            "name": "h1", "uuid": "u1", "status": "Connected", "synced": true, "state": "Enabled",
            "statusSince": "Nov 26, 2026 9:00:00 PM", "managementIp": "192.0.2.11",
            "digests": {
                "agree": true, "revision": 41, "differing": [],
                "objects": {"server": "aa", "agent": "aa"},
                "facts": {"wanted": "bb", "kernel": "bb"},
            },
            "watermark": {"confirmedRevision": 41, "revision": 41, "pending": 0, "failed": 0},
            "versions": {"release": "0.1.0", "protocol": 2, "tables": {"peer": 2, "port": 3}},
            "maps": [
                {"map": "ports", "version": 4, "entries": 3, "capacity": 256, "percent": 2},
                {"map": "nets", "version": 6, "entries": 1, "capacity": 4096, "percent": 1},
            ],
            "vteps": [{"vtepIp": "192.0.2.11", "port": 8472, "pool": "p", "device": "eth0 up mtu 1500"}],
            "tunnels": {"probed": 3, "blocked": ["h1 -> h2: nothing arrives"]},
            "uplinks": [{
                "interface": "eth1", "state": "its interface eth1 is down: put it up",
                "networks": [{"name": "lan", "vlan": null}, {"name": "dmz", "vlan": 7}],
            }],
            "devices": ["eth0 up mtu 1500 192.0.2.11"],
            "drops": [{"reason": "hairpin", "packets": 3, "meaning": "The destination is the port."}],
            "traffic": {
                "sentPackets": 5, "sentBytes": 420, "receivedPackets": 2, "receivedBytes": 84,
                "droppedPackets": 3,
            },
        })
    }

    #[test]
    fn a_list_says_who_agrees_and_how_far_others_are_behind() {
        let mut behind = host();
        behind["name"] = "h2".into();
        behind["watermark"] = json!({"confirmedRevision": 7, "pending": 12, "failed": 1});
        behind["digests"]["agree"] = false.into();
        let new =
            json!({"name": "h3", "status": "Connecting", "state": "Enabled", "synced": false});
        let expected = "\
NAME  STATUS      SINCE                    MODE     AGREES   BEHIND                 FULLEST MAP  RELEASE  VTEPS       UPLINKS
h1    Connected   Nov 26, 2026 9:00:00 PM  Enabled  yes      nothing                ports 2 %    0.1.0    192.0.2.11  eth1
h2    Connected   Nov 26, 2026 9:00:00 PM  Enabled  no       12 objects, 1 failed   ports 2 %    0.1.0    192.0.2.11  eth1
h3    Connecting  the server's start       Enabled  unknown  has confirmed nothing";
        assert_eq!(list(&[host(), behind, new], table::Screen::default()), expected);
    }

    #[test]
    fn one_host_is_shown_with_what_it_should_hold_and_holds() {
        let expected = "\
host        h1 (u1)
status      Connected since Nov 26, 2026 9:00:00 PM
mode        Enabled, cluster c1
management  192.0.2.11
agrees      yes
  objects   server aa, agent aa: the same
  facts     wanted bb, kernel bb: the same
watermark   revision 41 of 41; behind by nothing
versions    release 0.1.0, protocol 2, tables peer 2, port 3
maps
    2 %  ports: 3 of 256 entries, version 4
    1 %  nets: 1 of 4096 entries, version 6
vteps
  192.0.2.11 port 8472, pool p: eth0 up mtu 1500
tunnels
  3 ways to other hosts asked, 1 of them blocked
  h1 -> h2: nothing arrives
uplinks
  eth1: its interface eth1 is down: put it up; carries lan (untagged), dmz (VLAN 7)
devices
  eth0 up mtu 1500 192.0.2.11";
        assert_eq!(show(&host(), "c1"), expected);
        let mut other = host();
        other["digests"]["facts"]["kernel"] = "cc".into();
        other["digests"]["differing"] = json!(["peer"]);
        other["name"] = "\u{1b}[31mh1".into();
        let text = show(&other, "c1");
        assert!(text.contains("wanted bb, kernel cc: differ\n  differing: peer"), "{text}");
        assert!(!text.contains('\u{1b}'), "names are other people's");
    }

    #[test]
    fn drops_are_counted_in_words() {
        let expected = "\
host        h1, Connected
sent        5 packets, 420 bytes
received    2 packets, 84 bytes
dropped     3 packets
           3  hairpin: The destination is the port.
maps
    2 %  ports: 3 of 256 entries, version 4
    1 %  nets: 1 of 4096 entries, version 6";
        assert_eq!(counted(&host()), expected);
        let old = json!({"name": "h9", "status": "Connected"});
        assert_eq!(counted(&old), "host        h9, Connected\nit has not told what it counts");
    }
}
