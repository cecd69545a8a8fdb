//! A realiser out of process, as an operator runs one: nothing starts on a network before it has said
//! yes, whatever becomes of the server meanwhile. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip, uuid};
use serde_json::{Value, json};

/// An HTTP server that answers with a status, and keeps what it was told.
struct Service {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    told: Arc<Mutex<Vec<Value>>>,
    called: mpsc::Receiver<()>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (status, told) = (Arc::new(AtomicU16::new(204)), Arc::<Mutex<Vec<Value>>>::default());
        let (calls, called) = mpsc::channel();
        let (answer, keep) = (Arc::clone(&status), Arc::clone(&told));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let body = take(stream.unwrap(), answer.load(Ordering::SeqCst));
                keep.lock().unwrap().extend(body);
                if calls.send(()).is_err() {
                    return;
                }
            }
        });
        Self { address, status, told, called }
    }

    /// What it was told to do at which moment.
    fn told(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let of = |call: &Value| format!("{} {}", call["action"], call["moment"]).replace('"', "");
        told.iter().map(of).collect()
    }
}

fn take(stream: TcpStream, status: u16) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: 15\r\nConnection: close\r\n\r\nswitch is there"
    );
    let answer =
        if status == 204 { "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n" } else { &answer };
    reader.get_mut().write_all(answer.as_bytes()).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn an_instance_starts_once_the_realiser_has_said_yes_also_when_the_server_dies_meanwhile() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let service = Service::start();
    let realiser = json!({"name": "fabric", "url": format!("http://{}/", service.address),
        "type": "VxlanNetwork", "secret": "0123456789abcdef"});
    assert_eq!(lab.rest().post("/l2-networks/realisers", &json!(realiser)).status, 200);
    // It is told of what is there: of two networks, each on two hosts.
    assert!(wait::holds(LIMIT, || service.told().len() == 4), "{:?}", service.told());
    assert!(service.told().iter().all(|told| told == "realise InUse"), "{:?}", service.told());

    let pool = lab.rest().uuid("/l2-networks/vxlan-pool", "pool");
    let l2 = lab.rest().post("/l2-networks/vxlan", &json!({"name": "late", "poolUuid": pool}));
    let l2 = l2.body["inventory"]["uuid"].clone();
    let l3 = lab.rest().post("/l3-networks", &json!({"name": "late-l3", "l2NetworkUuid": l2}));
    let l3 = l3.body["inventory"]["uuid"].as_str().unwrap().to_owned();
    let range = json!({"name": "r", "startIp": "10.9.0.10", "endIp": "10.9.0.99",
        "netmask": "255.255.255.0", "gateway": "10.9.0.1"});
    assert_eq!(lab.rest().post(&format!("/l3-networks/{l3}/ip-ranges"), &range).status, 200);
    let host = lab.rest().uuid("/hosts", "h1");
    let vm = json!({"name": "late", "l3NetworkUuids": [l3], "hostUuid": host});

    // It says no: nothing is made, and the error says who, and why.
    service.status.store(409, Ordering::SeqCst);
    let refused = lab.rest().post("/vm-instances", &vm);
    let text = refused.body.to_string();
    assert!(refused.status == 503 && text.contains("NL.1008"), "{refused:?}");
    for part in ["fabric", "409", "switch is there", "DeleteL2Realiser"] {
        assert!(text.contains(part), "{text}");
    }
    let is_made = || lab.rest().all("/vm-instances").iter().any(|it| it["name"] == "late");
    assert!(!is_made());

    // It is not there for now, and the server dies while a call waits.
    service.status.store(503, Ordering::SeqCst);
    while service.called.try_recv().is_ok() {}
    let (url, session) = (lab.url(), lab.client().session().map(str::to_owned));
    let job = uuid();
    let asking = thread::spawn({
        let (vm, job) = (json!({"params": vm}).to_string(), job.clone());
        move || {
            let rest = netloom_tests::rest::Rest::new(&url, session.as_deref());
            rest.with("x-job-uuid", &job).send("POST", "/vm-instances", &vm).is_err()
        }
    });
    let asked = |told: &[String]| told.last().is_some_and(|last| last == "realise InUse");
    assert!(wait::holds(LIMIT, || asked(&service.told()) && service.called.try_recv().is_ok()));
    let waits = || {
        let polled = lab.rest().send("GET", &format!("/api-jobs/{job}"), "").unwrap();
        polled.body["waitsFor"].to_string().contains("fabric")
    };
    assert!(wait::holds(LIMIT, waits));
    lab.kill(&["server"]);
    assert!(asking.join().unwrap(), "nobody was told that it is done");
    service.status.store(204, Ordering::SeqCst);
    lab.start(&["server"]);
    lab.settle(&["h1", "h2"]);
    assert!(!is_made());
    let made = lab.rest().post("/vm-instances", &vm);
    assert_eq!(made.status, 200, "{made:?}");

    // After the last one it is told so.
    let uuid = made.body["inventory"]["uuid"].as_str().unwrap().to_owned();
    let gone =
        lab.rest().send("DELETE", &format!("/vm-instances/{uuid}?deleteMode=Permissive"), "");
    assert!(gone.unwrap().status < 300);
    assert!(wait::holds(LIMIT, || service.told().last().unwrap() == "release InUse"));
    lab.check();
}
