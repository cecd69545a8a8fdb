//! What the server says on a stream, to a client that speaks the protocol by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::{fs, time::Duration};

use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use wire::{
    PROTOCOL, PROTOCOL_MIN, SERVER_NAME,
    digest::{SetDigest, TableDigests},
    r#gen::{self as pb, link_client::LinkClient},
    holding::Holding,
    message::{AgentMessage, Hello, Report, ServerMessage},
    object::Table,
    parts::Assembly,
    versions::Versions,
};
use world::{
    World,
    records::{disabled_rule, group, group_uuid, host_id, in_group, instance, network, nic_uuid},
};

const WAIT: Duration = Duration::from_secs(20);

/// The identity of a host that has enrolled and is off now.
async fn identity(world: &mut World, number: u32) -> Value {
    let mut host = world.host(number);
    world.status(number, "connected", |status| status.connected).await;
    host.stop().await;
    world.status(number, "gone", |status| !status.connected).await;
    serde_json::from_slice(&fs::read(host.data.join("identity.json")).unwrap()).unwrap()
}

fn hello(host: u32, digests: TableDigests) -> Hello {
    let (agent_version, host) = ("test".to_owned(), host_id(host).uuid());
    Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        agent_version,
        tables: Versions::own(),
        host,
        revision: 0,
        lineage: None,
        run: None,
        digests,
    }
}

struct Stream {
    outbound: mpsc::Sender<pb::AgentMessage>,
    inbound: Streaming<pb::ServerMessage>,
}

impl Stream {
    async fn open(world: &World, own: Option<&Value>, hello: Hello) -> Result<Self, Status> {
        Self::begin(world, own, (&AgentMessage::Hello(hello)).into()).await
    }

