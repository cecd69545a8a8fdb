//! Explanations: which hosts are asked what, how their answers become one, and what an account is told.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use imbl::OrdMap;
use model::{
    Code, Error, Id, Kind, Timestamp,
    resource::{account::Account, host::Host, vm_nic::VmNic},
    status::{NoAnswer, Pending},
};
use netloom_control::{Caller, Enrolment, Gate, Jobs, explain};
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;
use wire::{
    policy::{Action, Way},
    question::{
        Answer, Arrival, By, Decision, Delivered, Dropped, End, Other, Question, Sent, Served,
        Step, Trace,
    },
    told::Bytes,
};

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, limit, request, tenant},
    security_groups::{group, guarded},
};

const VTEPS: [&str; 2] = ["172.30.0.1", "172.30.0.2"];

type Asked = Vec<(Id<Host>, Question)>;
type Answers = VecDeque<Result<Answer, NoAnswer>>;

/// Two NICs on two hosts, of two accounts, and hosts that answer as a test says.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) fixture: Fixture,
    pub(crate) nics: [VmNic; 2],
    pub(crate) owners: [Caller; 2],
    pub(crate) asked: Arc<Mutex<Asked>>,
    pub(crate) answers: Arc<Mutex<Answers>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (mut cloud, fixture, l3) = guarded();
        let owners = [1, 2].map(|number| tenant(&cloud, number));
        let nics = [0, 1].map(|at| {
            let create = json!({"name": format!("secret-vm-{at}"), "l3NetworkUuids": [l3],
                "hostUuid": fixture.hosts[at]});
            let vm = cloud.made("CreateVmInstance", create);
            let nic = cloud.nics(&vm)[0].clone();
            let owner: Id<Account> = owners[at].account().unwrap();
            cloud.give(Kind::VmInstance, &vm, owner);
            cloud.give(Kind::VmNic, &nic.uuid.to_string(), owner);
            nic
        });
        cloud.board.revision = cloud.snapshot().revision();
        let (asked, answers) = (Arc::default(), Arc::default());
        Self { cloud, fixture, nics, owners, asked, answers }
    }

    pub(crate) fn host(&self, at: usize) -> Id<Host> {
        self.fixture.hosts[at].parse().unwrap()
    }

    pub(crate) fn ip(&self, at: usize) -> IpAddr {
        self.cloud.addresses(self.nics[at].uuid)[0].ip
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        let (_board, reports) = watch::channel(self.cloud.board.clone());
        let jobs = Jobs::new(self.cloud.store.clone(), reports, || Timestamp(1_000));
        let enrolment = Enrolment { server: String::new(), ca: String::new() };
        let (asked, answers) = (Arc::clone(&self.asked), Arc::clone(&self.answers));
        let asks = Arc::new(move |host, question| -> explain::Asking {
            asked.lock().unwrap().push((host, question));
            let answer = answers.lock().unwrap().pop_front();
            match answer {
                Some(answer) => Box::pin(std::future::ready(answer)),
                None => Box::pin(std::future::pending()),
            }
        });
        Arc::new(Gate::new(jobs, enrolment).asking(asks))
    }

    /// What a message is answered, while hosts answer this.
    pub(crate) fn call(
        &self,
        caller: Caller,
        (name, params): (&str, Value),
        answers: impl IntoIterator<Item = Result<Answer, NoAnswer>>,
    ) -> Result<Value, Error> {
        *self.answers.lock().unwrap() = answers.into_iter().collect();
        self.asked.lock().unwrap().clear();
        let gate = self.gate();
        let command = gate.command(caller, vec![request(name, params)])?;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(limit(async { gate.answer(command).await }))
    }

    /// A trace from the first NIC to the second one's port 80.
    pub(crate) fn trace(
        &self,
        caller: Caller,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Result<Value, Error> {
        let params = json!({"vmNicUuid": self.nics[0].uuid, "to": self.ip(1).to_string(),
            "protocol": "TCP", "port": 80});
        self.call(caller, ("GetVmNicTrace", params), answers.into_iter().map(Ok))
    }

    /// What the first host sends to a tunnel end, for the second NIC.
    fn sent(&self, vtep: &str) -> End {
        End::Sent(Sent {
            network: self.nics[0].l2_network_uuid.uuid(),
            vtep: Some(vtep.parse().unwrap()),
            own: Some(VTEPS[0].parse().unwrap()),
            frame: self.frame(),
        })
    }

    fn frame(&self) -> Bytes {
        let mut frame = self.nics[1].mac.0.to_vec();
        frame.resize(60, 7);
        Bytes(frame)
    }

    fn decision(&self, at: usize, action: Action, rule: Option<(Uuid, Uuid)>) -> Decision {
        let way = if at == 0 { Way::Egress } else { Way::Ingress };
        Decision {
            port: self.nics[at].uuid.uuid(),
            way,
            by: if rule.is_some() { By::Rule } else { By::Policy },
            action,
            rule: rule.map(|(rule, _)| rule),
            group: rule.map(|(_, group)| group),
            is_stateless: false,
        }
    }
}

