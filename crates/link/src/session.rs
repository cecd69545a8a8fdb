//! One host's open stream: reads its reports, sends it what it lacks, ends when either side does,
//! when the host is silent, or when another stream takes its place.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wire::{
    SILENCE_MAX, r#gen as pb,
    message::{AgentMessage, Heartbeat, Report, ServerMessage},
    question::Asked,
};

use crate::{
    Link,
    feed::{News, Outgoing, Ticket},
    guest::Guest,
    service::parse,
};

/// How long a new stream may take to say who it is.
pub(crate) const HELLO_WAIT: Duration = Duration::from_secs(5);

/// After how long a stream has lasted. Of two agents with one identity each ends the other's stream
/// within seconds.
const LASTING: Duration = Duration::from_secs(60);

/// What an entry of a report costs the session that takes it: more than it costs the feed.
const REST_PER_ENTRY: Duration = Duration::from_micros(3);

/// How long a host may take to make room for the next message.
const SEND_WAIT: Duration = Duration::from_secs(30);

/// Messages on their way to the HTTP/2 connection; when full, the session waits, and what changes
/// meanwhile becomes one delta.
const OUTBOUND_MESSAGES: usize = 4;

type Outbound = Sender<Result<pb::ServerMessage, Status>>;

/// Starts the session's task on its connection; the stream is what it sends.
pub(crate) fn start(
    link: &Arc<Link>,
    (ticket, guest): (Ticket, Arc<Guest>),
    inbound: Streaming<pb::AgentMessage>,
) -> ReceiverStream<Result<pb::ServerMessage, Status>> {
    let (outbound, stream) = mpsc::channel(OUTBOUND_MESSAGES);
    let own = Arc::clone(link);
    guest.becomes_host();
    let asked = link.questions.open(&ticket);
    link.sessions.spawn(async move {
        // All four end for good; dropping the others loses nothing that the feed does not know.
        let why = tokio::select! {
            why = read(&own, &ticket, inbound) => why,
            why = write(&own, (&ticket, &guest), &outbound) => why,
            why = pass_on(asked, &outbound) => why,
            () = ticket.over.cancelled() => Status::aborted("the server ends this stream"),
        };
        tracing::info!(host = %ticket.host, why = why.message(), "agent disconnected");
        // Best effort: the host notices the end of the stream anyway.
        let _ = outbound.try_send(Err(why));
        own.questions.close(&ticket);
        let mut feed = own.feed();
        feed.disconnect(&ticket);
        own.publish(&mut feed);
        drop(feed);
        guest.becomes_guest();
    });
    ReceiverStream::new(stream)
}

async fn read(link: &Link, ticket: &Ticket, mut inbound: Streaming<pb::AgentMessage>) -> Status {
    let (started, mut lasts) = (Instant::now(), false);
    loop {
        let message = match timeout(SILENCE_MAX, inbound.message()).await {
            Err(_) => return Status::deadline_exceeded("the agent is silent"),
            Ok(Err(error)) => return error,
            Ok(Ok(None)) => return Status::ok("the agent ended the stream"),
            Ok(Ok(Some(message))) => message,
        };
        if !lasts && started.elapsed() >= LASTING {
            lasts = true;
            let mut feed = link.feed();
            feed.lasts(ticket);
            link.publish(&mut feed);
        }
        match parse(message) {
            Err(error) => return error,
            Ok(AgentMessage::Answered(answered)) => link.questions.take(ticket, answered),
            Ok(AgentMessage::Hello(_)) => return Status::invalid_argument("a second Hello"),
            Ok(AgentMessage::Heartbeat(beat)) => {
                let ports = beat.connections.as_ref().map_or(0, |counted| counted.ports.len());
                link.beat(ticket, beat);
                sleep(rest_after(ports)).await;
            }
            Ok(AgentMessage::Report(report)) => {
                let rest = rest_after(report.up.len() + report.failed.len());
                link.report(ticket, report);
                // What comes meanwhile waits in the connection, and then at the agent.
                sleep(rest).await;
            }
        }
    }
}

impl Link {
    fn report(&self, ticket: &Ticket, report: Report) {
        let mut feed = self.feed();
        feed.report(ticket, report);
        self.publish(&mut feed);
    }

    fn beat(&self, ticket: &Ticket, beat: Heartbeat) {
        let now = (self.clock)();
        let mut feed = self.feed();
        // Nearly all say nothing new, or what a busy host has counted.
        match feed.beat(ticket, beat, now) {
            News::None => {}
            News::ForPeople => self.publish_quietly(&mut feed),
            News::ForAll => self.publish(&mut feed),
        }
    }
}

/// How long nothing is read after a message with so many entries: longer than it has kept all other
/// hosts from the feed. Agents report a few times in a second, and leave out what is not the newest.
fn rest_after(entries: usize) -> Duration {
    Duration::from_millis(1) + REST_PER_ENTRY * u32::try_from(entries).unwrap_or(u32::MAX)
}

async fn write(link: &Link, (ticket, guest): (&Ticket, &Guest), outbound: &Outbound) -> Status {
    loop {
        let outgoing = {
            let mut feed = link.feed();
            let outgoing = feed.pull(ticket);
            guest.allow_reports_on(feed.held(ticket));
            link.publish(&mut feed);
            outgoing
        };
        let is_whole = outgoing.as_ref().is_some_and(Outgoing::is_whole);
        let mut messages = outgoing.into_iter().flat_map(Outgoing::messages);
        while let Some(message) = cut(link, is_whole, &mut messages).await {
            match timeout(SEND_WAIT, outbound.send(Ok(message))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Status::ok("the stream is gone"),
                Err(_) => return Status::deadline_exceeded("the agent does not read"),
            }
        }
        ticket.wake.notified().await;
    }
}

/// Sends what the host is asked, between the parts of what it is to hold.
async fn pass_on(mut asked: Receiver<Asked>, outbound: &Outbound) -> Status {
    while let Some(asked) = asked.recv().await {
        let message = pb::ServerMessage::from(&ServerMessage::Asked(asked));
        match timeout(SEND_WAIT, outbound.send(Ok(message))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Status::ok("the stream is gone"),
            Err(_) => return Status::deadline_exceeded("the agent does not read"),
        }
    }
    Status::aborted("another stream took its place")
}

/// Cuts the next message. Few cut snapshots at a time: when all hosts come back at once, what is
/// committed meanwhile must still find a thread.
async fn cut(
    link: &Link,
    is_whole: bool,
    messages: &mut (impl Iterator<Item = ServerMessage> + Send),
) -> Option<pb::ServerMessage> {
    let permit = match is_whole {
        // Never closed.
        true => link.cutting.acquire().await.ok(),
        false => None,
    };
    let message = messages.next().map(|message| pb::ServerMessage::from(&message));
    drop(permit);
    message
}
