//! Somebody whom the server calls over HTTP.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
};

use serde_json::Value;

/// A request that it has got.
pub(crate) struct Got {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Got {
    /// Its body, which is JSON.
    pub(crate) fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// Answers each request with the next of these, the last one for ever.
pub(crate) fn receiver(answers: &'static [(u16, &str)]) -> (SocketAddr, mpsc::Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (got, all) = mpsc::channel();
    std::thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let answer = answers.get(at).or(answers.last()).copied().unwrap();
            if got.send(take(stream.unwrap(), answer)).is_err() {
                return;
            }
        }
    });
    (address, all)
}

fn take(stream: TcpStream, (status, text): (u16, &str)) -> Got {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let length = text.len();
    let head = format!("HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\n");
    let answer = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{text}");
    // It need not be read to its end.
    let _ = reader.get_mut().write_all(answer.as_bytes());
    Got { line: line.trim().to_owned(), headers, text: String::from_utf8(body).unwrap() }
}
