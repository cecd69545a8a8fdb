//! What was meant by a word that means nothing.

/// How alike two words must be, of 1.
const ALIKE: f64 = 0.8;
/// How far a word may be behind the best one.
const AS_GOOD: f64 = 0.03;

/// The words that are most like this one, best first: three at most.
pub(crate) fn words<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let small = word.to_ascii_lowercase();
    let like = |known: &'a str| (strsim::jaro_winkler(&small, &known.to_ascii_lowercase()), known);
    let mut found: Vec<_> = known.map(like).filter(|(alike, _)| *alike >= ALIKE).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.dedup();
    let best = found.first().map_or(0.0, |(alike, _)| *alike);
    found.retain(|(alike, _)| *alike >= best - AS_GOOD);
    found.into_iter().map(|(_, known)| known).take(3).collect()
}

/// `; did you mean "zone"?`, or nothing.
pub(crate) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let found: Vec<String> =
        words(word, known).iter().map(|known| format!("\"{known}\"")).collect();
    match found.is_empty() {
        true => String::new(),
        false => format!("; did you mean {}?", found.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_slip_of_the_finger_is_understood_and_another_word_is_not() {
        let known = || ["CreateZone", "CreateCluster", "DeleteZone"].into_iter();
        assert_eq!(super::hint("CreateZome", known()), "; did you mean \"CreateZone\"?");
        assert_eq!(super::hint("xyz", known()), "");
    }
}
