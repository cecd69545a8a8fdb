//! Tables of text that fit a terminal. Pure: how wide it is, and whether it has colours, is given.

/// Narrowest that a column is cut to, in characters.
const COLUMN_MIN: usize = 8;
/// Between two columns.
const GAP: usize = 2;

/// Where a table goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Screen {
    /// Characters in a line; `None`: any number.
    pub(crate) width: Option<usize>,
    pub(crate) colours: bool,
}

/// Draws a table: a head, and its rows. On a narrow screen long texts are cut, then columns from the
/// right are left out; the first one stays.
pub(crate) fn draw(head: &[String], rows: &[Vec<String>], screen: Screen) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()).collect();
    let mut widths: Vec<usize> = (0..head.len())
        .map(|at| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| length(cell));
            cells.chain([length(&head[at])]).max().unwrap_or_default()
        })
        .collect();
    if let Some(width) = screen.width {
        fit(&mut widths, head, width);
    }
    let mut text = line(head, &widths, |_, cell| cell);
    for row in &rows {
        text.push('\n');
        text.push_str(&line(row, &widths, |plain, cell| match screen.colours {
            true => coloured(plain, cell),
            false => cell,
        }));
    }
    text
}

/// Without what a terminal would obey: names are other people's.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn fit(widths: &mut Vec<usize>, head: &[String], width: usize) {
    let total =
        |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while total(widths) > width {
        // A uuid that is cut is worth nothing.
        let is_cut =
            |at: &usize| head[*at] != "UUID" && widths[*at] > COLUMN_MIN.max(length(&head[*at]));
        let widest = (0..widths.len()).filter(is_cut).max_by_key(|at| widths[*at]);
        match widest {
            Some(at) if widths[at] > 2 * COLUMN_MIN || widths.len() == 1 => widths[at] -= 1,
            _ if widths.len() > 1 => drop(widths.pop()),
            _ => return,
        }
    }
}

fn line(cells: &[String], widths: &[usize], paint: impl Fn(&str, String) -> String) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let cut = cut(cell, *width);
        let room = " ".repeat(width - length(&cut) + GAP);
        text.push_str(&paint(cell, cut));
        text.push_str(&room);
    }
    text.truncate(text.trim_end().len());
    text
}

fn cut(cell: &str, width: usize) -> String {
    match length(cell) > width {
        true => cell.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => cell.to_owned(),
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// States in green, yellow and red.
fn coloured(plain: &str, cell: String) -> String {
    let colour = match plain {
        "Running" | "Connected" | "Enabled" | "enable" | "done" => 32,
        "Starting" | "Stopped" | "Connecting" | "Disabled" | "PreMaintenance" | "Maintenance" => 33,
        "Unknown" | "Disconnected" | "refused" => 31,
        _ => return cell,
    };
    format!("\x1b[{colour}m{cell}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(width: Option<usize>) -> String {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let head: Vec<String> = text(&["NAME", "STATE", "UUID"]);
        let uuid = "0123456789abcdef0123456789abcdef";
        let rows = [
            text(&["web", "Running", uuid]),
            text(&["a-machine-with-quite-a-long-name", "Stopped", uuid]),
        ];
        draw(&head, &rows, Screen { width, colours: false })
    }

    #[test]
    fn a_wide_screen_shows_all() {
        let expected = "\
NAME                              STATE    UUID
web                               Running  0123456789abcdef0123456789abcdef
a-machine-with-quite-a-long-name  Stopped  0123456789abcdef0123456789abcdef";
        assert_eq!(drawn(None), expected);
        assert_eq!(drawn(Some(80)), expected);
    }

    #[test]
    fn a_narrow_screen_cuts_texts_then_leaves_out_columns() {
        let expected = "\
NAME                 STATE    UUID
web                  Running  0123456789abcdef0123456789abcdef
a-machine-with-qui…  Stopped  0123456789abcdef0123456789abcdef";
        assert_eq!(drawn(Some(62)), expected);
        assert_eq!(drawn(Some(30)).lines().next(), Some("NAME              STATE"));
        for width in [1, 7, 20, 61, 77] {
            let longest = drawn(Some(width)).lines().map(length).max();
            assert!(longest <= Some(width.max(COLUMN_MIN)), "{width}: {longest:?}");
        }
    }

    #[test]
    fn only_states_have_colours_and_names_have_no_escapes() {
        let rows = [vec!["\x1b[31mred".to_owned(), "Running".to_owned()]];
        let head = ["NAME".to_owned(), "STATE".to_owned()];
        let text = draw(&head, &rows, Screen { width: None, colours: true });
        assert!(text.ends_with("\u{fffd}[31mred  \x1b[32mRunning\x1b[0m"), "{text:?}");
    }
}
