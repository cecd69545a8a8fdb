//! The clients that write, and what they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard},
};

use serde_json::json;
use uuid::Uuid;

use crate::{PATIENCE, server::Access};

/// What all have in common.
#[derive(Default)]
pub(crate) struct Shared {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Default)]
struct Now {
    /// How to reach the server; `None` while it is dead.
    access: Option<Access>,
    /// Counts its lives.
    life: u64,
    acknowledged: u64,
    stops: bool,
}

/// What a writer knows to be there.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Zones: name and description.
    pub(crate) zones: BTreeMap<Uuid, (String, Option<String>)>,
    pub(crate) nics: BTreeSet<Uuid>,
    /// The jobs of all that it was told is accepted.
    pub(crate) jobs: Vec<String>,
    pub(crate) acknowledged: u64,
    /// Writes without an answer.
    pub(crate) unknown: u64,
    /// Those of them that had happened.
    pub(crate) done_unheard: u64,
}

impl Shared {
    /// The server answers.
    pub(crate) fn open(&self, access: Access) {
        let mut now = self.lock();
        now.access = Some(access);
        now.life += 1;
        self.changed.notify_all();
    }

    /// The server is about to be killed.
    pub(crate) fn close(&self) {
        self.lock().access = None;
    }

    pub(crate) fn stop(&self) {
        self.lock().stops = true;
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.lock().acknowledged
    }

    /// Waits until so many writes are acknowledged.
    pub(crate) fn wait_for(&self, goal: u64) {
        let less = |now: &mut Now| now.acknowledged < goal;
        let (_now, waited) = self.changed.wait_timeout_while(self.lock(), PATIENCE, less).unwrap();
        assert!(!waited.timed_out(), "nobody writes any more");
    }

    /// A server that answers, of a later life than this one.
    fn access(&self, after: u64) -> (Access, u64) {
        let dead = |now: &mut Now| now.access.is_none() || now.life <= after;
        let (now, waited) = self.changed.wait_timeout_while(self.lock(), PATIENCE, dead).unwrap();
        assert!(!waited.timed_out(), "no server comes any more");
        (now.access.clone().unwrap(), now.life)
    }

    fn heard(&self) {
        self.lock().acknowledged += 1;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap()
    }
}

/// A network with room for all NICs; gives the L3 network.
pub(crate) fn make_network(access: &Access) -> String {
    let made = |path: &str, mut params: serde_json::Value| {
        let uuid = Uuid::new_v4().simple().to_string();
        params["resourceUuid"] = uuid.clone().into();
        let body = json!({"params": params}).to_string();
        let (status, body) = access.send("POST", path, None, &body).unwrap();
        assert_eq!(status, 202, "{path}: {body}");
        uuid
    };
    let zone = made("/zones", json!({"name": "z"}));
    let pool = made("/l2-networks/vxlan-pool", json!({"name": "p", "zoneUuid": zone}));
    let vnis = json!({"name": "r", "startVni": 1, "endVni": 9});
    made(&format!("/l2-networks/vxlan-pool/{pool}/vni-ranges"), vnis);
    let l2 = made("/l2-networks/vxlan", json!({"name": "l2", "poolUuid": pool}));
    let l3 = made("/l3-networks", json!({"name": "l3", "l2NetworkUuid": l2}));
    let range = json!({
        "name": "r", "startIp": "10.0.0.2", "endIp": "10.0.255.254", "netmask": "255.255.0.0",
        "gateway": "10.0.0.1",
    });
    made(&format!("/l3-networks/{l3}/ip-ranges"), range);
    l3
}

/// Writes as fast as it can until told to stop.
pub(crate) fn write(number: u64, network: &str, shared: &Shared) -> Known {
    let (mut known, mut life) = (Known::default(), 0);
    for step in 0_u64.. {
        if shared.lock().stops {
            break;
        }
        let job = Uuid::new_v4().simple().to_string();
        let mut dice = (step + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ number;
        let write = Write::choose(&known, (number, step), &mut dice);
        let (method, path, body) = write.request(network);
        let mut is_again = false;
        loop {
            let (access, of) = shared.access(life);
            match access.send(method, &path, Some(&job), &body) {
                Some((202, _)) => {
                    known.acknowledged += 1;
                    known.jobs.push(job);
                    shared.heard();
                    break;
                }
                // Only what had no answer is sent again: it had happened.
                Some((400, text)) if is_again && text.contains("was used before") => {
                    known.done_unheard += 1;
                    known.jobs.push(job);
                    break;
                }
                // It is another server by now, which knows no session of the last one.
                Some((503, text)) if text.contains("ID.1001") => life = of,
                None => {
                    known.unknown += 1;
                    is_again = true;
                    life = of;
                }
                Some(other) => panic!("{method} {path} {body}: {other:?}"),
            }
        }
        write.note(&mut known);
    }
    known
}

/// One thing to write.
enum Write {
    MakeZone(Uuid, String),
    DescribeZone(Uuid, String),
    DropZone(Uuid),
    MakeNic(Uuid),
    DropNic(Uuid),
}

impl Write {
    fn choose(known: &Known, (number, step): (u64, u64), dice: &mut u64) -> Self {
        let mut roll = |sides: usize| {
            *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(*dice >> 33).unwrap() % sides
        };
        let text = format!("w{number}-{step}");
        let zone = |at: usize| *known.zones.keys().nth(at).unwrap();
        match roll(8) {
            0 | 1 if !known.zones.is_empty() => {
                Write::DescribeZone(zone(roll(known.zones.len())), text)
            }
            2 if !known.zones.is_empty() => Write::DropZone(zone(roll(known.zones.len()))),
            3 if !known.nics.is_empty() => {
                Write::DropNic(*known.nics.iter().nth(roll(known.nics.len())).unwrap())
            }
            4 | 5 => Write::MakeZone(Uuid::new_v4(), text),
            _ => Write::MakeNic(Uuid::new_v4()),
        }
    }

    fn request(&self, network: &str) -> (&'static str, String, String) {
        match self {
            Write::MakeZone(uuid, name) => {
                let params = json!({"name": name, "resourceUuid": uuid.simple().to_string()});
                ("POST", "/zones".to_owned(), json!({"params": params}).to_string())
            }
            Write::DescribeZone(uuid, text) => {
                let body = json!({"updateZone": {"description": text}}).to_string();
                ("PUT", format!("/zones/{}/actions", uuid.simple()), body)
            }
            Write::DropZone(uuid) => ("DELETE", format!("/zones/{}", uuid.simple()), String::new()),
            Write::MakeNic(uuid) => {
                let uuid = uuid.simple().to_string();
                let params = json!({"l3NetworkUuid": network, "resourceUuid": uuid});
                ("POST", "/nics".to_owned(), json!({"params": params}).to_string())
            }
            Write::DropNic(uuid) => ("DELETE", format!("/nics/{}", uuid.simple()), String::new()),
        }
    }

    fn note(self, known: &mut Known) {
        match self {
            Write::MakeZone(uuid, name) => _ = known.zones.insert(uuid, (name, None)),
            Write::DescribeZone(uuid, text) => {
                known.zones.get_mut(&uuid).unwrap().1 = Some(text);
            }
            Write::DropZone(uuid) => _ = known.zones.remove(&uuid),
            Write::MakeNic(uuid) => _ = known.nics.insert(uuid),
            Write::DropNic(uuid) => _ = known.nics.remove(&uuid),
        }
    }
}
