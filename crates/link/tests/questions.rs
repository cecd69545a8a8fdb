//! What hosts are asked on their streams, and what becomes of those who wait for an answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::fs;

use model::status::NoAnswer;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use uuid::Uuid;
use wire::{
    PROTOCOL, PROTOCOL_MIN, PROTOCOL_QUESTIONS, SERVER_NAME,
    digest::TableDigests,
    r#gen::{self as pb, link_client::LinkClient},
    message::{AgentMessage, Hello, ServerMessage},
    question::{Answer, Answered, Asked, DropsOf, Question, Unanswered},
    versions::Versions,
};
use world::{World, records::host_id};

/// An agent that speaks the protocol by hand.
struct Agent {
    outbound: mpsc::Sender<pb::AgentMessage>,
    inbound: Streaming<pb::ServerMessage>,
}

impl Agent {
    /// On host 1, of a release that speaks this protocol.
    async fn open(world: &mut World, own: &Value, protocol: u32) -> Self {
        let text = |name: &str| own[name].as_str().unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(world.ca()))
            .domain_name(SERVER_NAME)
            .identity(Identity::from_pem(text("certificate"), text("key")));
        let endpoint = Endpoint::from_shared(format!("https://{}", world.address)).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let hello = Hello {
            protocol,
            protocol_min: PROTOCOL_MIN,
            agent_version: "test 1".to_owned(),
            tables: Versions::own(),
            host: host_id(1).uuid(),
            revision: 0,
            lineage: None,
            run: None,
            digests: TableDigests::default(),
        };
        let (outbound, messages) = mpsc::channel(8);
        outbound.try_send((&AgentMessage::Hello(hello)).into()).unwrap();
        let stream = LinkClient::new(channel).sync(ReceiverStream::new(messages)).await.unwrap();
        world.status(1, "connected", |status| status.connected).await;
        Self { outbound, inbound: stream.into_inner() }
    }

    async fn asked(&mut self) -> Asked {
        loop {
            let message = self.inbound.message().await.unwrap().expect("the stream is open");
            if let ServerMessage::Asked(asked) = message.try_into().unwrap() {
                return asked;
            }
        }
    }

    async fn answer(&self, number: u64, why: &str) {
        let answer = Answer::Unanswered(Unanswered { why: why.to_owned() });
        let answered = AgentMessage::Answered(Answered { number, answer });
        self.outbound.send((&answered).into()).await.unwrap();
    }
}

/// The identity of host 1, which has enrolled and is off now.
async fn identity(world: &mut World) -> Value {
    let mut host = world.host(1);
    world.status(1, "connected", |status| status.connected).await;
    host.stop().await;
    world.status(1, "gone", |status| !status.connected).await;
    serde_json::from_slice(&fs::read(host.data.join("identity.json")).unwrap()).unwrap()
}

fn question(number: u128) -> Question {
    Question::DropsOf(DropsOf { port: Uuid::from_u128(number), most: 1 })
}

fn why(answer: Result<Answer, NoAnswer>) -> String {
    match answer {
        Ok(Answer::Unanswered(unanswered)) => unanswered.why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_its_own_questions_in_whatever_order_they_come() {
    let mut world = World::new();
    let own = identity(&mut world).await;
    let mut agent = Agent::open(&mut world, &own, PROTOCOL).await;
    let ask = |number| {
        let questions = world.questions.clone();
        async move { questions.ask(host_id(1), question(number)).await }
    };
    let answering = async {
        let asked = [agent.asked().await, agent.asked().await];
        // Nobody has asked that.
        agent.answer(99, "odd").await;
        for Asked { number, question } in asked.into_iter().rev() {
            let Question::DropsOf(of) = question else { panic!("{question:?}") };
            agent.answer(number, &of.port.as_u128().to_string()).await;
            agent.answer(number, "twice").await;
        }
        agent
    };
    let (one, two, agent) = tokio::join!(ask(1), ask(2), answering);
    assert_eq!((why(one), why(two)), ("1".to_owned(), "2".to_owned()));
    // The one after all of those is answered, so they were taken.
    let mut agent = agent;
    let answering = async {
        let asked = agent.asked().await;
        agent.answer(asked.number, "last").await;
    };
    let (last, ()) = tokio::join!(ask(3), answering);
    assert_eq!(why(last), "last");
    assert_eq!(world.questions.unasked(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_at_once_that_the_stream_has_ended() {
    let mut world = World::new();
    assert_eq!(world.questions.ask(host_id(1), question(1)).await, Err(NoAnswer::NotConnected));
    let own = identity(&mut world).await;
    assert_eq!(world.questions.ask(host_id(1), question(1)).await, Err(NoAnswer::NotConnected));
    let mut agent = Agent::open(&mut world, &own, PROTOCOL).await;
    let ending = async {
        agent.asked().await;
        drop(agent);
    };
    let (answer, ()) = tokio::join!(world.questions.ask(host_id(1), question(1)), ending);
    assert_eq!(answer, Err(NoAnswer::Ended));
    world.status(1, "gone", |status| !status.connected).await;
    assert_eq!(world.questions.ask(host_id(1), question(1)).await, Err(NoAnswer::NotConnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_takes_the_questions_of_the_first_from_it() {
    let mut world = World::new();
    let own = identity(&mut world).await;
    let mut first = Agent::open(&mut world, &own, PROTOCOL).await;
    let questions = world.questions.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { questions.ask(host_id(1), question(1)).await });
    first.asked().await;
    let mut second = Agent::open(&mut world, &own, PROTOCOL).await;
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), Err(NoAnswer::Ended));
    let answering = async {
        let asked = second.asked().await;
        second.answer(asked.number, "second").await;
    };
    let (answer, ()) = tokio::join!(world.questions.ask(host_id(1), question(2)), answering);
    assert_eq!(why(answer), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_not_asked() {
    let mut world = World::new();
    let own = identity(&mut world).await;
    let _agent = Agent::open(&mut world, &own, PROTOCOL_QUESTIONS - 1).await;
    let answer = world.questions.ask(host_id(1), question(1)).await;
    assert_eq!(answer, Err(NoAnswer::TooOld("test 1".to_owned())));
}

/// A host that is silent has few questions at a time, and each of them ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_is_not_asked_without_end() {
    let mut world = World::new();
    let own = identity(&mut world).await;
    let mut agent = Agent::open(&mut world, &own, PROTOCOL).await;
    let mut waiting = JoinSet::new();
    for number in 0..4 {
        let questions = world.questions.clone();
        waiting.spawn(async move { questions.ask(host_id(1), question(number)).await });
    }
    for _ in 0..4 {
        agent.asked().await;
    }
    assert_eq!(world.questions.ask(host_id(1), question(9)).await, Err(NoAnswer::Busy));
    let ended = waiting.join_all().await;
    assert!(ended.iter().all(|answer| *answer == Err(NoAnswer::Silent)), "{ended:?}");
    let answering = async {
        let asked = agent.asked().await;
        agent.answer(asked.number, "late").await;
    };
    let (answer, ()) = tokio::join!(world.questions.ask(host_id(1), question(1)), answering);
    assert_eq!(why(answer), "late");
}
