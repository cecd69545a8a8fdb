//! `netloom shell`: commands one after the other, with completion and a history.

use std::{ffi::OsString, fs, process::Command as Process};

use clap::Command;
use clap_complete::engine;
use nix::sys::signal::{SigSet, Signal};
use rustyline::{
    Context, Editor, Helper,
    completion::{Completer, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::Validator,
};

use crate::{Error, output::write_private, profile};

/// Words of a line that is not remembered.
const SECRETS: [&str; 2] = ["password", "secret"];

/// Reads lines and runs each as a command of its own, so that one that fails ends nothing else.
///
/// # Errors
/// When nothing can be read, or no process started.
pub fn shell(command: fn() -> Command) -> Result<(), Error> {
    let failed = |error: ReadlineError| Error::Usage(format!("the line cannot be read: {error}"));
    let binary = std::env::current_exe()
        .map_err(|cause| Error::File { path: "/proc/self/exe".into(), cause })?;
    // Ctrl-C ends the command that runs, which gets no mask from here; the shell stays.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    let blocked = signals.thread_block();
    blocked.map_err(|error| Error::Usage(format!("SIGINT cannot be blocked: {error}")))?;
    let mut editor: Editor<Words, FileHistory> = Editor::new().map_err(failed)?;
    editor.set_helper(Some(Words(command)));
    let history = profile::path().with_file_name("history");
    if !history.exists() {
        if let Some(dir) = history.parent() {
            fs::create_dir_all(dir).map_err(|cause| Error::File { path: dir.to_owned(), cause })?;
        }
        write_private(&history, b"")?;
    }
    // A history that cannot be read is a new one.
    let _ = editor.load_history(&history);
    loop {
        let line = match editor.readline("netloom> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let Some(words) = shlex::split(&line) else {
            eprintln!("netloom: a quote is open in this line");
            continue;
        };
        match words.first().map(String::as_str) {
            None => continue,
            Some("exit" | "quit") => return Ok(()),
            Some(_) => {}
        }
        let small = line.to_ascii_lowercase();
        if !SECRETS.iter().any(|secret| small.contains(secret)) {
            // Losing a line of history is no reason to stop.
            let _ = editor.add_history_entry(&line);
            let _ = editor.append_history(&history);
        }
        let ended = Process::new(&binary).args(&words).status();
        ended.map_err(|cause| Error::File { path: binary.clone(), cause })?;
    }
}

/// Completes words as the shells do.
struct Words(fn() -> Command);

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let words = ["netloom"].into_iter().chain(before[..start].split_whitespace());
        let mut words: Vec<OsString> = words.map(OsString::from).collect();
        let index = words.len();
        words.push((&before[start..]).into());
        let found = engine::complete(&mut (self.0)(), words, index, None)?;
        let pair = |candidate: engine::CompletionCandidate| {
            let text = candidate.get_value().to_string_lossy().into_owned();
            Pair { display: text.clone(), replacement: text }
        };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}
