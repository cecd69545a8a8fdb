//! Where captured frames go: a pcapng file, or lines of text.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use dataplane::{
    DroppedFrame,
    packet::{DropReason, Entry},
};
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{
                InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
            },
            opt_common::CommonOption,
        },
    },
};

use super::join::Record;
use crate::Error;

/// What stands in the place of a device where the data plane alone has told of a frame.
const TOLD: &str = "dropped, heard nowhere";

/// Directions of pcapng's `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Where records go.
pub(crate) enum Sink {
    /// A file.
    File(Box<PcapNgWriter<BufWriter<File>>>, PathBuf, u32),
    /// Lines, and what each device is called.
    Text(Vec<String>),
}

impl Sink {
    /// Begins the file, if there is to be one, in the place of what was there.
    pub(crate) fn open(path: Option<&Path>, titles: &[String]) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::Text(titles.to_vec())) };
        let file = File::create(path)
            .map_err(|error| Error::io(format_args!("write {}", path.display()), error))?;
        let failed = |error| failed(path, error);
        let mut writer = PcapNgWriter::new(BufWriter::new(file)).map_err(failed)?;
        for title in titles.iter().map(String::as_str).chain([TOLD]) {
            let options = vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(title)),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ];
            let (linktype, snaplen) = (DataLink::ETHERNET, 0);
            let block = InterfaceDescriptionBlock { linktype, snaplen, options };
            writer.write_pcapng_block(block).map_err(failed)?;
        }
        let told = u32::try_from(titles.len()).unwrap_or(u32::MAX);
        let mut sink = Self::File(Box::new(writer), path.to_owned(), told);
        sink.flush()?;
        Ok(sink)
    }

    /// Writes a record, after all that were before it.
    pub(crate) fn write(&mut self, record: &Record) -> Result<(), Error> {
        match self {
            Self::File(writer, path, told) => {
                let block = block(record, *told);
                writer.write_pcapng_block(block).map(|_| ()).map_err(|error| failed(path, error))
            }
            Self::Text(titles) => {
                let title = record.ear.and_then(|ear| titles.get(ear));
                let text = line(record, title.map_or(TOLD, String::as_str));
                writeln!(io::stdout(), "{text}").map_err(|error| Error::io("print", error))
            }
        }
    }

    /// What was written is in the file: it is whole, should we be killed.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let Self::File(writer, path, _) = self else { return Ok(()) };
        let flushed = writer.get_mut().flush();
        flushed.map_err(|error| Error::io(format_args!("write {}", path.display()), error))
    }
}

fn failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::io(format_args!("write {}", path.display()), io::Error::other(error))
}

fn block(record: &Record, told: u32) -> EnhancedPacketBlock<'_> {
    let direction = match record.ear {
        Some(_) if record.is_outgoing => Some(OUTBOUND),
        Some(_) => Some(INBOUND),
        None => None,
    };
    let verdict = record
        .drop
        .as_ref()
        .map(|drop| EnhancedPacketOption::Common(CommonOption::Comment(Cow::Owned(verdict(drop)))));
    EnhancedPacketBlock {
        interface_id: record.ear.and_then(|ear| u32::try_from(ear).ok()).unwrap_or(told),
        timestamp: record.time,
        original_len: u32::try_from(record.length.max(record.bytes.len())).unwrap_or(u32::MAX),
        data: Cow::Borrowed(&record.bytes),
        options: direction.map(EnhancedPacketOption::Flags).into_iter().chain(verdict).collect(),
    }
}

