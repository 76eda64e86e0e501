//! Messages in the wire format of Protocol Buffers, as far as a file that is only written needs it.
//!
//! By hand, because that is two sorts of numbers and bytes behind their length, and because a
//! library would want the whole model as one value.

/// A message while it is put together: fields by their numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message(Vec<u8>);

/// How the value of a field lies in the file.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Bytes = 2,
    FourBytes = 5,
}

impl Message {
    pub(super) fn int(mut self, field: u64, value: i64) -> Message {
        self.tag(field, Wire::Varint);
        // A negative one has all ten bytes.
        self.varint(value as u64);
        self
    }

    pub(super) fn ints(self, field: u64, values: &[i64]) -> Message {
        values
            .iter()
            .fold(self, |all, &value| all.int(field, value))
    }

    pub(super) fn float(mut self, field: u64, value: f32) -> Message {
        self.tag(field, Wire::FourBytes);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(self, field: u64, bytes: &[u8]) -> Message {
        let mut all = self.announced(field, bytes.len());
        all.0.extend(bytes);
        all
    }

    pub(super) fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    pub(super) fn texts(self, field: u64, texts: &[String]) -> Message {
        texts.iter().fold(self, |all, text| all.text(field, text))
    }

    pub(super) fn message(self, field: u64, message: &Message) -> Message {
        self.bytes(field, &message.0)
    }

    pub(super) fn messages(self, field: u64, messages: impl Iterator<Item = Message>) -> Message {
        messages.fold(self, |all, message| all.message(field, &message))
    }

    /// The beginning of a field whose bytes, so many, are written behind it.
    pub(super) fn announced(mut self, field: u64, n_bytes: usize) -> Message {
        self.tag(field, Wire::Bytes);
        self.varint(n_bytes as u64);
        self
    }

    /// What was announced.
    pub(super) fn then(mut self, message: &Message) -> Message {
        self.0.extend(&message.0);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn tag(&mut self, field: u64, wire: Wire) {
        self.varint(field << 3 | wire as u64);
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own documentation.
    #[test]
    fn fields_have_the_bytes_that_the_format_prescribes() {
        let bytes = |message: Message| message.0;
        assert_eq!(bytes(Message::default().int(1, 150)), [0x08, 0x96, 0x01]);
        let text = Message::default().text(2, "testing");
        assert_eq!(bytes(text), b"\x12\x07testing");
        let inner = Message::default().int(1, 150);
        let outer = Message::default().message(3, &inner);
        assert_eq!(bytes(outer), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let below = [0x08, 0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(bytes(Message::default().int(1, -2)), below);
        let float = Message::default().float(2, 1.0);
        assert_eq!(bytes(float), [0x15, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn what_is_announced_and_written_later_is_the_same_field() {
        let whole = Message::default().int(7, 1).bytes(100, &[9; 300]);
        let head = Message::default().int(7, 1).announced(100, 300);
        assert_eq!([head.as_bytes(), &[9; 300]].concat(), whole.0);
    }
}
