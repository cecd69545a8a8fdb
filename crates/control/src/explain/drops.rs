//! What was dropped at a NIC lately, as its host has seen it.

use std::{net::IpAddr, sync::Arc};

use model::{Kind, Result, Timestamp, resource::nic_looks::GetVmNicDrops};
use serde_json::{Map, Value, json};
use wire::question::{Answer, DROPS_TOLD_MAX, DropSeen, Drops, DropsOf, Question};

use super::{Names, ask, odd, probe, refused, unanswered};
use crate::{Caller, Gate};

/// Drops of one answer, if the message does not say how many.
const DEFAULT: u32 = 64;

pub(super) async fn drops(
    gate: Arc<Gate>,
    caller: Caller,
    message: GetVmNicDrops,
) -> Result<Value> {
    let read = gate.store().snapshot();
    let (nic, host) = probe::nic(&read, &caller, message.vm_nic_uuid)?;
    let _turn = gate.explaining.turn(&caller)?;
    let most = message.limit.unwrap_or(DEFAULT).min(DROPS_TOLD_MAX);
    let question = Question::DropsOf(DropsOf { port: nic.uuid.uuid(), most });
    let answer = ask(&gate, host, question).await;
    let names = Names::new(&read, &caller, (&nic, &[]));
    let drops = match answer {
        Ok(Answer::Drops(drops)) => drops,
        Ok(Answer::Unanswered(why)) => return Err(refused(&names, host, &why.why)),
        Ok(Answer::Trace(_)) => return Err(odd()),
        Err(why) => return Err(unanswered(&names, host, &why)),
    };
    let Drops { frames, counted, lost, since_ms } = &drops;
    let shown = frames.iter().map(|seen| {
        // The NIC has sent them, or they were for it: their own addresses are its to know.
        let ends: Vec<IpAddr> = seen.source.into_iter().chain(seen.destination).collect();
        frame(seen, &Names::new(&read, &caller, (&nic, &ends)))
    });
    Ok(json!({
        "nic": names.of(Kind::VmNic, nic.uuid.uuid()),
        "host": names.host(host),
        "since": time(*since_ms),
        "counted": counted,
        "lost": lost,
        "drops": shown.collect::<Vec<_>>(),
    }))
}

fn frame(seen: &DropSeen, names: &Names<'_>) -> Value {
    let mut shown = Map::from_iter([
        ("date".to_owned(), json!(time(seen.at_ms))),
        ("count".to_owned(), json!(seen.count)),
        ("reason".to_owned(), json!(seen.reason)),
        ("meaning".to_owned(), json!(seen.meaning)),
        ("direction".to_owned(), json!(if seen.is_from_port { "FromNic" } else { "ToNic" })),
        ("what".to_owned(), json!(names.text(&seen.what))),
        ("source".to_owned(), json!(seen.source)),
        ("destination".to_owned(), json!(seen.destination)),
        ("protocol".to_owned(), json!(seen.protocol)),
        ("rule".to_owned(), json!(seen.rule.map(|id| names.of(Kind::SecurityGroupRule, id)))),
        ("securityGroup".to_owned(), json!(seen.group.map(|id| names.of(Kind::SecurityGroup, id)))),
    ]);
    if let Some(protocol) = seen.protocol {
        probe::put_ports(&mut shown, protocol, (seen.source_port, seen.port_or_type));
    }
    Value::Object(shown)
}

/// ZStack's form of a time.
fn time(ms: u64) -> String {
    Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)).to_string()
}
