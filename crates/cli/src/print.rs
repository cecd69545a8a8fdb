//! Standard output, whose reader may leave early.

use std::{
    fmt::Display,
    io::{self, Write},
};

use crate::Error;

/// Prints a result and ends its line. A reader that has seen enough, such as `head`, is no failure.
///
/// # Errors
/// [`Error::Output`], such as a full disk.
pub fn print(text: &impl Display) -> Result<(), Error> {
    write(&mut io::stdout().lock(), text).map_err(Error::Output)
}

fn write(to: &mut impl Write, text: &impl Display) -> io::Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is_one() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        write(&mut writer, &"text").unwrap();
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(write(&mut full, &"text").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
