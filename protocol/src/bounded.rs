//! Decoding of strings and lists without trust in the claimed length.
//!
//! Serde's own implementations reserve memory for the length that the sender claims (up to 1 MiB
//! for a list, up to the codec's limit for a string) before the first element arrives. These grow
//! with the elements that have arrived.

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// A string: checked in place, and copied only when all of it has arrived.
pub(crate) fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct InPlace;
    impl Visitor<'_> for InPlace {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    deserializer.deserialize_str(InPlace)
}

/// A list: grows with decoded elements, never by the claimed count.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Growing<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Growing<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Growing(PhantomData))
}

/// An optional string, by the same rule as [`string`].
pub(crate) fn optional_string<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Bounded(#[serde(deserialize_with = "string")] String);
    Ok(Option::<Bounded>::deserialize(deserializer)?.map(|bounded| bounded.0))
}

/// A list of strings, by the same rules.
pub(crate) fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Bounded(#[serde(deserialize_with = "string")] String);
    let strings: Vec<Bounded> = list(deserializer)?;
    Ok(strings.into_iter().map(|bounded| bounded.0).collect())
}
