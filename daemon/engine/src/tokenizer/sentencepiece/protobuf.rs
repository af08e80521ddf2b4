//! The fields of a protobuf message, one after the other.

use crate::tokenizer::sentencepiece::Fault;

/// The bytes of a varint of 64 bits, at most.
const VARINT_BYTES: usize = 10;

/// One field, its value still as it stands in the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    /// A text, other bytes, or a message within this one.
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

impl<'a> Field<'a> {
    pub(crate) fn varint(self) -> Result<u64, Fault> {
        match self.value {
            Value::Varint(value) => Ok(value),
            Value::Bytes(_) | Value::Fixed32(_) | Value::Fixed64 => Err(self.other_kind()),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed32(_) | Value::Fixed64 => Err(self.other_kind()),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Fault> {
        str::from_utf8(self.bytes()?).map_err(|_| self.other_kind())
    }

    pub(crate) fn float(self) -> Result<f32, Fault> {
        match self.value {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed64 => Err(self.other_kind()),
        }
    }

    fn other_kind(self) -> Fault {
        Fault::FieldKind(self.number)
    }
}

/// The fields of a message, until it ends or turns out to be none.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// `None` where the message is cut off or damaged.
    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(self.take(4)?.try_into().ok()?),
            // Groups, which nobody writes any more, and what never was.
            _ => return None,
        };
        Some(Field { number, value })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..VARINT_BYTES {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            // Of a tenth byte one bit counts; the others fall off at the top.
            value |= u64::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Fault::Message);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_one_by_one() {
        // Field 1: 300; field 2: "ab"; field 16: 1.0; field 3: eight bytes.
        let message = [
            &[0x08, 0xAC, 0x02, 0x12, 2, b'a', b'b', 0x85, 0x01, 0, 0, 0x80, 0x3F, 0x19][..],
            &[0; 8],
        ];
        let message = message.concat();
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 2, 16, 3]);
        assert_eq!(fields[0].varint().unwrap(), 300);
        assert_eq!(fields[1].text().unwrap(), "ab");
        assert!((fields[2].float().unwrap() - 1.0).abs() < f32::EPSILON);
        assert!(matches!(fields[3].float(), Err(Fault::FieldKind(3))));
        assert!(matches!(fields[0].bytes(), Err(Fault::FieldKind(1))));
        for len in 1..message.len() {
            let last = Fields::of(&message[..len]).last().unwrap();
            let ends = [3, 7, 13].contains(&len);
            assert_eq!(last.is_ok(), ends, "{len}: {last:?}");
        }
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        for message in [
            // A length of almost 2^64.
            &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0][..],
            // A varint without end.
            &[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0],
            // Field 0, a group, a kind that never was.
            &[0x00, 0x00],
            &[0x0B, 0x0C],
            &[0x0F],
        ] {
            let fields: Vec<_> = Fields::of(message).collect();
            assert!(matches!(fields[..], [Err(Fault::Message)]), "{message:?}: {fields:?}");
        }
    }
}
