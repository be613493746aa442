//! `TraceLogging`: events that describe themselves. The format is that of the header `TraceLoggingProvider.h`: a length, a tag,
//! a name, then for each field its name and types.

use std::fmt::{self, Write as _};

/// One field of an event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventField {
    /// Its name in the event.
    pub name: String,
    /// Its value.
    pub value: EventValue,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum EventValue {
    /// A signed number.
    Signed(i64),
    /// An unsigned number, a pointer, or a truth value.
    Unsigned(u64),
    /// A floating-point number.
    Float(f64),
    /// Text of either width.
    Text(String),
    /// Bytes that are nothing of the above, as a GUID, an identifier or a binary block.
    Bytes(Vec<u8>),
    /// An array's elements.
    List(Vec<EventValue>),
}

impl fmt::Display for EventValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(number) => write!(f, "{number}"),
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::List(values) => f.debug_list().entries(values.iter().map(ToString::to_string)).finish(),
        }
    }
}

/// A GUID as it is written.
pub(super) fn guid_text(guid: &[u8; 16]) -> String {
    // The first three parts are numbers, the rest are bytes.
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::from("{");
    for (place, index) in ORDER.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{:02x}", guid[index]);
    }
    text + "}"
}

/// The name in a provider's traits: a length, then the name with its terminator.
pub(super) fn provider_name(traits: &[u8]) -> Option<String> {
    let name = traits.get(2..)?.split(|byte| *byte == 0).next()?;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Reads bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, bytes: usize) -> Option<i64> {
        let shift = 64 - 8 * bytes as u32;
        self.number(bytes).map(|value| (value << shift).cast_signed() >> shift)
    }

    /// A UTF-8 name with its terminator.
    fn name(&mut self) -> Option<String> {
        let length = self.0.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(name)
    }
}

/// A field as the metadata describe it.
struct Shape {
    name: String,
    kind: u8,
    /// 0 one value, 0x20 a fixed count, 0x40 a count in front of the data.
    array: u8,
    count: u16,
}

/// Name and fields of an event; `None` when the metadata are damaged.
pub(super) fn decode(description: &[u8], payload: &[u8]) -> Option<(String, Vec<EventField>)> {
    let mut reader = Reader(description.get(2..)?);
    // The tag: as many bytes as have their highest bit set, and one more.
    while reader.byte()? & 0x80 != 0 {}
    let name = reader.name()?;
    let mut data = Reader(payload);
    let mut fields = Vec::new();
    while let Some(shape) = shape(&mut reader) {
        // A structure has no data of its own: its members follow.
        if shape.kind == STRUCT {
            continue;
        }
        let Some(value) = value(&shape, &mut data) else { break };
        fields.push(EventField { name: shape.name, value });
    }
    Some((name, fields))
}

/// `TlgInSTRUCT`.
const STRUCT: u8 = 24;

fn shape(reader: &mut Reader<'_>) -> Option<Shape> {
    let name = reader.name()?;
    let types = reader.byte()?;
    let mut out = 0;
    if types & 0x80 != 0 {
        out = reader.byte()?;
    }
    // An out type with its highest bit set is followed by a tag.
    if out & 0x80 != 0 {
        while reader.byte()? & 0x80 != 0 {}
    }
    let array = types & 0x60;
    let count = if array == 0x20 { reader.number(2)? as u16 } else { 0 };
    Some(Shape { name, kind: types & 0x1F, array, count })
}

fn value(shape: &Shape, data: &mut Reader<'_>) -> Option<EventValue> {
    let count = match shape.array {
        0 => return single(shape.kind, data),
        0x20 => shape.count,
        _ => data.number(2)? as u16,
    };
    (0..count).map(|_| single(shape.kind, data)).collect::<Option<Vec<_>>>().map(EventValue::List)
}

fn single(kind: u8, data: &mut Reader<'_>) -> Option<EventValue> {
    Some(match kind {
        0 => EventValue::Bytes(Vec::new()),
        // Text up to its terminator, of either width.
        1 => {
            let mut units = Vec::new();
            loop {
                match data.number(2)? as u16 {
                    0 => break EventValue::Text(String::from_utf16_lossy(&units)),
                    unit => units.push(unit),
                }
            }
        }
        2 => EventValue::Text(data.name()?),
        3 => EventValue::Signed(data.signed(1)?),
        4 => EventValue::Unsigned(data.number(1)?),
        5 => EventValue::Signed(data.signed(2)?),
        6 => EventValue::Unsigned(data.number(2)?),
        7 => EventValue::Signed(data.signed(4)?),
        8 | 13 | 20 => EventValue::Unsigned(data.number(4)?),
        9 => EventValue::Signed(data.signed(8)?),
        10 | 17 | 21 => EventValue::Unsigned(data.number(8)?),
        11 => EventValue::Float(f32::from_bits(data.number(4)? as u32).into()),
        12 => EventValue::Float(f64::from_bits(data.number(8)?)),
        // Counted: a length in bytes first.
        14 => {
            let length = data.number(2)? as usize;
            EventValue::Bytes(data.take(length)?.to_vec())
        }
        15 | 18 => EventValue::Bytes(data.take(16)?.to_vec()),
        19 => {
            let parts = usize::from(*data.0.get(1)?);
            EventValue::Bytes(data.take(8 + parts * 4)?.to_vec())
        }
        22 => {
            let length = data.number(2)? as usize;
            let (units, _) = data.take(length)?.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            EventValue::Text(String::from_utf16_lossy(&units))
        }
        23 => {
            let length = data.number(2)? as usize;
            EventValue::Text(String::from_utf8_lossy(data.take(length)?).into_owned())
        }
        _ => return None,
    })
}
