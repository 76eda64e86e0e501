//! The rows of a file, with those that belong together put together.
//!
//! Most rows are documents. Of a chat's export, or a table of messages, a row is a part of one, and
//! which belong together is only known when they are read in order: here, before they are handed to
//! the threads.

use tinylm_pipeline::StageError;

use super::{
    chunk::{CHUNK_BYTES, Chunk, Rows},
    columns::Columns,
    conversations::{Cast, Conversations, Heard, Message},
    flat,
    joiner::Joiner,
    personachat,
    read::Reader,
    settings::NormalizeSettings,
    shapes::Format,
    source::{Cells, Source},
    table, whatsapp,
};

pub(super) struct Gathered {
    reader: Reader,
    has_header: bool,
    position: u64,
    parts: Parts,
}

enum Parts {
    Rows,
    Paragraphs(Joiner),
    Messages(Ear, Box<Conversations>),
}

/// How messages are found in rows.
enum Ear {
    Whatsapp(whatsapp::Log),
    PersonaChat(personachat::Lines),
    Turns { cells: Cells, columns: Columns },
}

impl Gathered {
    pub(super) fn open(
        source: &Source,
        settings: &NormalizeSettings,
        assistant: Option<&str>,
    ) -> Result<Self, StageError> {
        let bytes_max = settings.row_bytes_max as usize;
        let columns = match &source.cells {
            Cells::Table { columns } => columns.as_slice(),
            _ => &[],
        };
        let shape = &source.shape;
        let is_text = source.cells == Cells::Text;
        let parts = match (Ear::new(source), shape.format) {
            (Some(ear), _) => {
                let cast = Cast {
                    names: shape.roles.clone(),
                    assistant: assistant.map(str::to_owned),
                };
                let gathering = Conversations::new(cast, settings.pause_minutes, bytes_max);
                Parts::Messages(ear, Box::new(gathering))
            }
            (None, Format::Speakers | Format::Headings) if is_text => {
                Parts::Paragraphs(Joiner::new(shape.format, shape.roles.clone(), bytes_max))
            }
            _ => Parts::Rows,
        };
        Ok(Self {
            reader: Reader::open(
                &source.path,
                source.encoding,
                source.layout,
                bytes_max,
                columns,
            )?,
            has_header: source.cells.has_header(),
            position: 0,
            parts,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Chunk>, StageError> {
        loop {
            let ended = match &mut self.parts {
                Parts::Messages(_, conversations) => conversations.ended(CHUNK_BYTES),
                _ => Vec::new(),
            };
            if !ended.is_empty() {
                return Ok(Some(self.chunk(Rows::Conversations(ended))));
            }
            let Some(mut chunk) = self.row_chunk()? else {
                return Ok(self.last());
            };
            self.position = chunk.position;
            match &mut self.parts {
                Parts::Rows => return Ok(Some(chunk)),
                Parts::Paragraphs(joiner) => {
                    if let Rows::Units { bytes, units } = &chunk.rows {
                        chunk.rows = joiner.take(bytes, units);
                    }
                    return Ok(Some(chunk));
                }
                Parts::Messages(ear, conversations) => {
                    for (row, heard) in ear.hear(&chunk.rows) {
                        conversations.hear(row, heard);
                    }
                    if !chunk.rejected.is_empty() {
                        chunk.rows = Rows::Conversations(Vec::new());
                        return Ok(Some(chunk));
                    }
                }
            }
        }
    }

    /// Returns the lists of a JSON object whose elements were the rows.
    pub(super) fn lists(&self) -> &[String] {
        match self.parts {
            Parts::Messages(..) => &[],
            _ => self.reader.lists(),
        }
    }

    /// Returns what stood open when the file ended.
    fn last(&mut self) -> Option<Chunk> {
        let rows = match &mut self.parts {
            Parts::Rows => None,
            Parts::Paragraphs(joiner) => joiner.end(),
            Parts::Messages(ear, conversations) => {
                if let Some((row, heard)) = ear.end() {
                    conversations.hear(row, heard);
                }
                conversations.end();
                let ended = conversations.ended(CHUNK_BYTES);
                (!ended.is_empty()).then_some(Rows::Conversations(ended))
            }
        };
        rows.map(|rows| self.chunk(rows))
    }

    fn chunk(&self, rows: Rows) -> Chunk {
        Chunk {
            rows,
            rejected: Vec::new(),
            position: self.position,
        }
    }

    /// Returns the next rows as they stand in the file, without a header.
    fn row_chunk(&mut self) -> Result<Option<Chunk>, StageError> {
        let mut chunk = self.reader.next()?;
        if let Some(Chunk {
            rows: Rows::Units { units, .. },
            ..
        }) = &mut chunk
            && self.has_header
            && !units.is_empty()
        {
            units.remove(0);
            self.has_header = false;
        }
        Ok(chunk)
    }
}

impl Ear {
    fn new(source: &Source) -> Option<Self> {
        match source.shape.format {
            Format::Whatsapp => Some(Self::Whatsapp(whatsapp::Log::default())),
            Format::PersonaChat => Some(Self::PersonaChat(personachat::Lines::default())),
            Format::Turns => Some(Self::Turns {
                cells: source.cells.clone(),
                columns: source.shape.columns.clone(),
            }),
            _ => None,
        }
    }

    /// Returns what some rows hold, with the number of each.
    fn hear(&mut self, rows: &Rows) -> Vec<(u64, Result<Heard, String>)> {
        match rows {
            Rows::Units { bytes, units } => {
                let mut heard = Vec::with_capacity(units.len());
                for unit in units {
                    let bytes = &bytes[unit.at.clone()];
                    match self {
                        Self::Whatsapp(log) => heard.extend(log.take(bytes, unit.row)),
                        Self::PersonaChat(lines) => {
                            let read = lines.take(bytes, unit.row);
                            heard.extend(read.into_iter().map(|read| (unit.row, read)));
                        }
                        Self::Turns { cells, columns } => {
                            let cell = cells.parse(bytes);
                            let read = cell.and_then(|cell| flat::heard(&cell, unit.row, columns));
                            heard.push((unit.row, read));
                        }
                    }
                }
                heard
            }
            Rows::Table { table, first_row } => {
                let Self::Turns { columns, .. } = self else {
                    return Vec::new();
                };
                let rows = table::rows(table);
                let heard = rows.iter().zip(*first_row..);
                heard
                    .map(|(cell, row)| (row, flat::heard(cell, row, columns)))
                    .collect()
            }
            Rows::Conversations(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Option<(u64, Result<Heard, String>)> {
        match self {
            Self::Whatsapp(log) => log.end(),
            _ => None,
        }
    }
}

/// Those who speak in a file, as far as its first chunk tells, in the order of their first words.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) n_messages: Vec<(String, u64)>,
    /// Whether there are messages that nothing but time tells apart.
    pub(super) is_stream: bool,
}

/// Listens to a file in which messages stand one by one.
pub(super) fn people(
    source: &Source,
    settings: &NormalizeSettings,
) -> Result<Option<People>, StageError> {
    let mut gathered = Gathered::open(source, settings, None)?;
    let Some(chunk) = gathered.row_chunk()? else {
        return Ok(None);
    };
    let Parts::Messages(ear, _) = &mut gathered.parts else {
        return Ok(None);
    };
    let mut heard = ear.hear(&chunk.rows);
    heard.extend(ear.end());
    let messages = heard.into_iter().filter_map(|(_, heard)| match heard {
        Ok(Heard::Message(message)) => Some(message),
        _ => None,
    });
    let mut messages: Vec<Message> = messages.collect();
    let at = |message: Option<&Message>| message.and_then(|message| message.at);
    let is_backwards = at(messages.last()) < at(messages.first());
    if is_backwards {
        messages.reverse();
    }
    let mut people = People::default();
    for message in messages {
        people.is_stream |= message.conversation.is_none() && message.id.is_none();
        let known = people.n_messages.iter_mut();
        match known.into_iter().find(|(name, _)| *name == message.who) {
            Some((_, n_messages)) => *n_messages += 1,
            None => people.n_messages.push((message.who, 1)),
        }
    }
    Ok(Some(people))
}