    async fn begin(
        world: &World,
        own: Option<&Value>,
        hello: pb::AgentMessage,
    ) -> Result<Self, Status> {
        let ca = Certificate::from_pem(world.ca());
        let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(SERVER_NAME);
        if let Some(own) = own {
            let text = |name: &str| own[name].as_str().unwrap();
            tls = tls.identity(Identity::from_pem(text("certificate"), text("key")));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", world.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        let (outbound, messages) = mpsc::channel(8);
        outbound.try_send(hello).unwrap();
        let sync = LinkClient::new(channel).sync(ReceiverStream::new(messages)).await?;
        Ok(Self { outbound, inbound: sync.into_inner() })
    }

    /// The next part of what the host must hold.
    async fn next(&mut self) -> Result<ServerMessage, Status> {
        loop {
            let message = timeout(WAIT, self.inbound.message()).await.unwrap()?;
            match message.expect("the stream is open").try_into().unwrap() {
                ServerMessage::Welcome(_) => {}
                message => return Ok(message),
            }
        }
    }

    /// Takes one change whole, whatever comes.
    async fn take(&mut self, held: &Holding) -> (u64, Holding) {
        let mut assembly = Assembly::default();
        loop {
            let message = self.next().await.unwrap();
            if let Some(done) = assembly.take(held, message).unwrap() {
                return done;
            }
        }
    }
}

async fn refusal(world: &World, own: Option<&Value>, hello: Hello) -> Status {
    match Stream::open(world, own, hello).await {
        Err(status) => status,
        Ok(mut stream) => stream.next().await.expect_err("refused"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_needs_the_hosts_own_certificate() {
    let (mut world, mut foreign) = (World::new(), World::new());
    let (one, two) = (identity(&mut world, 1).await, identity(&mut world, 2).await);
    let stranger = identity(&mut foreign, 1).await;
    let nothing = TableDigests::default();
    let status = refusal(&world, Some(&two), hello(1, nothing)).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let status = refusal(&world, None, hello(1, nothing)).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let status = refusal(&world, Some(&stranger), hello(1, nothing)).await;
    // TLS ends the connection before the service can say anything.
    let by_service = [Code::PermissionDenied, Code::Unauthenticated, Code::InvalidArgument];
    assert!(!by_service.contains(&status.code()), "{status}");
    Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_too_old_or_too_new_is_refused_and_told_what_to_upgrade() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let mine = || hello(1, TableDigests::default());
    let old = Hello { protocol: PROTOCOL_MIN - 1, ..mine() };
    let new = Hello { protocol: PROTOCOL + 2, protocol_min: PROTOCOL + 1, ..mine() };
    for (other, upgrade) in [(old, "upgrade the agent"), (new, "upgrade the server")] {
        let status = refusal(&world, Some(&one), other).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains(upgrade), "{status}");
    }
    let newer = Hello { protocol: PROTOCOL + 1, ..mine() };
    Stream::open(&world, Some(&one), newer).await.unwrap().next().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_gets_what_it_can_hold_and_people_are_told_of_the_rest() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    let mut tables = Versions::own();
    tables.note(Table::Port.number(), 0);
    let old = Hello { tables, ..hello(1, TableDigests::default()) };
    let mut stream = Stream::open(&world, Some(&one), old).await.unwrap();
    let mut held = (0, Holding::default());
    while held.0 < revision {
        held = stream.take(&held.1).await;
    }
    let tables: Vec<_> = held.1.objects().keys().map(|key| key.table).collect();
    assert_eq!(tables, [Table::Network, Table::Instance]);
    let told = world.status(1, "told", |status| !status.failed.is_empty()).await;
    let reason = &told.failed[&nic_uuid(10)];
    assert!(reason.contains("upgrade the agent on host"), "{reason}");
}

/// What an agent of the release before security groups can hold.
fn before_groups() -> Versions {
    let mut tables = Versions::own();
    tables.note(Table::Port.number(), 7);
    for table in [Table::SecurityGroup, Table::Member, Table::Timeouts] {
        tables.note(table.number(), 0);
    }
    tables
}

/// A port that an agent cannot guard is not opened there, and people are told why: of the port as long as that
/// is withheld, whatever else of the NIC comes and goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_policy_is_withheld_from_an_agent_that_cannot_guard_it() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    world.put([network(1)]);
    world.put(instance(10, 1, 1));
    world.put(instance(11, 1, 1));
    world.put(group(1));
    let revision = world.put([in_group(10, 1)]);
    let old = Hello { tables: before_groups(), ..hello(1, TableDigests::default()) };
    let mut stream = Stream::open(&world, Some(&one), old).await.unwrap();
    let mut held = (0, Holding::default());
    while held.0 < revision {
        held = stream.take(&held.1).await;
    }
    let tables = |held: &Holding| held.objects().keys().map(|key| key.table).collect::<Vec<_>>();
    let expected = [Table::Network, Table::Instance, Table::Instance, Table::Port];
    assert_eq!(tables(&held.1), expected, "that which is in no group");
    let of_port = |status: &model::status::HostStatus| {
        let reason = status.failed.get(&nic_uuid(10));
        reason.is_some_and(|reason| reason.starts_with("port ") && reason.contains("upgrade"))
    };
    let told = world.status(1, "told", of_port).await;
    assert!(told.failed[&group_uuid(1)].starts_with("security_group "));

    // It is no member for anybody now, and a port that cannot be guarded as before.
    let revision = world.put([disabled_rule(1)]);
    world.status(1, "there", |status| status.connected).await;
    let later = world.put(instance(12, 1, 1));
    while held.0 < later {
        held = stream.take(&held.1).await;
    }
    let told = world.status(1, "told of the port", of_port).await;
    assert!(told.unsettled(nic_uuid(10), revision).is_some());

    // Out of the group it is a port as it was.
    let later = world.delete([in_group(10, 1)]);
    while held.0 < later {
        held = stream.take(&held.1).await;
    }
    assert_eq!(tables(&held.1).iter().filter(|table| **table == Table::Port).count(), 3);
    world.status(1, "well", |status| status.failed.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_agent_that_holds_what_this_server_does_not_know_is_given_everything_anew() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let mut digests = TableDigests::default();
    digests.note(99, SetDigest::from_bytes([1; 32]));
    let newer = AgentMessage::Hello(Hello { protocol: PROTOCOL + 1, ..hello(1, digests) });
    let mut newer = pb::AgentMessage::from(&newer);
    if let Some(pb::agent_message::Kind::Hello(hello)) = &mut newer.kind {
        hello.tables.push(pb::TableVersion { table: 99, version: 7 });
        hello.digests.push(pb::TableDigest { table: 99, digest: vec![1; 32] });
    }
    let mut stream = Stream::begin(&world, Some(&one), newer).await.unwrap();
    let first = stream.next().await.unwrap();
    assert!(matches!(first, ServerMessage::Snapshot(_)), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_digests_bring_no_objects() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    let mut first =
        Stream::open(&world, Some(&one), hello(1, TableDigests::default())).await.unwrap();
    let mut held = (0, Holding::default());
    while held.0 < revision {
        held = first.take(&held.1).await;
    }
    assert_eq!(held.1.objects().len(), 3);
    drop(first);
    let again = hello(1, held.1.digests());
    let mut second = Stream::open(&world, Some(&one), again).await.unwrap();
    let ServerMessage::Delta(delta) = second.next().await.unwrap() else { panic!("a snapshot") };
    assert_eq!((delta.upserts.len(), delta.removes.len()), (0, 0));
    assert_eq!((delta.revision, delta.last), (revision, Some(held.1.digests())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_replaces_the_first() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let nothing = TableDigests::default();
    let mut first = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    let (revision, held) = first.take(&Holding::default()).await;
    let mut second = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    second.take(&Holding::default()).await;
    assert_eq!(first.next().await.unwrap_err().code(), Code::Aborted);

    let report = Report { revision, processed: true, digests: held.digests(), ..Report::default() };
    second.outbound.send((&AgentMessage::Report(report)).into()).await.unwrap();
    let status = world.settled(1, revision).await;
    assert!(status.connected, "the end of the first changes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_away_for_long_gets_a_snapshot() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let revision = world.put([network(1)]);
    let nothing = TableDigests::default();
    let last = (0..70).map(|number| world.put(instance(100 + number, 1, 1))).max().unwrap();
    // Wait until the server's end has seen it all: a stream that starts there gets it at once.
    let mut probe = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    let mut held = (revision, Holding::default());
    while held.0 < last {
        held = probe.take(&held.1).await;
    }
    drop(probe);
    let mut stream = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    let first = stream.next().await.unwrap();
    assert!(matches!(first, ServerMessage::Snapshot(_)), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_stream_and_nothing_else() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let nothing = TableDigests::default();
    let mut stream = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    stream.take(&Holding::default()).await;
    stream.outbound.send(pb::AgentMessage { kind: None }).await.unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_is_taken_for_dead() {
    let mut world = World::new();
    let one = identity(&mut world, 1).await;
    let nothing = TableDigests::default();
    let mut stream = Stream::open(&world, Some(&one), hello(1, nothing)).await.unwrap();
    stream.take(&Holding::default()).await;
    // Its HTTP/2 connection answers pings all the while.
    assert_eq!(stream.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    world.status(1, "gone", |status| !status.connected).await;
}