pub(crate) fn traced(end: End) -> Trace {
    Trace { revision: 1, steps: vec![], decisions: vec![], end, inconclusive: None }
}

pub(crate) fn denied() -> End {
    End::Dropped(Dropped { reason: "policy_denied".into(), meaning: "A rule denies it.".into() })
}

fn uuid(text: &str) -> Uuid {
    Uuid::parse_str(text).unwrap()
}

/// A group of the second owner, with a rule; the second NIC is in it.
pub(crate) fn guard(world: &mut World) -> (Uuid, Uuid) {
    let web = group(&world.cloud, "secret-group");
    let rules =
        json!([{"type": "Ingress", "protocol": "TCP", "dstPortRange": "80", "action": "DROP"}]);
    let add = json!({"securityGroupUuid": web, "rules": rules});
    world.cloud.call("AddSecurityGroupRule", add).unwrap();
    let join = json!({"securityGroupUuid": web, "vmNicUuids": [world.nics[1].uuid]});
    world.cloud.call("AddVmNicToSecurityGroup", join).unwrap();
    let owner = world.owners[1].account().unwrap();
    let snapshot = world.cloud.snapshot();
    let found =
        store::Read::referrers(&snapshot, Kind::SecurityGroupRule, "securityGroupUuid", uuid(&web));
    let is_it = |id: &Uuid| {
        let row = store::Read::get(&snapshot, Kind::SecurityGroupRule, *id).unwrap();
        row.field("priority") == model::Plain::Integer(1)
    };
    let rule = found.into_iter().find(is_it).unwrap();
    world.cloud.give(Kind::SecurityGroup, &web, owner);
    world.cloud.give(Kind::SecurityGroupRule, &rule.simple().to_string(), owner);
    world.cloud.board.revision = world.cloud.snapshot().revision();
    (rule, uuid(&web))
}

/// The answers of two hosts of which the second one denies, with all that an account must not know in words.
fn across(world: &World, by: (Uuid, Uuid)) -> [Answer; 2] {
    let step = |text: String, object| Step { stage: "route".into(), text, object };
    let first = Trace {
        steps: vec![
            step(
                format!("{} is behind {}", world.nics[1].mac, VTEPS[1]),
                Some(uuid(&world.fixture.hosts[1])),
            ),
            step(
                format!("its own; {} is at {}", world.nics[1].uuid, VTEPS[1]),
                Some(world.nics[0].uuid.uuid()),
            ),
        ],
        decisions: vec![world.decision(0, Action::Accept, None)],
        ..traced(world.sent(VTEPS[1]))
    };
    let second = Trace {
        steps: vec![step(
            format!(
                "port {} by rule {} ({}:8472, vtep={})",
                world.nics[1].uuid, by.0, VTEPS[0], VTEPS[1]
            ),
            Some(world.nics[1].uuid.uuid()),
        )],
        decisions: vec![world.decision(1, Action::Drop, Some(by))],
        inconclusive: Some(format!("maps of {} are behind", world.nics[1].uuid)),
        ..traced(denied())
    };
    [Answer::Trace(first), Answer::Trace(second)]
}

