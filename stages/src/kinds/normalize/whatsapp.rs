//! WhatsApp's export of a chat, and what others write in its way.
//!
//! A message begins with a time and a name (`15/01/2023, 14:23 - Anna: Hi` of Android, `[15/01/2023,
//! 14:23:45] Anna: Hi` of iOS) and goes on over lines that do not. Lines with a time and no name, and
//! what the app writes in place of a picture or of a message that is gone, are nobody's words.

use super::{
    conversations::{Heard, Message},
    when::{DateOrder, When},
};

/// What iOS puts before its own words.
const MARK: char = '\u{200e}';
const NAME_CHARS_MAX: usize = 60;

/// The line that a message begins with.
#[derive(Debug, PartialEq)]
pub(super) struct Head<'a> {
    when: When,
    /// Nobody's where the app itself speaks.
    name: Option<&'a str>,
    said: &'a str,
}

impl<'a> Head<'a> {
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let line = line.trim_start_matches([MARK, '\u{feff}']);
        let (when, rest) = match line.strip_prefix('[') {
            Some(line) => {
                let (when, rest) = When::read(line)?;
                (when, rest.strip_prefix(']')?.strip_prefix(' ')?)
            }
            None => {
                let (when, rest) = When::read(line)?;
                (when, rest.strip_prefix(" - ")?)
            }
        };
        let named = rest.split_once(": ").or_else(|| {
            // A message that begins with a line's end.
            rest.strip_suffix(':').map(|name| (name, ""))
        });
        let name = |name: &'a str| name.trim_start_matches(['~', MARK]).trim();
        let named = named.map(|(who, said)| (name(who), said));
        let is_name = |name: &str| !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
        let (name, said) = match named.filter(|(name, _)| is_name(name)) {
            Some((name, said)) => (Some(name), said),
            None => (None, rest),
        };
        Some(Self { when, name, said })
    }

    pub(super) fn is_named(&self) -> bool {
        self.name.is_some()
    }
}

/// Reads a chat line by line.
#[derive(Default)]
pub(super) struct Log {
    order: Option<DateOrder>,
    /// The message that may go on.
    open: Option<Message>,
}

impl Log {
    /// Takes a piece of the file, which ends with a line; returns what it holds.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        first_row: u64,
    ) -> Vec<(u64, Result<Heard, String>)> {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let lines = || bytes.split(|byte| *byte == b'\n');
        let order = *self.order.get_or_insert_with(|| {
            let lines = lines().filter_map(|line| std::str::from_utf8(line).ok());
            let times = lines.filter_map(|line| Some(Head::read(line)?.when));
            When::order(&times.collect::<Vec<_>>())
        });
        let mut heard = Vec::new();
        for (row, line) in (first_row..).zip(lines()) {
            match std::str::from_utf8(line) {
                Ok(line) => self.line(line.trim_end_matches('\r'), row, order, &mut heard),
                Err(error) => heard.push((row, Err(super::csv::not_utf8(&error)))),
            }
        }
        heard
    }

    fn line(
        &mut self,
        line: &str,
        row: u64,
        order: DateOrder,
        heard: &mut Vec<(u64, Result<Heard, String>)>,
    ) {
        match (Head::read(line), &mut self.open) {
            (Some(head), _) => {
                heard.extend(self.end());
                self.open = Some(Message {
                    row,
                    n_rows: 1,
                    who: head.name.unwrap_or_default().to_owned(),
                    said: head.said.to_owned(),
                    at: Some(head.when.seconds(order)),
                    ..Message::default()
                });
            }
            (None, Some(open)) => {
                open.said.push('\n');
                open.said.push_str(line);
            }
            (None, None) if line.trim().is_empty() => {}
            (None, None) => heard.push((row, Err("has no time and no name".to_owned()))),
        }
    }

    /// Ends the last message.
    pub(super) fn end(&mut self) -> Option<(u64, Result<Heard, String>)> {
        let mut message = self.open.take()?;
        let row = message.row;
        if message.who.is_empty() {
            return Some((row, Ok(Heard::Notice("is the app's own".to_owned()))));
        }
        message.said = unedited(message.said.trim()).to_owned();
        let heard = match is_notice(&message.said) {
            true => Heard::Notice("is a notice in place of words".to_owned()),
            false => Heard::Message(message),
        };
        Some((row, Ok(heard)))
    }
}

