//! A file of lines, of bounded size: when it is full it becomes the older one, and the one before that goes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    bytes_max: u64,
    /// As it was left, and its length; `None` before the first line, and after a failure.
    open: Option<(File, u64)>,
}

impl LogFile {
    pub(crate) const fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self { path, bytes_max, open: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds whole lines, all or none of them.
    pub(crate) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let (mut file, before) = match self.open.take() {
            Some(open) if self.is_there() => open,
            _ => self.reopen()?,
        };
        let (mut file, before) = match before > 0 && before.saturating_add(length) > self.bytes_max
        {
            false => (file, before),
            true => {
                file.flush()?;
                fs::rename(&self.path, self.older())?;
                self.reopen()?
            }
        };
        if let Err(error) = file.write_all(lines) {
            // A part of a line would spoil the next one. What made the first fail is worth more than this.
            let _ = file.set_len(before);
            return Err(error);
        }
        self.open = Some((file, before + length));
        Ok(())
    }

    /// Whether it has its name still: whoever takes it away gets a new one.
    fn is_there(&self) -> bool {
        self.path.exists()
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        // What it says of tenants is for root alone.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn older(&self) -> PathBuf {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        older.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_files_and_no_line_is_in_halves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flows.jsonl");
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        let mut file = LogFile::new(path.clone(), 12);
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(
            (read("flows.jsonl.1"), read("flows.jsonl")),
            ("one\ntwo\n".into(), "three\n".to_owned() + "four\n")
        );
        // Whoever comes after goes on with it.
        let mut file = LogFile::new(path.clone(), 12);
        file.write(b"five\n").unwrap();
        assert_eq!(
            (read("flows.jsonl.1"), read("flows.jsonl")),
            ("three\nfour\n".into(), "five\n".into())
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        // One that was taken away is made anew.
        fs::remove_file(&path).unwrap();
        file.write(b"six\n").unwrap();
        assert_eq!(read("flows.jsonl"), "six\n");
    }

    #[test]
    fn what_cannot_be_written_is_told_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        let mut file = LogFile::new(below.join("flows.jsonl"), 10);
        assert_eq!(file.write(b"one\n").unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&below).unwrap();
        file.write(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "two\n");
        // A device that is always full.
        let mut full = LogFile::new("/dev/full".into(), 10);
        assert_eq!(full.write(b"one\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
