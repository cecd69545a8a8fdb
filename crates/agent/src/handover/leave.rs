//! The end that hands over: the memory of a machine, its connections, and then the machine.
//!
//! Until the other host has all of it, whatever fails has the machine go on here. From then on it stands
//! still here; that is noted, and the other host is told to let it run. If no answer comes, it is asked
//! again and again: only if it says that the machine does not run there does it go on here.

use std::{io, net::IpAddr, pin::pin, time::Duration};

use compute::{Begun, Qemu, Sent, Traits};
use tokio::{
    io::{AsyncReadExt, ReadHalf, WriteHalf},
    net::{TcpStream, UnixStream},
    time::{Instant, interval, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::object::{Handover, Instance, Port};

use super::{
    Shared,
    frame::{
        Answer, CONNECTIONS_MAX, Frame, Hello, MEMORY_MAX, SHORT_MAX, STALL, VERSION, What,
        receive, send,
    },
    tls::{self, host_of},
};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the other host may take to make the machine.
const MAKING_LIMIT: Duration = Duration::from_secs(70);
/// How long it may take to be there and to know of the move.
const KNOWING_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to take in the last of the memory.
const LOADING_LIMIT: Duration = Duration::from_secs(130);
/// How long a machine may be on its way.
const JOURNEY_LIMIT: Duration = Duration::from_secs(3600);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two questions whether a machine runs that was handed over.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);
/// How often it is told how far it is.
const PROGRESS: Duration = Duration::from_millis(500);

/// A connection to another agent that has agreed to what it is for.
pub(super) struct Line {
    from: ReadHalf<TlsStream<TcpStream>>,
    to: WriteHalf<TlsStream<TcpStream>>,
}

/// Why another agent does not do something.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// It may do it later.
    pub(super) may_be_later: bool,
}

impl Refusal {
    fn later(why: impl std::fmt::Display) -> Self {
        Self { why: why.to_string(), may_be_later: true }
    }
}

impl Line {
    /// Connects to another host's agent, and waits so long for its consent.
    pub(super) async fn open(
        shared: &Shared,
        handover: &Handover,
        hello: Hello,
        patience: Duration,
    ) -> Result<Self, Refusal> {
        let tls = shared.tls.borrow().clone();
        let tls = tls.ok_or_else(|| Refusal::later("this host has no certificate yet"))?;
        let stream = timeout(CONNECT_LIMIT, connect(shared, handover.address, tls.client.clone()));
        let stream = match stream.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Refusal::later(error)),
            Err(_) => return Err(Refusal::later("it does not answer")),
        };
        if host_of(stream.get_ref().1.peer_certificates()) != Some(handover.host) {
            let why = format!("another host has the address {}", handover.address);
            return Err(Refusal { why, may_be_later: false });
        }
        let (from, to) = tokio::io::split(stream);
        let mut line = Self { from, to };
        send(&mut line.to, Frame::Hello(hello)).await.map_err(Refusal::later)?;
        line.answer(patience).await?;
        Ok(line)
    }

    /// Waits for an answer that is a consent.
    pub(super) async fn answer(&mut self, patience: Duration) -> Result<Answer, Refusal> {
        match receive(&mut self.from, SHORT_MAX, patience).await {
            Ok(Frame::Answer(answer)) => consent(answer),
            Ok(_) => Err(Refusal::later("it answers what makes no sense")),
            Err(error) => Err(Refusal::later(error)),
        }
    }

    /// Says something and waits for the consent.
    pub(super) async fn ask(
        &mut self,
        frame: Frame,
        patience: Duration,
    ) -> Result<Answer, Refusal> {
        send(&mut self.to, frame).await.map_err(Refusal::later)?;
        self.answer(patience).await
    }
}

fn consent(answer: Answer) -> Result<Answer, Refusal> {
    match answer.refused {
        Some(why) => Err(Refusal { why, may_be_later: answer.may_be_later }),
        None => Ok(answer),
    }
}

async fn connect(
    shared: &Shared,
    ip: IpAddr,
    tls: std::sync::Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(shared.address(ip)).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(tls).connect(tls::name(), stream).await
}