#[test]
fn a_trace_goes_from_host_to_host_and_says_who_decided() {
    let mut world = World::new();
    let by = guard(&mut world);
    let mut answers = across(&world, by);
    if let Answer::Trace(second) = &mut answers[1] {
        second.inconclusive = None;
    }
    let told = world.trace(ADMINISTRATOR, answers).unwrap();
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("Dropped"), &json!("policy_denied")));
    assert_eq!(told["inconclusive"], json!([]), "{told:#}");
    let decided = &told["decidedBy"];
    assert_eq!(decided["rule"]["uuid"], json!(by.0.simple().to_string()));
    assert_eq!(decided["securityGroup"]["name"], json!("secret-group"));
    assert_eq!(decided["securityGroup"]["account"], json!("tenant 2"));
    assert_eq!((&decided["hop"], &decided["host"]), (&json!(2), &json!("h2")));
    let words = decided["words"].as_str().unwrap();
    assert!(words.contains("rule 1: Ingress TCP of IPv4 port 80 DROP"), "{words}");
    assert_eq!(told["to"]["name"], json!("secret-vm-1"));
    let stages = told["steps"].as_array().unwrap().iter().map(|step| step["hop"].as_u64());
    assert_eq!(stages.collect::<Vec<_>>(), [Some(1), Some(1), Some(2)]);

    let asked = world.asked.lock().unwrap().clone();
    let hosts: Vec<_> = asked.iter().map(|(host, _)| *host).collect();
    assert_eq!(hosts, [world.host(0), world.host(1)]);
    let Question::FromPort(first) = &asked[0].1 else { panic!("{asked:?}") };
    assert_eq!((first.remote, first.protocol, first.port_or_type), (world.ip(1), 6, 80));
    let expected = Arrival {
        network: world.nics[0].l2_network_uuid.uuid(),
        vtep: Some(VTEPS[0].parse().unwrap()),
        frame: world.frame(),
    };
    assert_eq!(asked[1].1, Question::Arrival(expected));
}

/// Whoever asks from its own NIC learns nothing of others but that there is something, and what it does.
#[test]
fn an_account_is_told_nothing_of_others_but_what_they_do() {
    let mut world = World::new();
    let by = guard(&mut world);
    let told = world.trace(world.owners[0], across(&world, by)).unwrap();
    let text = told.to_string();
    let nic = world.nics[1].uuid.uuid();
    let secrets = [
        "secret-vm-1",
        "secret-group",
        "h1",
        "h2",
        "tenant 2",
        VTEPS[0],
        VTEPS[1],
        &world.nics[1].mac.to_string(),
        &world.fixture.hosts[0],
        &world.fixture.hosts[1],
        &nic.to_string(),
        &nic.simple().to_string(),
        &by.0.to_string(),
        &by.0.simple().to_string(),
        &by.1.simple().to_string(),
        &world.nics[0].l2_network_uuid.to_string(),
    ];
    for secret in secrets {
        assert!(!text.contains(secret), "{secret}: {told:#}");
    }
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("Dropped"), &json!("policy_denied")));
    assert_eq!(told["decidedBy"]["action"], json!("DROP"));
    assert_eq!(
        told["decidedBy"]["securityGroup"]["words"],
        json!("another account's security group")
    );
    assert_eq!(told["to"]["words"], json!("another account's NIC"));
    assert_eq!(told["from"]["name"], json!("secret-vm-0"), "its own has its name");
    assert_eq!(told["steps"][1]["object"]["uuid"], json!(world.nics[0].uuid));
    assert_eq!([&told["steps"][0]["text"], &told["steps"][2]["text"]], ["", ""]);
    assert_eq!(told["steps"][1]["text"], json!("its own; (...) is at (...)"));
    let doubts = told["inconclusive"][0].as_str().unwrap();
    assert_eq!(doubts, "host 2 of the way: maps of (...) are behind");

    // What is shared has its name again.
    let share = json!({"resourceUuids": [by.1.simple().to_string()], "toPublic": true});
    world.cloud.call("ShareResource", share).unwrap();
    world.cloud.board.revision = world.cloud.snapshot().revision();
    let told = world.trace(world.owners[0], across(&world, by)).unwrap();
    assert_eq!(told["decidedBy"]["securityGroup"]["name"], json!("secret-group"));
    assert_eq!(told["to"]["words"], json!("another account's NIC"));

    // Of another's NIC it cannot even ask.
    let params = json!({"vmNicUuid": world.nics[1].uuid});
    for name in ["GetVmNicDrops", "GetVmNicSecurityRules"] {
        let error = world.call(world.owners[0], (name, params.clone()), []).unwrap_err();
        assert_eq!(
            (error.code, error.field.as_deref()),
            (Code::NotFound, Some("vmNicUuid")),
            "{name}"
        );
    }
    let to = json!({"vmNicUuid": world.nics[0].uuid, "to": world.nics[1].uuid, "protocol": "ICMP"});
    let error = world.call(world.owners[0], ("GetVmNicTrace", to), []).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("to")));
    assert!(world.asked.lock().unwrap().is_empty());
}

