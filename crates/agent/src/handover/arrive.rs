//! The end that takes over. A stranger gets a seat and a few seconds; who has proven to be a host is
//! heard about what comes from that host, and nothing else.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use dataplane::{HandedConnection, TakenOver, Use};
use packet::Addr;
use seats::Seat;
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use uuid::Uuid;
use wire::object::{Handover, Instance, Object, ObjectKey, Port, Table};

use super::{
    Shared,
    frame::{Answer, Frame, Hello, LONG_MAX, SHORT_MAX, STALL, VERSION, What, odd, receive, send},
    tls::host_of,
};
use crate::{plan, state::Desired};

/// How long somebody may take to prove to be a host and to say what for.
const GUEST_WAIT: Duration = Duration::from_secs(10);

/// How long a machine may take to be made here, and to take in the last of its memory.
const MAKING_LIMIT: Duration = Duration::from_secs(60);
const LOADING_LIMIT: Duration = Duration::from_secs(120);
const LOADING_PAUSE: Duration = Duration::from_millis(5);

/// How long connections of a NIC are taken over after its move is over: the last ones are under way.
const LATE: Duration = Duration::from_secs(5);

/// How much longer nothing is taken than taking has lasted: a fifth of a CPU at most.
const REST_SHARE: u32 = 4;

/// How long the other end may have nothing to say about connections.
const QUIET: Duration = Duration::from_secs(600);

/// Both halves of a connection.
struct Line {
    from: ReadHalf<TlsStream<TcpStream>>,
    to: WriteHalf<TlsStream<TcpStream>>,
}

/// What the other end may be heard about.
#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// A machine, and its ports.
    Machine(Box<Instance>, Vec<Port>),
    /// A port.
    Port(Box<Port>),
}

/// Serves a connection until its end.
pub(super) async fn serve(shared: Shared, stream: TcpStream, (source, seat): (IpAddr, Seat)) {
    let opened = tokio::select! {
        opened = timeout(GUEST_WAIT, open(&shared, stream)) => opened,
        () = seat.lost() => return,
    };
    let (mut line, host, hello) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(%source, %error, "nobody that could hand something over");
            return;
        }
        Err(_) => return,
    };
    // From here on it is a host of ours.
    seat.works();
    let desired = shared.desired.borrow().clone();
    let ended = match admit(desired.as_ref(), host, &hello) {
        Err(refused) => {
            tracing::info!(%host, ?hello, ?refused, "nothing is taken over");
            line.answer(refused).await
        }
        Ok(Admitted::Machine(instance, ports)) if hello.what == What::Machine => {
            machine(&shared, &mut line, (&instance, &ports), &hello).await
        }
        Ok(Admitted::Machine(instance, _)) => question(&shared, &mut line, &instance, &hello).await,
        Ok(Admitted::Port(port)) => connections(&shared, &mut line, &port).await,
    };
    match ended {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            tracing::info!(%host, uuid = %hello.uuid, %error, "a handover has ended early");
        }
        _ => {}
    }
    let _ = line.to.shutdown().await;
}

/// Shakes hands; who it is, and what for.
async fn open(shared: &Shared, stream: TcpStream) -> io::Result<(Line, Uuid, Hello)> {
    let tls = shared.tls.borrow().clone().ok_or_else(|| odd("too early"))?;
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(tls.server.clone()).accept(stream).await?;
    let host = host_of(stream.get_ref().1.peer_certificates());
    let host = host.ok_or_else(|| odd("the certificate of no host"))?;
    let (mut from, to) = tokio::io::split(stream);
    match receive(&mut from, SHORT_MAX, GUEST_WAIT).await? {
        Frame::Hello(hello) => Ok((Line { from, to }, host, hello)),
        _ => Err(odd("no greeting")),
    }
}

/// Whether a host may be heard about that: only about what comes from it by this very move.
fn admit(desired: Option<&Desired>, host: Uuid, hello: &Hello) -> Result<Admitted, Answer> {
    if hello.version != VERSION {
        let text =
            format!("the agents speak versions {} and {VERSION}: upgrade one", hello.version);
        return Err(Answer::refused(text));
    }
    let holding = desired.map(|desired| &desired.holding);
    let table = if hello.what == What::Port { Table::Port } else { Table::Instance };
    let key = ObjectKey { table, uuid: hello.uuid };
    let object = holding.and_then(|holding| holding.objects().get(&key));
    let is_it = |comes: &Handover| comes.host == host && comes.number == hello.number;
    match (object.map(|object| &**object), holding) {
        (Some(Object::Instance(instance)), Some(holding))
            if instance.comes.as_ref().is_some_and(is_it) =>
        {
            let own = plan::ports(holding).filter(|port| port.instance == Some(instance.uuid));
            Ok(Admitted::Machine(Box::new(instance.clone()), own.cloned().collect()))
        }
        (Some(Object::Port(port)), _)
            if port.comes.is_some()
                && port.instance.is_none()
                && port.handover.as_ref().is_some_and(is_it) =>
        {
            Ok(Admitted::Port(Box::new(port.clone())))
        }
        _ => Err(Answer::later("it knows of no such move from that host")),
    }
}

