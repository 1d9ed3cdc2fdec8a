//! The contact sheet: a picture of bounded size that shows each person's faces below the
//! name.

use crate::data::aligned::read_crop;
use crate::data::dataset::Row;
use anyhow::Result;
use facelatch::vision::draw::{self, Letters};
use facelatch::vision::frame::Frame;
use facelatch::vision::resample::resize;
use std::collections::BTreeMap;

/// Side of a face on the sheet, pixels.
const TILE: usize = 56;
/// Letters of the names.
const LETTERS: Letters = Letters::SMALL;
/// Space between faces and names, pixels.
const GAP: usize = 4;
/// Faces per row of the sheet, and the largest number of faces per person.
const ACROSS: usize = 16;
/// Largest number of faces on the sheet; each takes about 4 kB in the file.
const MOST_FACES: usize = 1024;

const PAPER: [u8; 3] = [24, 24, 24];
const INK: [u8; 3] = [230, 230, 230];

/// A person's faces on the sheet.
struct Block<'r> {
    person: String,
    /// The faces shown.
    faces: Vec<&'r Row>,
    /// Column and row of the first face, in tiles.
    place: (usize, usize),
}

/// Draws the people in the order of their labels; `side` is that of their aligned faces. If there is not enough room, each
/// person's faces are sampled evenly.
pub fn sheet(rows: &[Row], side: usize) -> Result<Frame> {
    let blocks = blocks(rows);
    let down = blocks.last().map_or(1, |block| block.place.1 + 1);
    let (step_x, step_y) = (TILE + GAP, TILE + LETTERS.height() + 2 * GAP);
    let mut sheet = Frame::filled(ACROSS * step_x + GAP, down * step_y + GAP, PAPER);
    for Block { person, faces, place } in &blocks {
        let (x, y) = (GAP + place.0 * step_x, GAP + place.1 * step_y);
        let room = faces.len() * step_x - GAP;
        draw::text(&mut sheet, person, (x as i64, y as i64), room, LETTERS, INK);
        for (at, row) in faces.iter().enumerate() {
            let crop = read_crop(&row.path, side)?;
            paste(
                &mut sheet,
                &resize(crop.frame(), TILE, TILE),
                (x + at * step_x, y + LETTERS.height() + GAP),
            );
        }
    }
    Ok(sheet)
}

fn blocks(rows: &[Row]) -> Vec<Block<'_>> {
    let mut of: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        of.entry(row.label).or_default().push(row);
    }
    let of: Vec<Vec<&Row>> = of.into_values().collect();
    let people = evenly(&of, MOST_FACES);
    let most = (MOST_FACES / people.len().max(1)).clamp(1, ACROSS);
    let (mut column, mut line) = (0, 0);
    let mut blocks = Vec::with_capacity(people.len());
    for faces in people {
        let faces: Vec<&Row> = evenly(faces, most).into_iter().copied().collect();
        if column + faces.len() > ACROSS {
            (column, line) = (0, line + 1);
        }
        let person = faces.first().map(|row| row.person.clone()).unwrap_or_default();
        let place = (column, line);
        column += faces.len();
        blocks.push(Block { person, faces, place });
    }
    blocks
}

/// At most `most` elements, at equal distances.
fn evenly<T>(all: &[T], most: usize) -> Vec<&T> {
    let count = all.len().min(most);
    (0..count).map(|at| &all[at * all.len() / count]).collect()
}

/// Copies a face of side [`TILE`] to a place on the sheet.
fn paste(sheet: &mut Frame, face: &Frame, (left, top): (usize, usize)) {
    let width = sheet.width();
    for y in 0..TILE {
        let start = ((top + y) * width + left) * 3;
        sheet.pixels_mut()[start..start + TILE * 3].copy_from_slice(face.row(y));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(photos: &[usize]) -> Vec<Row> {
        let of = |(label, count): (usize, &usize)| {
            (0..*count).map(move |at| Row {
                path: format!("{label}/{at}.png").into(),
                label,
                person: format!("p{label}"),
                group: None,
            })
        };
        photos.iter().enumerate().flat_map(of).collect()
    }

    #[test]
    fn people_stand_side_by_side_and_none_is_broken() {
        let rows = rows(&[3, 12, 0, 2, 40]);
        let blocks = blocks(&rows);
        let places: Vec<_> = blocks.iter().map(|block| (block.place, block.faces.len())).collect();
        assert_eq!(places, [((0, 0), 3), ((3, 0), 12), ((0, 1), 2), ((0, 2), 16)]);
        assert_eq!(blocks[3].faces[15].path, std::path::Path::new("4/37.png"));
    }

    #[test]
    fn many_people_make_no_larger_sheet() {
        for people in [100, 5000] {
            let rows = rows(&vec![30; people]);
            let blocks = blocks(&rows);
            let faces: usize = blocks.iter().map(|block| block.faces.len()).sum();
            let down = blocks.last().expect("people").place.1;
            assert!(faces <= MOST_FACES && faces > MOST_FACES / 2, "{faces}");
            assert!(down < 100, "{down}");
        }
    }

    #[test]
    fn names_and_faces_are_drawn_where_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.png");
        let red = Frame::filled(112, 112, [200, 0, 0]);
        std::fs::write(&path, facelatch::vision::picture::encode_png(&red).expect("PNG"))
            .expect("written");
        let person = "Änne-Łucja, whose name is longer than a face is wide".to_owned();
        let sheet = sheet(&[Row { path, label: 0, person, group: None }], 112).expect("a sheet");
        let inked: Vec<usize> = (0..sheet.width() * sheet.height())
            .filter(|at| sheet.pixels()[at * 3..at * 3 + 3] == INK)
            .map(|at| at % sheet.width())
            .collect();
        assert!(!inked.is_empty() && inked.iter().all(|x| (GAP..GAP + TILE).contains(x)));
        assert_eq!(sheet.pixel((GAP + TILE / 2) as isize, 40), [200, 0, 0]);
    }
}