/// Has a machine go, until that is over or not wanted any more; says what has become of it.
pub(super) async fn machine(
    shared: &Shared,
    (instance, ports): (&Instance, &[Port]),
    handover: &Handover,
    over: &CancellationToken,
) {
    let journey = Journey { shared, qemu: &shared.movers.qemu, uuid: instance.uuid, handover };
    // Dropping it breaks off the sending; the pass has the machine go on.
    let gone = over.run_until_cancelled(journey.go(ports)).await;
    shared.progress(instance.uuid, None);
    let Some(gone) = gone else { return };
    match gone {
        Ok(()) => {
            tracing::info!(instance = %instance.uuid, host = %handover.host, "runs on another host");
        }
        Err(why) => {
            tracing::warn!(instance = %instance.uuid, host = %handover.host, why, "goes on here");
            shared.told.send_modify(|told| _ = told.given_up.insert(handover.number, why));
        }
    }
}

struct Journey<'a> {
    shared: &'a Shared,
    qemu: &'a Qemu,
    uuid: Uuid,
    handover: &'a Handover,
}

impl Journey<'_> {
    /// All of it. An error says why it goes on here, which it does then.
    async fn go(&self, ports: &[Port]) -> Result<(), String> {
        match self.qemu.begin(self.uuid, self.handover.number).map_err(words)? {
            Begun::Now => {}
            Begun::HandedOver => return self.ask().await,
            Begun::Before => {
                self.stay().await;
                return Err("the agent of its host was started anew meanwhile".to_owned());
            }
        }
        match timeout(JOURNEY_LIMIT, self.send(ports)).await {
            Ok(Ok(mut line)) => {
                if let Err(error) = self.qemu.hand_over(self.uuid) {
                    self.stay().await;
                    return Err(error.to_string());
                }
                match line.ask(Frame::Go, STALL).await {
                    Ok(_) => Ok(()),
                    Err(refusal) => {
                        tracing::warn!(instance = %self.uuid, why = refusal.why, "asking again");
                        self.ask().await
                    }
                }
            }
            Ok(Err(why)) => {
                self.stay().await;
                Err(why)
            }
            Err(_) => {
                self.stay().await;
                Err("it writes its memory faster than that can be sent".to_owned())
            }
        }
    }

    /// Sends the memory and the connections; the other host has all of it then, and the machine stands
    /// still.
    async fn send(&self, ports: &[Port]) -> Result<Line, String> {
        self.tell("is getting ready to move");
        let traits = self.qemu.traits(self.uuid).await.map_err(words)?;
        self.check(&traits)?;
        let mut line = self.open(What::Machine, traits).await?;
        let memory = self.qemu.send(self.uuid).await.map_err(words)?;
        self.pump(&mut line, memory).await?;
        line.ask(Frame::MemoryEnd, LOADING_LIMIT).await.map_err(|refusal| refusal.why)?;
        for port in ports {
            if let Err(why) = self.connections(&mut line, port).await {
                tracing::warn!(nic = %port.uuid, why, "its connections do not go along");
            }
        }
        Ok(line)
    }

    /// It is the machine that the other host makes.
    fn check(&self, traits: &Traits) -> Result<(), String> {
        let desired = self.shared.desired.borrow().clone();
        let wanted = desired.map(|desired| crate::plan::wanted(&desired.holding));
        let spec = wanted.and_then(|wanted| wanted.instances.get(&self.uuid).cloned());
        match spec.and_then(|spec| spec.machine) {
            Some(machine) if machine == traits.machine => Ok(()),
            _ => Err("its processors or its memory were changed since it was started: \
                RebootVmInstance gives it what it is to have"
                .to_owned()),
        }
    }

    /// Connects, as soon as the other host knows of the move.
    async fn open(&self, what: What, traits: Traits) -> Result<Line, String> {
        let limit = Instant::now() + KNOWING_LIMIT;
        loop {
            let Traits { processor, slots, .. } = traits.clone();
            let (uuid, number) = (self.uuid, self.handover.number);
            let hello = Hello { version: VERSION, what, uuid, number, processor, slots };
            match Line::open(self.shared, self.handover, hello, MAKING_LIMIT).await {
                Ok(line) => return Ok(line),
                Err(refusal) if !refusal.may_be_later || Instant::now() > limit => {
                    return Err(format!("host {}: {}", self.handover.host, refusal.why));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Passes the memory on until QEMU has sent all of it.
    async fn pump(&self, line: &mut Line, memory: UnixStream) -> Result<(), String> {
        // Beside it: at the end QEMU answers nothing before all that it sends is taken.
        tokio::select! {
            passed = self.pass(line, memory) => passed?,
            () = self.tell_progress() => {}
        }
        let limit = Instant::now() + STALL;
        loop {
            match self.qemu.sent(self.uuid).await {
                Ok(Sent::All) => return Ok(()),
                Ok(Sent::Failed(why)) => return Err(format!("its QEMU: {why}")),
                Err(error) if Instant::now() > limit => return Err(error.to_string()),
                Ok(Sent::Left(..)) if Instant::now() > limit => {
                    return Err("its QEMU does not come to an end".to_owned());
                }
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn pass(&self, line: &mut Line, mut memory: UnixStream) -> Result<(), String> {
        let Line { from, to } = line;
        let of_host = |error: io::Error| format!("host {}: {error}", self.handover.host);
        let said = |answer: Frame| match answer {
            Frame::Answer(Answer { refused: Some(why), .. }) => why,
            _ => "the other agent says what makes no sense".to_owned(),
        };
        // It answers only if it takes no more.
        let mut answer = pin!(receive(from, SHORT_MAX, JOURNEY_LIMIT));
        loop {
            let mut bytes = vec![0; MEMORY_MAX];
            let read = tokio::select! {
                read = timeout(STALL, memory.read(&mut bytes)) => read,
                answered = &mut answer => return Err(answered.map_or_else(of_host, said)),
            };
            let read = read.map_err(|_| "its QEMU does not send its memory".to_owned())?;
            let read = read.map_err(words)?;
            if read == 0 {
                return Ok(());
            }
            bytes.truncate(read);
            if let Err(error) = send(to, Frame::Memory(bytes)).await {
                // It may have said why before.
                let why = timeout(PAUSE, &mut answer).await;
                return Err(why.map_or(Err(error), |why| why).map_or_else(of_host, said));
            }
        }
    }

    /// Tells how far it is, again and again.
    async fn tell_progress(&self) {
        let mut tick = interval(PROGRESS);
        loop {
            tick.tick().await;
            if let Ok(Sent::Left(left, total)) = self.qemu.sent(self.uuid).await
                && let Some(percent) = (left * 100).checked_div(total)
            {
                self.tell(&format!("is moving: {percent} % of its memory is to be sent"));
            }
        }
    }

    fn tell(&self, what: &str) {
        let text = format!("{what}, to host {}", self.handover.host.simple());
        self.shared.progress(self.uuid, Some(text));
    }

    /// Sends the connections of one of its ports: the machine stands still, so these are all.
    async fn connections(&self, line: &mut Line, port: &Port) -> Result<(), String> {
        let number = port.number;
        let found = self.shared.table(move |view| match view.port_area(number)? {
            Some(area) => view.hand_over(area),
            None => Ok(Vec::new()),
        });
        for some in found.await?.chunks(CONNECTIONS_MAX) {
            let frame = Frame::Connections(port.uuid, some.to_vec());
            let answer = line.ask(frame, STALL).await.map_err(|refusal| refusal.why)?;
            tracing::info!(nic = %port.uuid, taken = answer.taken, lost = answer.lost,
                "connections are handed over");
        }
        Ok(())
    }

    /// Has it go on here.
    async fn stay(&self) {
        if let Err(error) = self.qemu.stay(self.uuid).await {
            tracing::warn!(instance = %self.uuid, %error, "does not go on by itself");
        }
    }

    /// Asks whether the machine runs that was handed over, until there is an answer.
    async fn ask(&self) -> Result<(), String> {
        loop {
            let (uuid, number, slots) = (self.uuid, self.handover.number, Default::default());
            let (what, processor) = (What::Question, String::new());
            let hello = Hello { version: VERSION, what, uuid, number, processor, slots };
            match Line::open(self.shared, self.handover, hello, STALL).await {
                Ok(_) => return Ok(()),
                Err(refusal) if !refusal.may_be_later => {
                    self.stay().await;
                    return Err(refusal.why);
                }
                Err(refusal) => {
                    self.tell(&format!(
                        "was handed over, and that is not confirmed: {}",
                        refusal.why
                    ));
                    sleep(QUESTION_PAUSE).await;
                }
            }
        }
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
