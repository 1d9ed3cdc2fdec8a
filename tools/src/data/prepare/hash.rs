//! Detection of duplicate photos regardless of size and compression, by difference hashes
//! (dHash, Neal Krawetz, "Kind of Like That", 2013): one along the rows and one along the
//! columns.

use facelatch::vision::frame::Frame;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};

/// Comparisons per row and number of rows (and likewise for columns).
const CELLS: usize = 8;
/// Largest distance, of 128 bits, at which two files count as the same picture. A portrait
/// at half its size and JPEG quality 40 differs in up to 3 bits. Of the 24 million pairs
/// among 6,922 photos of Labeled Faces in the Wild, ten differ in up to 6 bits, and each of
/// them is one picture under two names. No pair differs in 7 to 9 bits. From 10 bits on,
/// pairs are different pictures, at first of the same event.
const SAME_PICTURE: u32 = 7;
/// The bits are cut into one part more than bits may differ. Two similar hashes therefore
/// have at least one part in common, and only hashes that share a part are compared.
const PARTS: usize = SAME_PICTURE as usize + 1;
/// Bits per part.
const PART: usize = 128 / PARTS;

/// Difference hash of a picture, 128 bits: whether each cell of a coarse grid is darker
/// than the next one. 64 bits compare along rows, then 64 along columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look(u128);

impl Look {
    /// Computes the hash of a picture.
    pub fn of(frame: &Frame) -> Self {
        let (rows, columns) = (cells(frame, CELLS + 1, CELLS), cells(frame, CELLS, CELLS + 1));
        let mut bits = 0;
        for at in 0..CELLS * CELLS {
            let (x, y) = (at % CELLS, at / CELLS);
            let along = y * (CELLS + 1) + x;
            bits = bits << 1 | u128::from(rows[along] < rows[along + 1]);
        }
        for at in 0..CELLS * CELLS {
            bits = bits << 1 | u128::from(columns[at] < columns[at + CELLS]);
        }
        Self(bits)
    }

    /// Hamming distance of two hashes, 0..=128 bits.
    pub fn distance(self, other: Self) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl Serialize for Look {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Look {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Mean luma (BT.601) of the cells of a grid, row by row, in 1/1000 of a byte value.
fn cells(frame: &Frame, across: usize, down: usize) -> Vec<u64> {
    let (width, height) = (frame.width(), frame.height());
    // In a picture narrower than the grid, several cells get the same pixel.
    let range = |at: usize, cells: usize, pixels: usize| {
        let from = (at * pixels / cells).min(pixels - 1);
        from..((at + 1) * pixels / cells).max(from + 1)
    };
    let mut means = Vec::with_capacity(across * down);
    for y in 0..down {
        for x in 0..across {
            let (columns, rows) = (range(x, across, width), range(y, down, height));
            let count = (columns.len() * rows.len()) as u64;
            let mut sum = 0;
            for row in rows {
                for pixel in frame.row(row)[columns.start * 3..columns.end * 3].chunks_exact(3) {
                    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u64::from);
                    sum += 299 * r + 587 * g + 114 * b;
                }
            }
            means.push(sum / count);
        }
    }
    means
}

/// A photo that looks like an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// Name of the photo.
    pub photo: String,
    /// Name of the earlier photo that it looks like.
    pub of: String,
    /// Whether the two are labelled as different people. One label is then wrong, and
    /// training would learn both.
    pub different_people: bool,
    /// Hamming distance of their hashes, of 128 bits.
    pub distance: u32,
}

/// Finds each photo that looks like an earlier one. `photos` holds name, person and hash. A
/// photo is reported once, with its most similar earlier photo; one of another person takes
/// precedence. Duplicates across people come first in the result.
pub fn duplicates(photos: &[(&str, &str, Look)]) -> Vec<Duplicate> {
    let mut parts: HashMap<(usize, u16), Vec<usize>> = HashMap::new();
    let mut found = Vec::new();
    for (at, (photo, person, look)) in photos.iter().enumerate() {
        let mut alike = BTreeMap::new();
        for part in 0..PARTS {
            let bits = (look.0 >> (part * PART)) as u16;
            let others = parts.entry((part, bits)).or_default();
            for other in others.iter().copied() {
                let (_, other_person, other_look) = photos[other];
                let distance = look.distance(other_look);
                if distance <= SAME_PICTURE {
                    alike.insert((other_person == *person, distance, other), other);
                }
            }
            others.push(at);
        }
        if let Some(((same, distance, _), other)) = alike.into_iter().next() {
            found.push(Duplicate {
                photo: (*photo).to_owned(),
                of: photos[other].0.to_owned(),
                different_people: !same,
                distance,
            });
        }
    }
    // Wrong labels spoil training, so they come first.
    found.sort_by_key(|duplicate| !duplicate.different_people);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops::{FilterType, resize};
    use image::{ExtendedColorType, RgbImage, codecs::jpeg::JpegEncoder};

    fn portrait(name: &str) -> Frame {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/").to_owned() + name;
        facelatch::vision::picture::read(path).expect("a portrait")
    }

    #[test]
    fn a_portrait_made_smaller_and_compressed_again_still_looks_the_same() {
        for name in ["astronaut.jpg", "grace_hopper.jpg"] {
            let frame = portrait(name);
            let (width, height) = (frame.width() as u32, frame.height() as u32);
            let picture = RgbImage::from_raw(width, height, frame.pixels().to_vec()).expect("RGB");
            let half = resize(&picture, width / 2, height / 2, FilterType::Triangle);
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, 40)
                .encode(&half, width / 2, height / 2, ExtendedColorType::Rgb8)
                .expect("JPEG");
            let again =
                facelatch::vision::picture::decode("half.jpg".as_ref(), &jpeg).expect("a picture");
            let distance = Look::of(&frame).distance(Look::of(&again));
            assert!(distance <= SAME_PICTURE / 2, "{name}: {distance}");
        }
        let both = Look::of(&portrait("astronaut.jpg"));
        assert!(both.distance(Look::of(&portrait("grace_hopper.jpg"))) > 3 * SAME_PICTURE);
    }

    #[test]
    fn a_picture_smaller_than_the_grid_has_a_look() {
        assert_eq!(Look::of(&Frame::filled(1, 1, [9; 3])), Look(0));
        let look = Look::of(&Frame::new(2, 1, vec![0, 0, 0, 9, 9, 9]).expect("a frame"));
        assert_ne!(look, Look(0));
    }

    #[test]
    fn each_photo_is_told_with_its_nearest_and_other_people_first() {
        let photos = [
            ("a1", "Ann", Look(0)),
            ("a2", "Ann", Look(1)),
            ("c", "Cy", Look(u128::MAX)),
            ("b", "Bo", Look(0b111)),
            ("d", "Di", Look(u128::MAX << 8)),
        ];
        let told: Vec<_> = duplicates(&photos)
            .into_iter()
            .map(|found| (found.photo, found.of, found.different_people, found.distance))
            .collect();
        let expected = [("b", "a2", true, 2), ("a2", "a1", false, 1)];
        let expected =
            expected.map(|(photo, of, other, bits)| (photo.to_owned(), of.to_owned(), other, bits));
        assert_eq!(told, expected);
    }

    #[test]
    fn a_look_survives_its_json() {
        let look = Look(u128::MAX / 3);
        let text = serde_json::to_string(&look).expect("JSON");
        assert_eq!(serde_json::from_str::<Look>(&text).expect("a look"), look);
    }
}
