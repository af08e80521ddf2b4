//! The encoding again, written from `docs/protocol.md`: a second implementation beside bincode, which
//! also records where lengths, tags and positions are, so that tests can falsify them.

use serde::ser::{self, Impossible, Serialize};
use std::fmt::Display;

/// What is at a position in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// `u64`: bytes of a string.
    StringLength,
    /// `u64`: elements of a list.
    ListLength,
    /// `u8`: 0 or 1, then the value if 1.
    OptionTag,
    /// `u8`: 0 or 1.
    Bool,
    /// `u32`: the position of an enum's variant.
    Variant,
    /// `u16`: the number of an error code, the only integer of this size.
    Code,
}

/// A message's bytes, and what stands where.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<(usize, Mark)>,
    /// The enums that occur, each with the position of its variant.
    pub(crate) variants: Vec<(&'static str, u32)>,
}

/// Encodes by the rules of the document.
pub(crate) fn encode<T: Serialize>(message: &T) -> Reference {
    let mut reference = Reference::default();
    message.serialize(&mut reference).unwrap();
    reference
}

impl Reference {
    fn put(&mut self, bytes: &[u8]) -> Result<(), NotOnThisWire> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn mark(&mut self, mark: Mark, bytes: &[u8]) -> Result<(), NotOnThisWire> {
        self.marks.push((self.bytes.len(), mark));
        self.put(bytes)
    }

    fn variant(&mut self, name: &'static str, position: u32) -> Result<(), NotOnThisWire> {
        self.variants.push((name, position));
        self.mark(Mark::Variant, &position.to_le_bytes())
    }
}

/// The protocol has no wide floats, characters, maps or signed integers.
#[derive(Debug)]
pub(crate) struct NotOnThisWire;

impl Display for NotOnThisWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the document has no encoding for this type")
    }
}

impl std::error::Error for NotOnThisWire {}

impl ser::Error for NotOnThisWire {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }
}

type Done = Result<(), NotOnThisWire>;

macro_rules! refuse {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Done { Err(NotOnThisWire) })*
    };
}

impl<'a> ser::Serializer for &'a mut Reference {
    type Ok = ();
    type Error = NotOnThisWire;
    type SerializeSeq = &'a mut Reference;
    type SerializeTuple = &'a mut Reference;
    type SerializeTupleStruct = Impossible<(), NotOnThisWire>;
    type SerializeTupleVariant = Impossible<(), NotOnThisWire>;
    type SerializeMap = Impossible<(), NotOnThisWire>;
    type SerializeStruct = &'a mut Reference;
    type SerializeStructVariant = &'a mut Reference;

    refuse!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    refuse!(serialize_u8: u8, serialize_f64: f64, serialize_char: char);
    refuse!(serialize_bytes: &[u8], serialize_unit_struct: &'static str);

    fn serialize_bool(self, value: bool) -> Done {
        self.mark(Mark::Bool, &[u8::from(value)])
    }
    fn serialize_u16(self, value: u16) -> Done {
        self.mark(Mark::Code, &value.to_le_bytes())
    }
    fn serialize_u32(self, value: u32) -> Done {
        self.put(&value.to_le_bytes())
    }
    fn serialize_u64(self, value: u64) -> Done {
        self.put(&value.to_le_bytes())
    }
    fn serialize_f32(self, value: f32) -> Done {
        self.put(&value.to_le_bytes())
    }
    fn serialize_str(self, text: &str) -> Done {
        self.mark(Mark::StringLength, &(text.len() as u64).to_le_bytes())?;
        self.put(text.as_bytes())
    }
    fn serialize_none(self) -> Done {
        self.mark(Mark::OptionTag, &[0])
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.mark(Mark::OptionTag, &[1])?;
        value.serialize(self)
    }
    fn serialize_unit(self) -> Done {
        Err(NotOnThisWire)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }
    fn serialize_unit_variant(self, name: &'static str, position: u32, _: &'static str) -> Done {
        self.variant(name, position)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        position: u32,
        _: &'static str,
        value: &T,
    ) -> Done {
        self.variant(name, position)?;
        value.serialize(self)
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        position: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, NotOnThisWire> {
        self.variant(name, position)?;
        Ok(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, NotOnThisWire> {
        let len = len.ok_or(NotOnThisWire)? as u64;
        self.mark(Mark::ListLength, &len.to_le_bytes())?;
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, NotOnThisWire> {
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, NotOnThisWire> {
        Ok(self)
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotOnThisWire> {
        Err(NotOnThisWire)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotOnThisWire> {
        Err(NotOnThisWire)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotOnThisWire> {
        Err(NotOnThisWire)
    }
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Elements and fields stand one behind the other, with nothing between them.
macro_rules! one_behind_the_other {
    ($($trait:ident::$method:ident($($name:ty)?)),*) => {
        $(impl ser::$trait for &mut Reference {
            type Ok = ();
            type Error = NotOnThisWire;
            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Done {
                value.serialize(&mut **self)
            }
            fn end(self) -> Done {
                Ok(())
            }
        })*
    };
}

one_behind_the_other!(
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str)
);