#[test]
fn what_is_about_to_change_makes_it_inconclusive_and_is_told_all_the_same() {
    let mut world = World::new();
    let delivered = |world: &World| {
        let port = world.nics[1].uuid.uuid();
        [traced(world.sent(VTEPS[1])), traced(End::Delivered(Delivered { port }))]
            .map(Answer::Trace)
    };
    let doubts = |world: &World| {
        let told = world.trace(ADMINISTRATOR, delivered(world)).unwrap();
        assert_eq!(told["verdict"], json!("Delivered"));
        told["inconclusive"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(doubts(&world).is_empty());

    let revision = world.cloud.board.revision;
    world.cloud.board.revision = revision - 1;
    assert!(doubts(&world)[0].contains("newest change"), "{:?}", doubts(&world));
    world.cloud.board.revision = revision;

    let status = world.cloud.board.status(world.host(1)).clone();
    let mut behind = status.clone();
    let pending = Pending { since: revision, last: revision };
    behind.pending = OrdMap::unit(world.nics[1].uuid.uuid(), pending);
    world.cloud.board.put(world.host(1), behind);
    let told = doubts(&world);
    assert!(
        told[0].contains("host h2") && told[0].contains("NIC of instance secret-vm-1"),
        "{told:?}"
    );

    // What has nothing to do with the packet does not matter.
    let mut behind = status.clone();
    behind.pending = OrdMap::unit(Uuid::from_u128(77), pending);
    world.cloud.board.put(world.host(1), behind);
    assert!(doubts(&world).is_empty());

    let mut unconfirmed = status.clone();
    unconfirmed.confirmed = false;
    world.cloud.board.first = revision;
    world.cloud.board.put(world.host(1), unconfirmed);
    assert!(doubts(&world)[0].contains("since the server started"));
    world.cloud.board.first = 0;
    world.cloud.board.put(world.host(1), status);

    // The first host sends it to itself, where the NIC is not.
    let answers = [traced(world.sent(VTEPS[0])), traced(denied())].map(Answer::Trace);
    let told = world.trace(ADMINISTRATOR, answers).unwrap();
    assert!(told["inconclusive"][0].as_str().unwrap().contains("not any more"), "{told:#}");
}

#[test]
fn a_packet_that_is_not_followed_to_its_end_says_why() {
    let world = World::new();
    let remote = json!({"l2NetworkUuid": world.fixture.pool, "clusterUuid": world.fixture.cluster,
        "remoteVtepIp": "172.30.0.99"});
    world.cloud.call("CreateVxlanPoolRemoteVtep", remote).unwrap();
    let told =
        world.trace(ADMINISTRATOR, [Answer::Trace(traced(world.sent("172.30.0.99")))]).unwrap();
    assert_eq!(told["verdict"], json!("Leaves"));
    assert!(told["words"].as_str().unwrap().contains("172.30.0.99, which is no host's"));
    let told =
        world.trace(world.owners[0], [Answer::Trace(traced(world.sent("172.30.0.99")))]).unwrap();
    assert!(!told.to_string().contains("172.30.0.99"), "{told:#}");

    let told =
        world.trace(ADMINISTRATOR, [Answer::Trace(traced(world.sent("172.30.0.98")))]).unwrap();
    assert_eq!(told["verdict"], json!("Unknown"));
    assert!(told["inconclusive"].to_string().contains("172.30.0.98"), "{told:#}");

    // To and fro.
    let on_and_on = [1, 0, 1, 0, 1].map(|at| Answer::Trace(traced(world.sent(VTEPS[at]))));
    let told = world.trace(ADMINISTRATOR, on_and_on).unwrap();
    assert_eq!(told["verdict"], json!("Unknown"));
    assert_eq!(world.asked.lock().unwrap().len(), 4);

    let other = [End::Served(Served { by: "DHCP".into() }), End::Other(Other { what: "x".into() })];
    let verdicts = other.map(|end| {
        world.trace(ADMINISTRATOR, [Answer::Trace(traced(end))]).unwrap()["verdict"].clone()
    });
    assert_eq!(verdicts, [json!("Answered"), json!("Unknown")]);

    // The second host says nothing: what is known is told.
    let params =
        json!({"vmNicUuid": world.nics[0].uuid, "to": world.ip(1), "protocol": "UDP", "port": 53});
    let first = Answer::Trace(traced(world.sent(VTEPS[1])));
    let answers = [Ok(first), Err(NoAnswer::Silent)];
    let told = world.call(ADMINISTRATOR, ("GetVmNicTrace", params), answers).unwrap();
    assert_eq!(told["verdict"], json!("Unknown"));
    assert!(told["words"].as_str().unwrap().contains("h2"), "{told:#}");
    assert!(told["words"].as_str().unwrap().contains("has not answered in time"), "{told:#}");
    assert_eq!(told["hosts"].as_array().unwrap().len(), 1);
}
