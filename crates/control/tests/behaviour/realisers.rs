//! Realisers out of process: when they are called, what waits for them, and what is undone.

use std::sync::{Arc, Mutex};

use model::{
    Code, Id, Kind, Resource, Timestamp,
    resource::{
        l2_attachment::L2NetworkClusterRef,
        l2_realiser::{L2Realisation, RealisationState},
        vm_instance::VmInstance,
    },
};
use netloom_control::{
    Enrolment, Gate, JobId, JobState, Jobs,
    realiser::{self, Call, Refusal},
};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, Fixture, limit, request, tenant};

const SECRET: &str = "0123456789abcdef";

/// What a realiser was told, and what it answers.
#[derive(Default)]
struct Service {
    told: Mutex<Vec<Value>>,
    answer: Mutex<Option<Refusal>>,
    called: Notify,
}

impl Service {
    fn take(&self, call: &Call) -> Result<(), Refusal> {
        assert_eq!(call.signature.len(), 64);
        let answer = self.answer.lock().unwrap().clone();
        self.told.lock().unwrap().push(serde_json::from_str(&call.body).unwrap());
        self.called.notify_one();
        answer.map_or(Ok(()), Err)
    }

    fn says(&self, answer: Option<Refusal>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// What it was told to do where, in order.
    fn told(&self) -> Vec<(String, String, usize)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let told = self.told.lock().unwrap();
        let of = |call: &Value| {
            let hosts = call["hosts"].as_array().map_or(0, Vec::len);
            (text(&call["action"]), text(&call["moment"]), hosts)
        };
        told.iter().map(of).collect()
    }
}

fn no(why: &str, is_final: bool) -> Option<Refusal> {
    Some(Refusal { why: why.to_owned(), is_final })
}

struct World {
    cloud: Cloud,
    fixture: Fixture,
    gate: Arc<Gate>,
    service: Arc<Service>,
    _board: watch::Sender<model::status::Board>,
}

impl World {
    /// Two hosts, and a realiser of all networks of a type.
    fn new(of: &str) -> (Self, String) {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let made = cloud.made("CreateL2Realiser", realiser(of));
        let (board, reports) = watch::channel(cloud.board.clone());
        let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
        let enrolment = Enrolment { server: String::new(), ca: String::new() };
        let gate = Arc::new(Gate::new(jobs, enrolment));
        (Self { cloud, fixture, gate, service: Arc::default(), _board: board }, made)
    }

    /// Calls realisers while `work` goes on.
    async fn serving<T>(&self, work: impl Future<Output = T>) -> T {
        let (stop, service) = (CancellationToken::new(), Arc::clone(&self.service));
        let calls = Arc::new(move |call: &Call| service.take(call));
        let work = async {
            let done = work.await;
            stop.cancel();
            done
        };
        let serving = realiser::run(Arc::clone(&self.gate), stop.clone(), calls);
        limit(async { tokio::join!(serving, work) }).await.1
    }

    async fn call(&self, message: &str, params: Value) -> JobState {
        self.call_by(ADMINISTRATOR, message, params).await
    }

    async fn call_by(
        &self,
        caller: netloom_control::Caller,
        message: &str,
        params: Value,
    ) -> JobState {
        let command = self.gate.command(caller, vec![request(message, params)]).unwrap();
        let job = JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false };
        self.gate.jobs.submit(command, job, 60).await.unwrap();
        self.gate.jobs.state(&caller, job.uuid).await
    }

    fn rows(&self) -> Vec<L2Realisation> {
        let snapshot = self.cloud.snapshot();
        let rows = snapshot.list(Kind::L2Realisation);
        rows.map(|row| L2Realisation::of(&row).unwrap().clone()).collect()
    }

    /// Waits until the rows are such.
    async fn until(&self, is: impl Fn(&[L2Realisation]) -> bool) {
        let mut commits = self.cloud.store.watch();
        while !is(&self.rows()) {
            commits.next().await.expect("the store is there");
        }
    }

    fn vlan(&self) -> String {
        let params = json!({"name": "v", "zoneUuid": self.fixture.zone,
            "physicalInterface": "eth1", "vlan": 10});
        self.cloud.made("CreateL2VlanNetwork", params)
    }

    fn attachment(&self, l2: &str) -> Value {
        json!({"l2NetworkUuid": l2, "clusterUuid": self.fixture.cluster})
    }

    fn attached(&self) -> usize {
        let snapshot = self.cloud.snapshot();
        let rows = snapshot.list(L2NetworkClusterRef::KIND);
        rows.filter(|row| L2NetworkClusterRef::of(row).unwrap().vlan.is_some()).count()
    }
}

