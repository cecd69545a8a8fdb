//! What reads of a large cloud take over HTTP, JSON and its reading included.

use std::{path::Path, time::Instant};

use client::Client;
use serde_json::Value;

use crate::{
    Failure,
    cloud::Shape,
    connection::{Connection, Request},
    restart::Restart,
    server::Server,
    stats,
};

/// 100,000 NICs in four networks.
const SHAPE: Shape = Shape { hosts: 2000, ports_per_network: 25_000 };
/// Of how many NICs is asked in turn.
const KNOWN: usize = 200;
/// Where NICs are.
const NICS: &str = "/vm-instances/nics";

/// A read that is measured.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    step: &'static str,
    /// How often it is asked in one sample.
    times: usize,
    /// How many it finds, at least.
    least: usize,
    ask: fn(&Known, usize) -> Asks,
}

/// A path and the pairs of a query string.
type Asks = (String, Vec<(&'static str, String)>);

const ASKED: [Asked; 6] = [
    Asked {
        step: "show",
        times: 100,
        least: 1,
        ask: |known, n| (format!("{NICS}/{}", known.nic(n, "uuid")), Vec::new()),
    },
    Asked {
        step: "list",
        times: 6,
        least: 1000,
        ask: |_, _| (NICS.to_owned(), vec![("limit", "1000".to_owned())]),
    },
    Asked {
        step: "page",
        times: 12,
        least: 500,
        ask: |known, n| {
            let start = [0, 12_000, 24_500][n % 3].to_string();
            let of = format!("l3NetworkUuid={}", known.nic(0, "l3NetworkUuid"));
            (NICS.to_owned(), vec![("q", of), ("start", start), ("limit", "500".to_owned())])
        },
    },
    Asked {
        step: "nested-name",
        times: 100,
        least: 1,
        ask: |known, n| {
            let of = format!("{}={}", NESTED[0], known.nic(n, "vmName"));
            (NICS.to_owned(), vec![("q", of)])
        },
    },
    Asked {
        step: "nested-host",
        times: 50,
        // Networks begin anywhere in the row of hosts: some have one less.
        least: 49,
        ask: |_, n| {
            let host = 1 + n % 2000;
            (NICS.to_owned(), vec![("q", format!("{}=h{host}", NESTED[1]))])
        },
    },
    Asked {
        step: "nested-count",
        times: 12,
        least: 25_000,
        ask: |known, _| {
            // A network's name is its uuid.
            let of = format!("{}={}", NESTED[2], known.nic(0, "l3NetworkUuid"));
            (NICS.to_owned(), vec![("q", of), ("count", "true".to_owned())])
        },
    },
];

/// The fields of other resources by which NICs are found.
const NESTED: [&str; 3] = ["vmInstance.name", "vmInstance.host.name", "l3Network.name"];

/// The read that a step measures.
pub(crate) fn of_step(step: &str) -> Option<Asked> {
    ASKED.into_iter().find(|asked| asked.step == step)
}

/// Some NICs, as the server shows them.
struct Known(Vec<Value>);

impl Known {
    fn nic(&self, n: usize, field: &str) -> &str {
        let nic = &self.0[n % self.0.len()];
        match field {
            "vmName" => nic["vmInstance"]["name"].as_str().unwrap_or_default(),
            field => nic[field].as_str().unwrap_or_default(),
        }
    }
}

/// A server with a large cloud, and a client.
pub(crate) struct Reads {
    client: Connection,
    known: Known,
    /// Ends before its directory goes.
    _server: Server,
    _restart: Restart,
}

impl Reads {
    /// Makes the cloud and starts the server on it.
    pub(crate) fn new(binary: &Path, scratch: &Path) -> Result<Self, Failure> {
        let restart = Restart::new(binary, scratch, SHAPE)?;
        let (server, client) = restart.serve()?;
        let pairs = [("q", "vmInstanceUuid not null"), ("limit", "200")];
        let mut nics = ask(&client, NICS, &pairs.map(|(key, value)| (key, value.to_owned())))?;
        let Value::Array(mut known) = nics["inventories"].take() else {
            return Err("a cloud without NICs".into());
        };
        known.truncate(KNOWN);
        for nic in &mut known {
            let uuid = nic["vmInstanceUuid"].as_str().unwrap_or_default();
            let mut instance = ask(&client, &format!("/vm-instances/{uuid}"), &[])?;
            nic["vmInstance"] = instance["inventories"][0].take();
        }
        let client = Connection::new(server.listen(), &client)?;
        Ok(Self { client, known: Known(known), _server: server, _restart: restart })
    }

    /// How long each of several such reads takes, in ms.
    pub(crate) fn sample(&mut self, step: &str) -> Result<Vec<f64>, Failure> {
        let asked = of_step(step).ok_or_else(|| format!("{step} is no read"))?;
        let mut took = Vec::new();
        for n in 0..asked.times {
            let (path, pairs) = (asked.ask)(&self.known, n);
            // Names and uuids: nothing that needs encoding.
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let request = Request::of_query(&path, &pairs.join("&"));
            let begin = Instant::now();
            let answer = self.client.ask(&request)?;
            took.push(stats::ms(begin.elapsed()));
            let answer: Value = serde_json::from_slice(answer)?;
            let shown = answer["inventories"].as_array().map(Vec::len);
            let total = answer["total"].as_u64().and_then(|total| usize::try_from(total).ok());
            let found = shown.or(total).unwrap_or_default();
            if found < asked.least {
                return Err(format!("{step} finds {found}, and not {}", asked.least).into());
            }
        }
        Ok(took)
    }
}

fn ask(client: &Client, path: &str, pairs: &[(&'static str, String)]) -> Result<Value, Failure> {
    let pairs: Vec<_> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Ok(client.query_pairs(path, &pairs)?)
}

#[cfg(test)]
mod tests {
    use control::query::Path;
    use model::Kind;

    use super::*;

    #[test]
    fn every_field_that_is_asked_for_exists() {
        for field in NESTED.into_iter().chain(["l3NetworkUuid", "vmInstanceUuid"]) {
            assert!(Path::read(Kind::VmNic, "q", field).is_ok(), "{field}");
        }
        let faces = Kind::VmNic.def().faces.iter().map(|face| face.path);
        assert!(faces.into_iter().any(|path| path == NICS));
    }
}
