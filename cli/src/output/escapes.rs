//! Takes terminal escapes out of what a workload wrote: a log may colour itself on a terminal, but it
//! may not move the cursor, rename the window, or write to the clipboard.

/// Strips escapes from a stream in chunks; an escape cut in two by a chunk's end is still one.
#[derive(Debug)]
pub struct Strip {
    keep_colour: bool,
    pending: Vec<u8>,
}

/// An escape longer than this is no escape but binary noise; it is dropped so that the stream goes on.
const LONGEST_ESCAPE: usize = 4096;

enum Step {
    /// An escape of so many bytes, and whether it only sets colours.
    Escape(usize, bool),
    /// The chunk ends within an escape.
    Cut,
}

impl Strip {
    /// Keeps colours (SGR) when asked to.
    pub fn new(keep_colour: bool) -> Strip {
        Strip {
            keep_colour,
            pending: Vec::new(),
        }
    }

    /// What of the next chunk may be shown.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(chunk);
        let mut shown = Vec::with_capacity(input.len());
        let mut at = 0;
        while at < input.len() {
            match input[at] {
                0x1b => match escape(&input[at..]) {
                    Step::Escape(length, colour) => {
                        if colour && self.keep_colour {
                            shown.extend_from_slice(&input[at..at + length]);
                        }
                        at += length;
                    }
                    Step::Cut if input.len() - at > LONGEST_ESCAPE => at = input.len(),
                    Step::Cut => {
                        self.pending = input[at..].to_vec();
                        return shown;
                    }
                },
                // U+0080 to U+009F in UTF-8 are controls too: 0x9b alone opens an escape on some terminals.
                0xc2 if input.len() - at == 1 => {
                    self.pending = input[at..].to_vec();
                    return shown;
                }
                0xc2 if (0x80..=0x9f).contains(&input[at + 1]) => at += 2,
                byte => {
                    if !byte.is_ascii_control() || matches!(byte, b'\n' | b'\t' | b'\r') {
                        shown.push(byte);
                    }
                    at += 1;
                }
            }
        }
        shown
    }
}

fn escape(input: &[u8]) -> Step {
    match input.get(1) {
        None => Step::Cut,
        Some(b'[') => {
            for (index, byte) in input.iter().enumerate().skip(2) {
                match byte {
                    0x20..=0x3f => {}
                    0x40..=0x7e => {
                        let plain = input[2..index]
                            .iter()
                            .all(|b| b.is_ascii_digit() || matches!(b, b';' | b':'));
                        return Step::Escape(index + 1, *byte == b'm' && plain);
                    }
                    // Not of the grammar: the escape ends before this byte.
                    _ => return Step::Escape(index, false),
                }
            }
            Step::Cut
        }
        // Strings for the terminal: title, clipboard, hyperlinks. They end at BEL or ESC \.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            for index in 2..input.len() {
                match (input[index], input.get(index + 1)) {
                    (0x07, _) => return Step::Escape(index + 1, false),
                    (0x1b, Some(b'\\')) => return Step::Escape(index + 2, false),
                    (0x1b, Some(_)) => return Step::Escape(index, false),
                    _ => {}
                }
            }
            Step::Cut
        }
        Some(0x20..=0x2f) => match input
            .iter()
            .skip(1)
            .position(|byte| !(0x20..=0x2f).contains(byte))
        {
            Some(after) => Step::Escape(after + 2, false),
            None => Step::Cut,
        },
        Some(_) => Step::Escape(2, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(keep: bool, text: &str) -> String {
        String::from_utf8(Strip::new(keep).push(text.as_bytes())).unwrap()
    }

    #[test]
    fn colours_stay_on_a_terminal_and_go_elsewhere() {
        assert_eq!(strip(true, "\x1b[1;31mred\x1b[0m"), "\x1b[1;31mred\x1b[0m");
        assert_eq!(strip(false, "\x1b[1;31mred\x1b[0m"), "red");
    }

    #[test]
    fn a_log_cannot_move_the_cursor_or_write_to_the_clipboard() {
        let wild = "a\x1b[2J\x1b[H\x1b]52;c;ZXZpbA==\x07b\x1b]0;title\x1b\\c\x1bcd\x1b(Be\x1bP1$r\x1b\\f\u{9b}31mg\x08\x07h\x1b[>4;1mi";
        assert_eq!(strip(true, wild), "abcdef31mghi");
    }

    #[test]
    fn an_escape_cut_at_any_byte_is_still_stripped() {
        let wild = "x\x1b[31my\x1b]0;t\x07zé\u{9b}\x1b(B.";
        let whole = strip(false, wild);
        for cut in 0..wild.len() {
            let mut stripper = Strip::new(false);
            let mut shown = stripper.push(&wild.as_bytes()[..cut]);
            shown.extend(stripper.push(&wild.as_bytes()[cut..]));
            assert_eq!(String::from_utf8(shown).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn an_escape_that_never_ends_does_not_swallow_the_log() {
        let mut stripper = Strip::new(false);
        stripper.push(b"\x1b]0;");
        stripper.push(&[b'a'; LONGEST_ESCAPE + 1]);
        assert_eq!(stripper.push(b"still here"), b"still here");
    }
}