fn realiser(of: &str) -> Value {
    json!({"name": "switches", "url": "http://192.0.2.9:8080/", "type": of, "secret": SECRET})
}

fn error(state: JobState) -> model::Error {
    let JobState::Failed(error) = state else { panic!("{state:?}") };
    error
}

#[tokio::test]
async fn a_network_is_attached_once_its_realiser_has_said_yes() {
    let (world, _) = World::new("L2VlanNetwork");
    let l2 = world.vlan();
    world.service.says(no("port 7 is not there yet", false));
    let attach = world.call("AttachL2NetworkToCluster", world.attachment(&l2));
    let healed = async {
        world.service.called.notified().await;
        assert_eq!(world.attached(), 0, "nothing is attached before");
        world.service.says(None);
    };
    let (attached, ()) = world.serving(async { tokio::join!(attach, healed) }).await;
    assert!(matches!(attached, JobState::Done(_)), "{attached:?}");
    assert_eq!(world.attached(), 1);
    let call = |action: &str, hosts| (action.to_owned(), "Attached".to_owned(), hosts);
    assert_eq!(world.service.told(), [call("realise", 2), call("realise", 2)]);
    let told = world.service.told.lock().unwrap()[1].clone();
    assert_eq!(told["l2Network"]["vlan"], 10);
    assert_eq!(told["l2Network"]["physicalInterface"], "eth1");
    let [row] = &world.rows()[..] else { panic!() };
    assert_eq!((row.state, &row.error), (RealisationState::Realised, &None));

    // A host that comes later is told of, and so is the end.
    let host = json!({"name": "h3", "managementIp": "172.30.0.3",
        "clusterUuid": world.fixture.cluster});
    let added = async {
        world.call("AddKVMHost", host).await;
        while world.service.told().last() != Some(&call("realise", 3)) {
            world.service.called.notified().await;
        }
    };
    world.serving(added).await;
    let detach = async {
        world.call("DetachL2NetworkFromCluster", world.attachment(&l2)).await;
        world.until(<[_]>::is_empty).await;
    };
    world.serving(detach).await;
    let last = world.service.told.lock().unwrap().last().cloned().unwrap();
    assert_eq!((&last["action"], &last["l2Network"]["vlan"]), (&json!("release"), &json!(10)));
}

#[tokio::test]
async fn a_realiser_that_says_no_keeps_a_network_out_and_what_it_did_is_taken_away() {
    let (world, _) = World::new("L2VlanNetwork");
    let l2 = world.vlan();
    world.service.says(no("it answered 409 VLAN 10 is reserved", true));
    let refused = async {
        let refused = world.call("AttachL2NetworkToCluster", world.attachment(&l2)).await;
        world.service.says(None);
        world.until(<[_]>::is_empty).await;
        error(refused)
    };
    let refused = world.serving(refused).await;
    assert_eq!(refused.code, Code::NotRealised);
    let text = refused.to_string();
    for part in ["switches", "http://192.0.2.9:8080/", "VLAN 10 is reserved", "DeleteL2Realiser"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(world.attached(), 0);
    let told = world.service.told().into_iter().map(|(action, ..)| action);
    let mut told: Vec<_> = told.collect();
    // It may have said no to that, too, at first.
    told.dedup();
    assert_eq!(told, ["realise", "release"]);
}

#[tokio::test]
async fn the_first_instance_on_a_host_waits_and_the_last_one_ends_it() {
    let (world, _) = World::new("VxlanNetwork");
    let l3 = world.cloud.l3(&world.fixture, "red");
    let vm = |name: &str, host: usize| json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": world.fixture.hosts[host]});
    let made = async {
        for (name, host) in [("a", 0), ("b", 0), ("c", 1)] {
            let state = world.call("CreateVmInstance", vm(name, host)).await;
            assert!(matches!(state, JobState::Processing(_)), "{state:?}");
        }
        // Until it is known what came there, a place is kept for as long as it was asked for.
        world.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.asked_until.0 == 0)).await;
    };
    world.serving(made).await;
    let call = |action: &str| (action.to_owned(), "InUse".to_owned(), 1);
    assert_eq!(world.service.told(), [call("realise"), call("realise")], "once for each host");
    let ended = async {
        for row in world.cloud.snapshot().list(Kind::VmInstance) {
            let instance = VmInstance::of(&row).unwrap();
            if instance.name != "a" {
                world.call("StopVmInstance", json!({"uuid": instance.uuid})).await;
            }
        }
        world.until(|rows| rows.len() == 1).await;
    };
    world.serving(ended).await;
    let host = Some(world.fixture.hosts[0].parse().unwrap());
    assert_eq!(world.rows()[0].in_use_on_host_uuid, host, "one instance is there still");
    assert_eq!(world.service.told()[2..], [call("release")]);
}