/// Cuts the remark off that a message was changed.
fn unedited(said: &str) -> &str {
    let marked = said
        .rsplit_once("\u{200e}<")
        .filter(|(_, remark)| remark.ends_with('>') && !remark.contains('\n'));
    let said = marked.map_or(said, |(said, _)| said);
    said.trim_end_matches("<This message was edited>")
        .trim_end()
}

fn is_notice(said: &str) -> bool {
    /// Android has no mark before these.
    const WORDS: [&str; 6] = [
        "This message was deleted",
        "You deleted this message",
        "Messages and calls are end-to-end encrypted",
        "Missed voice call",
        "Missed video call",
        "null",
    ];
    const ENDINGS: [&str; 22] = [
        "jpg", "jpeg", "png", "webp", "gif", "mp4", "mov", "3gp", "opus", "ogg", "mp3", "m4a",
        "aac", "pdf", "vcf", "doc", "docx", "xls", "xlsx", "pptx", "zip", "apk",
    ];
    let is_one_line = !said.contains('\n');
    let is_in_brackets = said.starts_with('<') && said.ends_with('>') && !said[1..].contains('<');
    // `IMG-20230115-WA0001.jpg (file attached)`, in any language.
    let is_file = said.split_once(" (").is_some_and(|(file, remark)| {
        let ending = file.rsplit_once('.').map(|(_, ending)| ending);
        ending.is_some_and(|ending| ENDINGS.contains(&ending)) && remark.ends_with(')')
    });
    let is_known = |words: &&str| {
        let behind = said.strip_prefix(*words);
        behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('.'))
    };
    said.is_empty()
        || said.starts_with(MARK)
        || (is_one_line && (is_in_brackets || is_file))
        || WORDS.iter().any(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut log = Log::default();
        let mut heard = log.take(text.as_bytes(), 1);
        heard.extend(log.end());
        let lines = heard.into_iter().map(|(row, heard)| match heard {
            Ok(Heard::Message(message)) => format!("{row} {}: {:?}", message.who, message.said),
            Ok(Heard::Notice(why)) => format!("{row} {why}"),
            Err(why) => format!("{row} rejected: {why}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn androids_export_is_read() {
        let log = "\
15/01/2023, 14:20 - Messages and calls are end-to-end encrypted. Tap to learn more.
15/01/2023, 14:21 - Anna created group \"Trip\"
15/01/2023, 14:23 - Anna: Hi, see: this
  is

two lines.  
15/01/2023, 14:24 - Bob: <Media omitted>
15/01/2023, 14:24 - Bob: IMG-1.jpg (file attached)
15/01/2023, 14:25 - +44 7700 900000: ok <This message was edited>
15/01/2023, 14:25 - Bob: This message was deleted
15/01/2023, 14:26 - Bob: at 15/01/2023, 14:30 - no: later
";
        insta::assert_snapshot!(read(log), @r#"
        1 is the app's own
        2 is the app's own
        3 Anna: "Hi, see: this\n  is\n\ntwo lines."
        7 is a notice in place of words
        8 is a notice in place of words
        9 +44 7700 900000: "ok"
        10 is a notice in place of words
        11 Bob: "at 15/01/2023, 14:30 - no: later"
        "#);
    }

    #[test]
    fn the_export_of_ios_and_those_like_it_are_read() {
        let log = "\u{feff}[15/01/2023, 14:23:45] Anna: \u{200e}Messages and calls are end-to-end encrypted.\r
[15/01/2023, 14:23:45] ~\u{202f}Anna: Hi\r
you\r
\u{200e}[15/01/2023, 14:24:00] Bob: \u{200e}image omitted\r
[1/15/23, 2:24:10\u{202f}PM] Bob: Hello \u{200e}<This message was edited>\r
[2023-01-15 14:25] Me: from Signal\r
";
        insta::assert_snapshot!(read(log), @r#"
        1 is a notice in place of words
        2 Anna: "Hi\nyou"
        4 is a notice in place of words
        5 Bob: "Hello"
        6 Me: "from Signal"
        "#);
    }

    #[test]
    fn what_stands_before_the_first_message_is_rejected() {
        assert_eq!(read("Hello\n\n"), "1 rejected: has no time and no name");
        let mut log = Log::default();
        let heard = log.take(b"15/01/2023, 14:23 - Anna: \xff\n", 1);
        assert_eq!(
            heard,
            [(1, Err("not UTF-8 at byte 26 of the row".to_owned()))]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[\\[\u{200e}]?[0-9]{1,4}[/.-][0-9/., -]{0,8}[0-9:., apAPmM\u{202f}é\\]-]{0,16}[a:<>( )é]{0,8}") {
            let _ = read(&line);
        }
    }
}