/// What the data plane decided about a frame that it dropped.
fn verdict(drop: &DroppedFrame) -> String {
    let wherefore = match drop.entry {
        Some(Entry::FromPort) => "sent by a port",
        Some(Entry::FromTunnel) => "out of a tunnel",
        Some(Entry::ToPort) => "the host's own, to a port",
        Some(Entry::FromUplink) => "in by an uplink",
        Some(Entry::ToTunnel) => "into GRE",
        Some(Entry::ToUplink) => "the host's own, out by an uplink",
        None => "at a hook that this release does not know",
    };
    let reason =
        drop.reason.and_then(|reason| DropReason::ALL.iter().find(|info| info.reason == reason));
    match reason {
        Some(info) => format!("dropped ({wherefore}): {}: {}", info.name, info.doc.trim()),
        None => format!("dropped ({wherefore}), for a reason that this release does not know"),
    }
}

/// A record in one line: when, where, how long, from and to whom, and the verdict.
fn line(record: &Record, title: &str) -> String {
    let time = format!("{}.{:06}", record.time.as_secs(), record.time.subsec_micros());
    let mac = |at: usize| match record.bytes.get(at..at + 6) {
        Some(mac) => mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        None => "?".to_owned(),
    };
    let kind = match record.bytes.get(12..14) {
        Some([8, 0]) => "IPv4".to_owned(),
        Some([8, 6]) => "ARP".to_owned(),
        Some([0x86, 0xdd]) => "IPv6".to_owned(),
        Some([high, low]) => format!("0x{high:02x}{low:02x}"),
        _ => "?".to_owned(),
    };
    let direction = if record.is_outgoing { ", leaves" } else { "" };
    let verdict = record.drop.as_ref().map(|drop| format!("; {}", verdict(drop)));
    format!(
        "{time} {title}{direction}: {kind}, {} bytes, {} > {}{}",
        record.length,
        mac(6),
        mac(0),
        verdict.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pcap_file::pcapng::{PcapNgReader, blocks::Block};

    use super::*;

    fn record(ear: Option<usize>, reason: Option<DropReason>) -> Record {
        let bytes = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[8, 6], &[0; 28]].concat();
        let header = bytes[..20].to_vec();
        let drop = reason.map(|reason| DroppedFrame {
            rule: 0,
            time_ns: 0,
            entry: Some(Entry::FromPort),
            ifindex: 7,
            port: 1,
            reason: Some(reason),
            length: 42,
            header,
        });
        let (time, length, is_outgoing) = (Duration::from_nanos(1_500_000_123), bytes.len(), false);
        Record { time, ear, is_outgoing, bytes, length, drop }
    }

    #[test]
    fn a_file_is_read_back_with_its_verdicts_and_whole_after_each_flush() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.pcapng");
        let mut sink = Sink::open(Some(&path), &["sent".to_owned()]).unwrap();
        let read = || {
            let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
            let mut found = Vec::new();
            while let Some(block) = reader.next_block() {
                let Block::EnhancedPacket(packet) = block.unwrap().0 else { continue };
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Common(CommonOption::Comment(text)) => {
                        Some(text.clone().into_owned())
                    }
                    _ => None,
                });
                found.push((packet.interface_id, packet.timestamp, packet.data.len(), comment));
            }
            found
        };
        assert!(read().is_empty(), "and whole");
        sink.write(&record(Some(0), None)).unwrap();
        sink.write(&record(None, Some(DropReason::SpoofedArpMac))).unwrap();
        sink.flush().unwrap();
        let time = Duration::from_nanos(1_500_000_123);
        let why = "dropped (sent by a port): spoofed_arp_mac: The sender MAC inside an ARP packet \
                   is not the port's.";
        assert_eq!(read(), [(0, time, 42, None), (1, time, 42, Some(why.to_owned()))]);
    }

    #[test]
    fn a_line_says_who_sent_to_whom_and_why_it_was_dropped() {
        let text = line(&record(Some(0), Some(DropReason::Hairpin)), "sent by eth0 of red-1");
        let expected = "1.500000 sent by eth0 of red-1: ARP, 42 bytes, 02:00:00:00:00:09 > \
                        ff:ff:ff:ff:ff:ff; dropped (sent by a port): hairpin: The destination is \
                        the port that the frame came from.";
        assert_eq!(text, expected);
    }
}