#[tokio::test]
async fn a_tenant_is_told_nothing_of_hosts_and_realisers() {
    let (world, _) = World::new("VxlanNetwork");
    let l3 = world.cloud.l3(&world.fixture, "red");
    let shared = json!({"resourceUuids": [l3], "toPublic": true});
    world.cloud.call("ShareResource", shared).unwrap();
    let tenant = tenant(&world.cloud, 0xa);
    world.service.says(no("it answered 400 no such port", true));
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let refused = world.serving(world.call_by(tenant, "CreateVmInstance", vm)).await;
    let text = error(refused).to_string();
    assert!(text.contains("administrator"), "{text}");
    for secret in ["192.0.2.9", "switches", "no such port", "172.30"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn what_is_there_is_told_to_a_realiser_that_comes_later_and_nothing_after_it_is_gone() {
    let (world, first) = World::new("L2NoVlanNetwork");
    let l3 = world.cloud.l3(&world.fixture, "red");
    let vm = json!({"name": "a", "l3NetworkUuids": [l3], "hostUuid": world.fixture.hosts[0]});
    world.cloud.call("CreateVmInstance", vm).unwrap();
    let all = json!({"name": "all", "url": "http://192.0.2.9/", "secret": SECRET});
    world.cloud.call("CreateL2Realiser", all).unwrap();
    let is_realised = |row: &L2Realisation| row.state == RealisationState::Realised;
    let realised = |rows: &[L2Realisation]| rows.len() == 2 && rows.iter().all(is_realised);
    world.serving(world.until(realised)).await;
    let mut told = world.service.told();
    told.sort();
    let call = |moment: &str, hosts| ("realise".to_owned(), moment.to_owned(), hosts);
    assert_eq!(told, [call("Attached", 2), call("InUse", 1)]);
    world.cloud.call("DeleteL2Realiser", json!({"uuid": first})).unwrap();
    let rest = world.rows()[0].realiser_uuid;
    world.cloud.call("DeleteL2Realiser", json!({"uuid": rest})).unwrap();
    assert_eq!(world.rows(), []);
}

#[tokio::test]
async fn another_server_goes_on_where_one_was_killed() {
    let (world, _) = World::new("L2VlanNetwork");
    let l2 = world.vlan();
    let attach = world.call("AttachL2NetworkToCluster", world.attachment(&l2));
    world.serving(attach).await;
    // Nobody calls while it is detached.
    world.call("DetachL2NetworkFromCluster", world.attachment(&l2)).await;
    let expired = |rows: &[L2Realisation]| rows.is_empty();
    let later =
        Jobs::new(world.cloud.store.clone(), watch::channel(world.cloud.board.clone()).1, || {
            Timestamp(1_000_000)
        });
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    let world = World { gate: Arc::new(Gate::new(later, enrolment)), ..world };
    world.serving(world.until(expired)).await;
    let last = world.service.told().pop().unwrap();
    assert_eq!(last.0, "release");
}

#[test]
fn realisers_are_administrators_and_their_secrets_are_not_shown() {
    let cloud = Cloud::empty();
    let mut wrong = realiser("L2VlanNetwork");
    wrong["secret"] = json!("short");
    assert_eq!(cloud.refusal("CreateL2Realiser", wrong).1.as_deref(), Some("secret"));
    for url in ["https://192.0.2.9/", "ftp://192.0.2.9/", "http:///x", ""] {
        let mut wrong = realiser("L2VlanNetwork");
        wrong["url"] = json!(url);
        assert_eq!(cloud.refusal("CreateL2Realiser", wrong).1.as_deref(), Some("url"), "{url}");
    }
    let tenant = tenant(&cloud, 0xa);
    let asked = vec![request("CreateL2Realiser", realiser("L2VlanNetwork"))];
    assert_eq!(cloud.send(tenant, asked).unwrap_err().code, Code::AccessDenied);
    cloud.made("CreateL2Realiser", realiser("L2VlanNetwork"));
    let snapshot = cloud.snapshot();
    let row = snapshot.list(Kind::L2Realiser).next().unwrap();
    let observed = netloom_control::inventory::Observed::new(&snapshot, &cloud.board);
    let shown = netloom_control::inventory::show(&row, &observed);
    assert!(!Value::Object(shown).to_string().contains(SECRET));
    let audits = snapshot.list(Kind::Audit).map(|row| format!("{row:?}"));
    assert!(audits.into_iter().all(|audit| !audit.contains(SECRET)));
}
