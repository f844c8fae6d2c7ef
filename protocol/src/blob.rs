//! Bytes in JSON: a plain string where they are UTF-8, `{"base64": "…"}` where they are not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that a client gives or gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl From<String> for Blob {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

#[derive(Serialize)]
struct Base64Out {
    base64: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64In {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BlobIn {
    Text(String),
    Base64(Base64In),
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Base64Out {
                base64: BASE64_STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match BlobIn::deserialize(deserializer) {
            Ok(BlobIn::Text(text)) => Ok(Self(text.into_bytes())),
            Ok(BlobIn::Base64(coded)) => decode_base64(&coded.base64).map(Self),
            Err(_) => Err(de::Error::custom("expected a text or {\"base64\": \"…\"}")),
        }
    }
}

/// The bytes that `coded` stands for in standard base 64 with padding.
pub(crate) fn decode_base64<E: de::Error>(coded: &str) -> Result<Vec<u8>, E> {
    BASE64_STANDARD
        .decode(coded)
        .map_err(|error| de::Error::custom(format_args!("base64 does not decode: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_json(bytes: Vec<u8>) {
            let blob = Blob(bytes);
            let json = serde_json::to_string(&blob).unwrap();
            prop_assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob);
        }
    }

    #[test]
    fn text_stays_readable_and_bytes_become_base64() {
        assert_eq!(
            serde_json::to_string(&Blob(b"hi".to_vec())).unwrap(),
            "\"hi\""
        );
        assert_eq!(
            serde_json::to_string(&Blob(vec![0xff])).unwrap(),
            "{\"base64\":\"/w==\"}"
        );
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for json in [
            "3",
            "null",
            "{\"base64\": \"!\"}",
            "{\"base64\": \"\", \"x\": 1}",
        ] {
            assert!(serde_json::from_str::<Blob>(json).is_err(), "{json}");
        }
    }
}