impl Line {
    async fn answer(&mut self, answer: Answer) -> io::Result<()> {
        send(&mut self.to, Frame::Answer(answer)).await
    }
}

/// Takes over a machine.
async fn machine(
    shared: &Shared,
    line: &mut Line,
    (instance, ports): (&Instance, &[Port]),
    hello: &Hello,
) -> io::Result<()> {
    if let Err(why) = made(shared, instance, hello).await {
        return line.answer(Answer::refused(why)).await;
    }
    let qemu = &shared.movers.qemu;
    let into = match qemu.receive(instance.uuid).await {
        Ok(into) => into,
        Err(error) => return line.answer(Answer::refused(error.to_string())).await,
    };
    line.answer(Answer::default()).await?;
    if let Err(why) = load(shared, line, (instance, into)).await? {
        return line.answer(Answer::refused(why)).await;
    }
    line.answer(Answer::default()).await?;
    loop {
        match receive(&mut line.from, LONG_MAX, STALL).await? {
            Frame::Connections(nic, connections) => {
                let port = ports.iter().find(|port| port.uuid == nic);
                let port = port.ok_or_else(|| odd("connections of another NIC"))?;
                let taken = take(shared, port, connections).await;
                line.answer(answer_of(taken)).await?;
            }
            Frame::Go => return land(shared, line, instance.uuid, hello.number).await,
            _ => return Err(odd("something else than what follows the memory")),
        }
    }
}

/// Waits until a machine is there and its ports are guarded, and looks whether it is the same one.
async fn made(shared: &Shared, instance: &Instance, hello: &Hello) -> Result<(), String> {
    let mut achieved = shared.achieved.clone();
    let (limit, uuid) = (Instant::now() + MAKING_LIMIT, instance.uuid);
    loop {
        let reason = match &*achieved.borrow_and_update() {
            Some(last) if last.outcome.awaiting.contains(&uuid) => break,
            Some(last) => last.outcome.failed.get(&uuid).cloned(),
            None => None,
        };
        if let Some(reason) = &reason
            && reason.starts_with(crate::jobs::CANNOT_BE_MADE)
        {
            return Err(reason.clone());
        }
        let desired = shared.desired.borrow().clone();
        if !desired.is_some_and(|desired| super::coming(&desired).any(|(it, _)| it == uuid)) {
            return Err("the move was given up".to_owned());
        }
        match timeout(limit.saturating_duration_since(Instant::now()), achieved.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err("the agent ends".to_owned()),
            Err(_) => {
                return Err(reason.unwrap_or_else(|| "it is not made in time".to_owned()));
            }
        }
    }
    let here = shared.movers.qemu.traits(uuid).await.map_err(|error| error.to_string())?;
    if here.processor != hello.processor {
        return Err(format!(
            "machines run by {} there and by {} here: choose a host with the same processor",
            hello.processor, here.processor
        ));
    }
    if here.slots != hello.slots {
        return Err(
            "its NICs are in other slots than here: StopVmInstance and StartVmInstance put \
            them in order"
                .to_owned(),
        );
    }
    Ok(())
}

/// Gives QEMU the memory that comes, and waits until it has taken all of it. The inner error is of this
/// end.
async fn load(
    shared: &Shared,
    line: &mut Line,
    (instance, mut into): (&Instance, tokio::net::UnixStream),
) -> io::Result<Result<(), String>> {
    let qemu = &shared.movers.qemu;
    loop {
        match receive(&mut line.from, LONG_MAX, STALL).await? {
            Frame::Memory(bytes) => {
                let written = timeout(STALL, into.write_all(&bytes)).await;
                if !matches!(written, Ok(Ok(()))) {
                    // Why it does not read any more, it says at its end.
                    sleep(LOADING_PAUSE * 20).await;
                    let why = qemu.has_received(instance.uuid).await.err();
                    let why =
                        why.map_or("its QEMU takes no more memory".to_owned(), |e| e.to_string());
                    return Ok(Err(why));
                }
            }
            Frame::MemoryEnd => break,
            _ => return Err(odd("something else than memory")),
        }
    }
    into.shutdown().await?;
    let limit = Instant::now() + LOADING_LIMIT;
    loop {
        match qemu.has_received(instance.uuid).await {
            Ok(true) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error.to_string())),
            Ok(false) if Instant::now() > limit => {
                return Ok(Err("its QEMU does not come to an end with its memory".to_owned()));
            }
            Ok(false) => sleep(LOADING_PAUSE).await,
        }
    }
}

