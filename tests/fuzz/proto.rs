//! Changes of protocol buffers that keep the lengths of their messages right, so that they
//! reach what reads the fields.

use crate::mutate::{Chance, mutated};

/// A field: its key with number and wire type, and its content without a length.
struct Field {
    key: u64,
    content: Content,
}

enum Content {
    Varint(u64),
    Bytes(Vec<u8>),
    Fixed(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn parse(mut bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = vec![];
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let mut take = |length: usize| {
            let (piece, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(piece.to_vec())
        };
        let content = match key & 7 {
            0 => Content::Varint(varint(&mut bytes)?),
            1 => Content::Fixed(take(8)?),
            5 => Content::Fixed(take(4)?),
            2 => {
                let length = varint(&mut bytes)?;
                let (piece, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                Content::Bytes(piece.to_vec())
            }
            _ => return None,
        };
        fields.push(Field { key, content });
    }
    (!fields.is_empty()).then_some(fields)
}

fn serialize(fields: &[Field]) -> Vec<u8> {
    let mut bytes = vec![];
    for Field { key, content } in fields {
        put_varint(*key, &mut bytes);
        match content {
            Content::Varint(value) => put_varint(*value, &mut bytes),
            Content::Fixed(piece) => bytes.extend(piece),
            Content::Bytes(piece) => {
                put_varint(piece.len() as u64, &mut bytes);
                bytes.extend(piece);
            }
        }
    }
    bytes
}

/// Changes one field somewhere in the message, or bytes if it is none.
pub fn changed(chance: &mut Chance, bytes: Vec<u8>, words: &[&[u8]]) -> Vec<u8> {
    let Some(mut fields) = parse(&bytes) else {
        return mutated(chance, bytes, &[], words);
    };
    let at = chance.index(fields.len());
    match chance.below(16) {
        0 => {
            fields.remove(at);
        }
        1 => {
            let other = chance.index(fields.len());
            fields.swap(at, other);
        }
        2 => fields[at].key = (fields[at].key & 7) | (chance.below(32) << 3),
        3 => {
            let copy = serialize(&fields[at..=at]);
            fields.extend(parse(&copy).unwrap_or_default());
        }
        _ => match &mut fields[at].content {
            Content::Varint(value) => {
                *value = match chance.below(4) {
                    0 => chance.next(),
                    1 => chance.below(20),
                    2 => value.wrapping_add(1),
                    _ => *chance.of(&[0, 1, u64::MAX, 1 << 31, 1 << 40, 1 << 62]),
                };
            }
            Content::Fixed(piece) => {
                let at = chance.index(piece.len());
                piece[at] = chance.next() as u8;
            }
            Content::Bytes(piece) => {
                let inner = std::mem::take(piece);
                *piece = if chance.one_in(8) {
                    mutated(chance, inner, &[], words)
                } else {
                    changed(chance, inner, words)
                };
            }
        },
    }
    serialize(&fields)
}
