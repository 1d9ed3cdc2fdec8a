//! Random changes of inputs, reproducible from a seed.

use std::hash::{DefaultHasher, Hash, Hasher};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        Self(hasher.finish())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index(&mut self, length: usize) -> usize {
        self.below(length.max(1) as u64) as usize
    }

    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    pub fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

/// Numbers at which programs break.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// One to eight random changes. `words` are pieces of the format; `other` is another input.
pub fn mutated(chance: &mut Chance, mut input: Vec<u8>, other: &[u8], words: &[&[u8]]) -> Vec<u8> {
    for _ in 0..1 + chance.below(4) * chance.below(3) {
        change(chance, &mut input, other, words);
    }
    input
}

fn change(chance: &mut Chance, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = chance.index(input.len());
    let length = (1 + chance.index(16)).min(input.len() - at.min(input.len()));
    match chance.below(12) {
        0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
        1 if !input.is_empty() => input[at] = chance.next() as u8,
        2 => {
            input.splice(at..at + length, []);
        }
        3 => {
            let piece = input[at..at + length].to_vec();
            let to = chance.index(input.len() + 1);
            input.splice(to..to, piece);
        }
        4 => input.truncate(at),
        5 => {
            let number = chance.of(&NUMBERS).wrapping_add(chance.below(3)).wrapping_sub(1);
            let size = *chance.of(&[1, 2, 4, 8]);
            let mut bytes = number.to_le_bytes()[..size].to_vec();
            if chance.one_in(2) {
                bytes.reverse();
            }
            let end = (at + size).min(input.len());
            input.splice(at.min(end)..end, bytes);
        }
        6 => number(chance, input),
        7 | 8 if !words.is_empty() => {
            let word = *chance.of(words);
            let end = if chance.one_in(2) { at } else { (at + word.len()).min(input.len()) };
            input.splice(at..end.max(at), word.iter().copied());
        }
        9 if !other.is_empty() => {
            let from = chance.index(other.len());
            let length = 1 + chance.index((other.len() - from).min(256));
            let piece = &other[from..from + length];
            let end = if chance.one_in(2) { at } else { (at + length).min(input.len()) };
            input.splice(at..end.max(at), piece.iter().copied());
        }
        10 => {
            let byte = chance.next() as u8;
            let count = 1 << chance.below(10);
            input.splice(at..at, std::iter::repeat_n(byte, count));
        }
        _ => {
            input.insert(at, chance.next() as u8);
        }
    }
}

/// Changes a number that is written in digits.
fn number(chance: &mut Chance, input: &mut Vec<u8>) {
    let digit = |at: &usize| input[*at].is_ascii_digit();
    let starts: Vec<usize> =
        (0..input.len()).filter(digit).filter(|at| *at == 0 || !digit(&(at - 1))).collect();
    if starts.is_empty() {
        return;
    }
    let start = *chance.of(&starts);
    let end = (start..input.len()).find(|at| !digit(at)).unwrap_or(input.len());
    let text = match chance.below(6) {
        0 => "0".to_owned(),
        1 => format!("-{}", chance.of(&NUMBERS)),
        2 => "9".repeat(1 + chance.index(40)),
        3 => format!("{}e{}", chance.below(10), chance.below(400)),
        4 => chance.below(300).to_string(),
        _ => chance.of(&NUMBERS).to_string(),
    };
    input.splice(start..end, text.into_bytes());
}

/// Writes the checksum of every chunk of a PNG again.
pub fn png_sums(png: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= png.len() {
        let length = u32::from_be_bytes([png[at], png[at + 1], png[at + 2], png[at + 3]]) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= png.len()) else {
            return;
        };
        let sum = crc32fast::hash(&png[at + 4..end]).to_be_bytes();
        png[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Writes the checksum of every header of a tar again.
pub fn tar_sums(tar: &mut [u8]) {
    for header in tar.as_chunks_mut::<512>().0 {
        if &header[257..262] == b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            let text = format!("{sum:06o}\0 ");
            header[148..156].copy_from_slice(&text.as_bytes()[..8]);
        }
    }
}

/// CRC-16 of Modbus after a frame.
pub fn modbus_sum(frame: &[u8]) -> [u8; 2] {
    let mut sum = 0xffffu16;
    for byte in frame {
        sum ^= u16::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xa001 * (sum & 1));
        }
    }
    sum.to_le_bytes()
}
