//! The orientation of a picture in its EXIF data (CIPA DC-008, 4.6).

use image::metadata::Orientation;

/// Tag of the orientation.
const ORIENTATION: u16 = 0x0112;

/// The orientation in the first of several pieces of EXIF data that has one.
pub(super) fn first<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Orientation> {
    pieces.into_iter().find_map(orientation)
}

/// Reads the first directory of TIFF data. The number may be of any integer type.
fn orientation(exif: &[u8]) -> Option<Orientation> {
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let number = |at: usize, size: usize| {
        let bytes = exif.get(at..at.checked_add(size)?)?;
        let sum = |sum: u32, byte: &u8| sum << 8 | u32::from(*byte);
        Some(match little {
            true => bytes.iter().rev().fold(0, sum),
            false => bytes.iter().fold(0, sum),
        })
    };
    let directory = number(4, 4)? as usize;
    let count = number(directory, 2)? as usize;
    let entries = (0..count).map_while(|index| directory.checked_add(2 + 12 * index));
    let entry = entries
        .map_while(|at| number(at, 2).map(|tag| (at, tag)))
        .find_map(|(at, tag)| (tag == u32::from(ORIENTATION)).then_some(at))?;
    let size = match number(entry + 2, 2)? {
        // BYTE and SBYTE, SHORT and SSHORT, LONG and SLONG.
        1 | 6 => 1,
        3 | 8 => 2,
        4 | 9 => 4,
        _ => return None,
    };
    // Values of more than four bytes are elsewhere.
    let at = match number(entry + 4, 4)? {
        0 => return None,
        values if u64::from(values) * size as u64 <= 4 => entry + 8,
        _ => number(entry + 8, 4)? as usize,
    };
    Orientation::from_exif(u8::try_from(number(at, size)?).ok()?)
}

/// The EXIF data of a PNG file (chunk eXIf), which may follow the picture's data.
pub(super) fn of_png(bytes: &[u8]) -> Option<&[u8]> {
    chunks(bytes).find_map(|(kind, content)| (kind == b"eXIf").then_some(content))
}

/// Kind and content of the chunks of a PNG file.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let (content, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        // A check sum follows.
        rest = after.get(4..)?;
        Some((kind, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// EXIF data with one tag before the orientation.
    fn exif(little: bool, kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
        let short = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let long = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        bytes.extend(
            [&long(8)[..], &short(2), &short(0x010f), &short(2), &long(1), &[0; 4]].concat(),
        );
        bytes.extend([&short(ORIENTATION)[..], &short(kind), &long(count)].concat());
        match value.len() {
            0..=4 => bytes.extend(value),
            _ => {
                let at = bytes.len() as u32 + 8;
                bytes.extend([&long(at)[..], &[0; 4], value].concat());
            }
        }
        bytes
    }

    #[test]
    fn the_number_may_have_any_integer_type() {
        let six = Orientation::from_exif(6);
        for (little, kind, count, value) in [
            (true, 3, 1, &[6, 0, 0, 0][..]),
            (false, 3, 1, &[0, 6, 0, 0]),
            (true, 4, 1, &[6, 0, 0, 0]),
            (false, 4, 1, &[0, 0, 0, 6]),
            (false, 1, 1, &[6, 0, 0, 0]),
            (true, 9, 1, &[6, 0, 0, 0]),
            (true, 4, 2, &[6, 0, 0, 0, 1, 0, 0, 0]),
        ] {
            assert_eq!(orientation(&exif(little, kind, count, value)), six, "{kind} {value:?}");
        }
        // A float, a number that is none, and no value.
        assert_eq!(orientation(&exif(true, 11, 1, &[6, 0, 0, 0])), None);
        assert_eq!(orientation(&exif(true, 3, 1, &[9, 0, 0, 0])), None);
        assert_eq!(orientation(&exif(true, 3, 0, &[6, 0, 0, 0])), None);
    }

    #[test]
    fn the_first_piece_with_an_orientation_counts() {
        let [six, three] = [6, 3].map(|value| exif(true, 3, 1, &[value, 0, 0, 0]));
        let none = exif(true, 11, 1, &[1, 0, 0, 0]);
        let found = first([&none[..], &six, &three]);
        assert_eq!(found, Orientation::from_exif(6));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            start in prop::sample::select(vec![b"II*\0", b"MM\0*"]),
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = orientation(&[&start[..], &bytes].concat());
            let _ = chunks(&bytes).count();
        }
    }
}
