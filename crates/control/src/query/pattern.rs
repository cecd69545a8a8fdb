//! SQL's LIKE: `%` is any text, `_` any character.

use model::FieldType;

/// A pattern for the values of a field.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(Vec<char>);

impl Pattern {
    /// The values of some types are shown in lower case only, so their patterns are read so too.
    pub(crate) fn new(kind: FieldType, pattern: &str) -> Self {
        match kind {
            FieldType::List(item) => Self::new(*item, pattern),
            FieldType::Uuid | FieldType::Ip | FieldType::Cidr | FieldType::Mac => {
                Self(pattern.to_ascii_lowercase().chars().collect())
            }
            _ => Self(pattern.chars().collect()),
        }
    }

    /// Linear in the text for each `%`.
    pub(crate) fn fits(&self, text: &str) -> bool {
        let (mut at, mut rest) = (0, text.chars());
        // Where to go on when a character does not fit: after the last `%`, one character further.
        let mut retry = None;
        loop {
            let mut ahead = rest.clone();
            let Some(next) = ahead.next() else { break };
            match self.0.get(at) {
                Some('%') => {
                    at += 1;
                    retry = Some((at, rest.clone()));
                }
                Some(c) if *c == '_' || *c == next => (at, rest) = (at + 1, ahead),
                _ => {
                    let Some((after, from)) = &mut retry else { return false };
                    from.next();
                    (at, rest) = (*after, from.clone());
                }
            }
        }
        self.0[at..].iter().all(|c| *c == '%')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_is_sqls() {
        let cases = [
            ("web%", "web-1", true),
            ("%1", "web-1", true),
            ("w_b%", "web", true),
            ("%b%b%", "abab", true),
            ("%b%b%", "aba", false),
            ("web", "web-1", false),
            ("", "", true),
            ("%", "", true),
            ("_", "", false),
            ("%ü", "grün-ü", true),
        ];
        for (pattern, text, expected) in cases {
            let fits = Pattern::new(FieldType::Text, pattern).fits(text);
            assert_eq!(fits, expected, "{pattern} {text}");
        }
        assert!(Pattern::new(FieldType::Mac, "FA:%").fits("fa:4c:00:00:00:01"));
        assert!(!Pattern::new(FieldType::Text, "FA%").fits("fa"));
    }
}
