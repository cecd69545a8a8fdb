//! Characters that are not seen. In a name they make two different names look the same, or turn
//! the order of a line in a log or a console around.

/// Code points, first to last, that show nothing of their own, in ascending order: the categories
/// Cf, Zl and Zp, and those with the property `Default_Ignorable_Code_Point` (among them variation
/// selectors, fillers and tags), from `extracted/DerivedGeneralCategory.txt` and
/// `DerivedCoreProperties.txt` of Unicode 16.0 (<https://www.unicode.org/Public/16.0.0/ucd/>); and
/// the blank Braille pattern, U+2800. Category Cc is not here: `char::is_control` knows it.
const RANGES: &[(u32, u32)] = &[
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x1_10BD, 0x1_10BD),
    (0x1_10CD, 0x1_10CD),
    (0x1_3430, 0x1_343F),
    (0x1_BCA0, 0x1_BCA3),
    (0x1_D173, 0x1_D17A),
    (0xE_0000, 0xE_0FFF),
];

/// The first character of `text` that cannot be seen; blanks between words can.
pub(crate) fn first(text: &str) -> Option<char> {
    text.chars().find(|c| is_hidden(*c))
}

/// Whether a character cannot be seen.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || is_listed(u32::from(c))
}

fn is_listed(point: u32) -> bool {
    let after = RANGES.partition_point(|(start, _)| *start <= point);
    after.checked_sub(1).is_some_and(|at| point <= RANGES[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(RANGES.iter().all(|(start, end)| start <= end));
        assert!(RANGES.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn what_is_not_seen_is_found_and_what_is_seen_is_not() {
        let hidden = [
            '\0',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
            '\u{e01ef}',
            '\u{115f}',
            '\u{2800}',
        ];
        for c in hidden {
            assert_eq!(first(&format!("web{c}1")), Some(c), "{c:?}");
        }
        for text in
            ["web 1", "w\u{fc}rfel", "\u{7f51}\u{7edc}", "\u{5e9}\u{5dc}", "a\u{301}", "\u{1f5a7}"]
        {
            assert_eq!(first(text), None, "{text}");
        }
    }
}
