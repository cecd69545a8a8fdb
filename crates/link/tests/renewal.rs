//! Certificates of hosts: renewed when that is due, and never twice good for long.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::{fs, time::Duration};

use model::{Kind, Record, Resource, Timestamp, resource::host::HostCredential};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use store::Read;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use wire::{
    PROTOCOL, PROTOCOL_MIN, SERVER_NAME,
    digest::TableDigests,
    r#gen::{self as pb, link_client::LinkClient},
    message::{AgentMessage, Hello, RenewRequest},
    versions::Versions,
};
use world::{HostUnderTest, World, records::host_id};

const WAIT: Duration = Duration::from_secs(20);

fn identity(host: &HostUnderTest) -> Value {
    serde_json::from_slice(&fs::read(host.data.join("identity.json")).unwrap()).unwrap()
}

fn credential(world: &World) -> HostCredential {
    let record = world.store.snapshot().get(Kind::HostCredential, host_id(1).uuid()).unwrap();
    HostCredential::of(&record).unwrap().clone()
}

/// The host's certificate is as old as can be.
fn age(world: &World) {
    let record = world.store.snapshot().get(Kind::HostCredential, host_id(1).uuid()).unwrap();
    let aged = HostCredential { certificate_issued: Some(Timestamp(0)), ..credential(world) };
    world.put([Record::new(aged, record.meta)]);
}

async fn client(world: &World, own: &Value) -> LinkClient<Channel> {
    let text = |name: &str| own[name].as_str().unwrap();
    let own = Identity::from_pem(text("certificate"), text("key"));
    let ca = Certificate::from_pem(world.ca());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(SERVER_NAME).identity(own);
    let endpoint = Endpoint::from_shared(format!("https://{}", world.address)).unwrap();
    LinkClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
}

/// What the server says first on a stream with this identity.
async fn speak(world: &World, own: &Value) -> Result<(), Status> {
    let hello = Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        agent_version: "test".to_owned(),
        tables: Versions::own(),
        host: host_id(1).uuid(),
        revision: 0,
        lineage: None,
        run: None,
        digests: TableDigests::default(),
    };
    let (outbound, messages) = mpsc::channel(1);
    outbound.try_send((&AgentMessage::Hello(hello)).into()).unwrap();
    let stream = client(world, own).await.sync(ReceiverStream::new(messages)).await?;
    timeout(WAIT, stream.into_inner().message()).await.unwrap().map(|_| ())
}

/// Asks for another certificate, as the host of this number.
async fn renew(world: &World, own: &Value, number: u32) -> Result<String, Status> {
    let key = KeyPair::from_pem(own["key"].as_str().unwrap()).unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().der().to_vec();
    let request = RenewRequest { host: host_id(number).uuid(), csr };
    let answer = client(world, own).await.renew(pb::RenewRequest::from(request)).await?;
    Ok(answer.into_inner().certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renews_its_certificate_by_itself_once_that_is_due() {
    let mut world = World::new();
    let mut one = world.host(1);
    world.status(1, "connected", |status| status.connected).await;
    let (old, before) = (identity(&one), credential(&world));
    assert!(before.certificate_issued.is_some() && before.renewed_sha256.is_none());
    one.stop().await;
    world.status(1, "gone", |status| !status.connected).await;
    age(&world);
    one.restart();
    let renewed = async {
        loop {
            let now = credential(&world);
            if now.certificate_sha256 != before.certificate_sha256 {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let now = timeout(WAIT, renewed).await.expect("it is renewed and used");
    assert!(now.renewed_sha256.is_none() && now.certificate_issued > Some(Timestamp(0)));
    world.status(1, "connected", |status| status.connected).await;
    let new = identity(&one);
    assert_ne!(new["certificate"], old["certificate"]);
    assert_eq!(new["key"], old["key"]);
    one.stop().await;
    world.status(1, "gone", |status| !status.connected).await;
    assert_eq!(speak(&world, &old).await.unwrap_err().code(), Code::PermissionDenied);
    speak(&world, &new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_costs_nothing_and_nobody_else_is_given_a_certificate() {
    let mut world = World::new();
    let (mut one, mut two) = (world.host(1), world.host(2));
    for number in [1, 2] {
        world.status(number, "connected", |status| status.connected).await;
    }
    one.stop().await;
    two.stop().await;
    let (old, other) = (identity(&one), identity(&two));
    assert_eq!(renew(&world, &old, 1).await.unwrap(), "", "it is not due");
    age(&world);
    let refused = renew(&world, &other, 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "another host's certificate");
    let lost = renew(&world, &old, 1).await.unwrap();
    speak(&world, &old).await.unwrap();
    let mut new = old.clone();
    new["certificate"] = renew(&world, &old, 1).await.unwrap().into();
    assert_ne!(new["certificate"], lost.as_str());
    speak(&world, &old).await.unwrap();
    speak(&world, &new).await.unwrap();
    let replaced = async {
        while credential(&world).renewed_sha256.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT, replaced).await.unwrap();
    assert_eq!(speak(&world, &old).await.unwrap_err().code(), Code::PermissionDenied);
    speak(&world, &new).await.unwrap();
}
