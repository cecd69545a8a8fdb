//! `netloom nic show`: what the guest behind a NIC is told, in words.

use client::Client;
use serde_json::{Map, Value};

use crate::{Error, table::harmless};

/// The face whose NICs are told here.
pub(crate) const FACE: &str = "VmNic";

/// Asks the server, and says it in lines.
pub(crate) fn of(client: &Client, nic: &Value) -> Result<String, Error> {
    let params = Map::from_iter([("vmNicUuid".to_owned(), nic["uuid"].clone())]);
    Ok(lines(&client.call("GetVmNicTold", params, &[])?))
}

fn lines(told: &Value) -> String {
    let mut lines = Vec::new();
    let mut say = |title: &str, text: String| {
        if !text.is_empty() {
            lines.push(harmless(&format!("{title:<11} {text}")));
        }
    };
    if let Some(why) = told["why"].as_str() {
        say("told", format!("nothing: {why}"));
        return lines.join("\n");
    }
    say("told by", each(&told["services"], text).join(", "));
    let domain = told["domain"].as_str().map(|domain| format!(".{domain}"));
    say("name", format!("{}{}", text(&told["hostname"]), domain.unwrap_or_default()));
    for address in told["addresses"].as_array().into_iter().flatten() {
        let by =
            address["by"].as_str().map_or("told by nobody".to_owned(), |by| format!("by {by}"));
        let gateway = address["gateway"].as_str().map(|ip| format!(", router {ip}"));
        let gateway = gateway.unwrap_or_default();
        let ip = format!("{}/{}", text(&address["ip"]), address["prefixLen"]);
        say("address", format!("{ip} {by}{gateway}"));
    }
    say("dns", each(&told["dns"], text).join(", "));
    say("search", each(&told["search"], text).join(", "));
    let route = |it: &Value| format!("{} via {}", text(&it["prefix"]), text(&it["nexthop"]));
    say("routes", each(&told["routes"], route).join(", "));
    say("mtu", told["mtu"].to_string());
    let lease = |it: &Value| format!("{} s from {}", it["leaseSeconds"], text(&it["ip"]));
    say("lease", each(&told["servers"], lease).join(", "));
    let time = |it: &Value| each(&it["timeServers"], text).join(", ");
    say("time", each(&told["servers"], time).join(", "));
    let option = |it: &Value| {
        let name = it["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{}{name} of IPv{}: {}", it["code"], it["ipVersion"], text(&it["bytes"]))
    };
    say("options", each(&told["options"], option).join(", "));
    say("not yet", text(&told["notInEffect"]));
    for asked in told["asked"].as_array().into_iter().flatten() {
        let of = |field: &str, before: &str| {
            asked[field].as_str().map(|text| format!("{before}{text}")).unwrap_or_default()
        };
        let what = format!("{}{} on {}", of("outcome", ""), of("ip", " "), of("date", ""));
        say("last asked", format!("{what}{}", of("hostname", ", calls itself ")));
    }
    let event = |it: &Value| {
        format!("{} {} on {}", text(&it["outcome"]), text(&it["ip"]), text(&it["date"]))
    };
    let events = each(&told["events"], event);
    // The last one of each version is shown already.
    let is_more = events.len() > told["asked"].as_array().map_or(0, Vec::len);
    say("asked", if is_more { events.join(", ") } else { String::new() });
    lines.join("\n")
}

fn each(list: &Value, of: impl Fn(&Value) -> String) -> Vec<String> {
    list.as_array().into_iter().flatten().map(of).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_said_in_words_and_what_is_not_is_left_out() {
        let told = json!({
            "services": ["DHCP", "DHCPv6"], "hostname": "web", "domain": "example.org",
            "addresses": [
                {"ip": "10.0.0.5", "prefixLen": 24, "gateway": "10.0.0.1", "by": "DHCP"},
                {"ip": "fd00::5", "prefixLen": 64, "gateway": null, "by": null},
            ],
            "dns": ["10.0.0.53", "fd00::53"], "search": [], "mtu": 1450,
            "routes": [{"prefix": "10.9.0.0/16", "nexthop": "10.0.0.9"}],
            "servers": [{"leaseSeconds": 86400, "ip": "10.0.0.2", "timeServers": []}],
            "asked": [{"ipVersion": 4, "date": "Nov 27, 2026 11:00:00 AM", "outcome": "leased", "ip": "10.0.0.5",
                "hostname": "box", "clientId": "01"}],
            "options": [{"code": 66, "name": "tftp-server", "ipVersion": 4, "bytes": "62"}],
        });
        let expected = "\
told by     DHCP, DHCPv6
name        web.example.org
address     10.0.0.5/24 by DHCP, router 10.0.0.1
address     fd00::5/64 told by nobody
dns         10.0.0.53, fd00::53
routes      10.9.0.0/16 via 10.0.0.9
mtu         1450
lease       86400 s from 10.0.0.2
options     66 (tftp-server) of IPv4: 62
last asked  leased 10.0.0.5 on Nov 27, 2026 11:00:00 AM, calls itself box";
        assert_eq!(lines(&told), expected);
        assert_eq!(lines(&json!({"why": "it is disabled"})), "told        nothing: it is disabled");
    }
}
