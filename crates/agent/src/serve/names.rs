//! Names as they are written in messages (RFC 1035, 3.1).

/// Most bytes of a label and of a name.
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;

/// A name with its labels' lengths and the root at its end; `None` if it is none.
pub(crate) fn on_the_wire(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok()?;
        if label.is_empty() || label.len() > LABEL_MAX || !label.is_ascii() {
            return None;
        }
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= NAME_MAX).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_message_can_have_are_none() {
        assert_eq!(on_the_wire("a.bc.").unwrap(), b"\x01a\x02bc\0");
        for bad in ["", ".", "a..b", "stra\u{df}e.example", &"a".repeat(64), &"ab.".repeat(90)] {
            assert_eq!(on_the_wire(bad), None, "{bad}");
        }
    }
}