/// Has a machine run.
async fn land(shared: &Shared, line: &mut Line, instance: Uuid, number: u32) -> io::Result<()> {
    match shared.movers.qemu.land(instance).await {
        Ok(()) => {
            shared.told.send_modify(|told| _ = told.landed.insert(number));
            line.answer(Answer::default()).await
        }
        Err(error) => line.answer(Answer::later(error.to_string())).await,
    }
}

/// Says whether a machine runs, and has it run if it has all that it needs: where it was, it does not.
async fn question(
    shared: &Shared,
    line: &mut Line,
    instance: &Instance,
    hello: &Hello,
) -> io::Result<()> {
    if hello.what != What::Question {
        return Err(odd("a machine as a port"));
    }
    let qemu = &shared.movers.qemu;
    match qemu.has_landed(instance.uuid) {
        true => line.answer(Answer::default()).await,
        false => match qemu.has_received(instance.uuid).await {
            Ok(true) => land(shared, line, instance.uuid, hello.number).await,
            Ok(false) => line.answer(Answer::refused("it has not got its memory")).await,
            Err(error) => line.answer(Answer::refused(error.to_string())).await,
        },
    }
}

/// Takes over the connections of a port, round by round.
async fn connections(shared: &Shared, line: &mut Line, port: &Port) -> io::Result<()> {
    line.answer(Answer::default()).await?;
    let mut over = None;
    loop {
        let Frame::Connections(nic, found) = receive(&mut line.from, LONG_MAX, QUIET).await? else {
            return Err(odd("something else than connections"));
        };
        if nic != port.uuid {
            return Err(odd("connections of another NIC"));
        }
        let begin = Instant::now();
        if !is_still_ours(shared, port, &mut over) {
            return line.answer(Answer::refused("the move is over")).await;
        }
        let taken = take(shared, port, found).await;
        line.answer(answer_of(taken)).await?;
        sleep(begin.elapsed() * REST_SHARE).await;
    }
}

/// Whether the port is still on its way here, or has come a moment ago.
fn is_still_ours(shared: &Shared, port: &Port, over: &mut Option<Instant>) -> bool {
    let desired = shared.desired.borrow().clone();
    let now = desired.as_ref().and_then(|desired| {
        plan::ports(&desired.holding).find(|now| now.uuid == port.uuid && now.number == port.number)
    });
    match now {
        Some(now) if now.comes == port.comes => true,
        Some(now) if now.comes.is_none() && now.goes.is_none() => {
            over.get_or_insert_with(Instant::now).elapsed() < LATE
        }
        _ => false,
    }
}

/// Puts connections into the table, those that have an address of the port.
async fn take(
    shared: &Shared,
    port: &Port,
    mut connections: Vec<HandedConnection>,
) -> Result<TakenOver, String> {
    let own: BTreeSet<Addr> = port.addresses.iter().map(|address| address.ip.into()).collect();
    let all = connections.len();
    connections.retain(|connection| own.contains(&connection.local));
    let foreign = u32::try_from(all - connections.len()).unwrap_or(u32::MAX);
    let (number, moving) = (port.number, port.comes.as_ref().map(|comes| comes.number));
    let taken = shared.table(move |view| {
        let has_arrived = match moving {
            Some(moving) => view.has_arrived(moving)?,
            None => true,
        };
        let usage = if has_arrived { Use::Live } else { Use::Waits };
        view.take_over((number, usage), &connections)
    });
    let mut taken = taken.await?;
    taken.lost += foreign;
    Ok(taken)
}

fn answer_of(taken: Result<TakenOver, String>) -> Answer {
    match taken {
        Ok(TakenOver { taken, lost }) => Answer { taken, lost, ..Answer::default() },
        Err(why) => Answer::later(why),
    }
}

#[cfg(test)]
#[path = "arrive/tests.rs"]
mod tests;
