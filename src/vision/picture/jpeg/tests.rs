use super::*;
use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use std::io::Cursor;

const PORTRAIT: &[u8] = include_bytes!("../../../../assets/astronaut.jpg");

/// Width, height and pixels; `None` if the picture is unusual.
fn decoded(bytes: &[u8], memory: u64) -> Result<Option<(usize, usize, Vec<u8>)>, Fault> {
    let outline = Outline::read(bytes).expect("a JPEG");
    Ok(match decode(bytes, &outline, memory)? {
        Picture::Decoded(width, height, pixels) => Some((width, height, pixels)),
        Picture::Unusual => None,
    })
}

/// A small picture written by the general encoder.
fn small() -> Vec<u8> {
    let picture = RgbImage::from_fn(19, 11, |x, y| {
        image::Rgb([(x * 13) as u8, (y * 23) as u8, ((x * y) % 256) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("a JPEG");
    bytes.into_inner()
}

#[test]
fn it_is_near_the_general_decoder() {
    for bytes in [PORTRAIT, &small()] {
        let (width, height, pixels) =
            decoded(bytes, u64::MAX).expect("a whole picture").expect("an ordinary one");
        let other = image::load_from_memory(bytes).expect("a picture").into_rgb8();
        assert_eq!((width as u32, height as u32), other.dimensions());
        let apart = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b));
        let apart = pixels.iter().zip(other.as_raw()).map(apart);
        assert!(apart.clone().fold(0.0, f64::max) <= 6.0);
        assert!(apart.sum::<f64>() < 0.5 * pixels.len() as f64);
    }
}

/// Grey blocks one above the other, with a restart interval of one: differences of their
/// DC coefficients as data. The DC table has only the symbol for 4-bit numbers and the AC
/// table only the end of block, both as code 0.
fn column(lines: u16, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    bytes.extend([8; 64]);
    bytes.extend([0xff, 0xc0, 0, 11, 8]);
    bytes.extend(lines.to_be_bytes());
    bytes.extend([0, 8, 1, 1, 0x11, 0]);
    for (kind, symbol) in [(0x00, 4), (0x10, 0)] {
        bytes.extend([0xff, 0xc4, 0, 20, kind, 1]);
        bytes.extend([0; 15]);
        bytes.push(symbol);
    }
    bytes.extend([0xff, 0xdd, 0, 4, 0, 1, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
    bytes.extend(parts.concat());
    bytes
}

/// 10, -10 and 15, each filled up with ones.
const TEN: &[u8] = &[0b0101_0011];
const MINUS_TEN: &[u8] = &[0b0010_1011];
const FIFTEEN: &[u8] = &[0b0111_1011];
const END: &[u8] = &[0xff, 0xd9];

fn restart(number: u8) -> [u8; 2] {
    [0xff, 0xd0 + number]
}

/// The first sample of each block.
fn samples(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let (_, _, pixels) = decoded(bytes, u64::MAX)?.expect("an ordinary picture");
    Ok(pixels.chunks(3 * 64).map(|block| block[0]).collect())
}

#[test]
fn every_segment_is_there_once_and_in_order() {
    let [first, second, third] = [0, 1, 2].map(restart);
    let parts = [TEN, &first, MINUS_TEN, &second, FIFTEEN];
    let joined = |parts: &[&[u8]]| samples(&column(24, &[parts, &[END]].concat()));
    assert_eq!(joined(&parts), Ok(vec![138, 118, 143]));
    // Encoders also end with a restart marker.
    assert_eq!(joined(&[&parts[..], &[&third]].concat()), Ok(vec![138, 118, 143]));
    for (wrong, fault) in [
        (&[TEN, &second, FIFTEEN][..], "a restart marker is missing"),
        (&[TEN, &first, FIFTEEN], "a restart marker is missing"),
        (&[TEN, &first, &first, MINUS_TEN, &second, FIFTEEN], "ends early"),
        (&[TEN, &second, FIFTEEN, &first, MINUS_TEN], "a restart marker is missing"),
        (&[TEN, &first, MINUS_TEN, &second], "ends early near line 16 of 24"),
        (&[TEN], "a restart marker is missing"),
        (
            &[TEN, &first, MINUS_TEN, &second, &[FIFTEEN, &[0x3b]].concat().repeat(40)],
            "more data is left",
        ),
    ] {
        let Err(Fault::Damaged(found)) = joined(wrong) else { panic!("{wrong:?} was read") };
        assert!(found.contains(fault), "{wrong:?}: {found}");
    }
    // Fewer lines coded than declared, and more.
    let lines = |lines: u16| samples(&column(lines, &[&parts[..], &[END]].concat()));
    assert!(lines(32).is_err() && lines(24).is_ok());
    assert_eq!(
        samples(&column(16, &[&parts[..2], &[MINUS_TEN, END]].concat())).map(|s| s.len()),
        Ok(2)
    );
}

#[test]
fn bytes_that_libjpeg_skips_change_nothing() {
    let [first, second] = [0, 1].map(restart);
    let expected = Ok(vec![138, 118, 143]);
    for other in [&[0xff; 3][..], &[0x12, 0x34, 0x56], &[0; 10], &[0xff, 0, 7], &[0; 300]] {
        let bytes = column(24, &[TEN, other, &first, MINUS_TEN, other, &second, FIFTEEN, END]);
        assert_eq!(samples(&bytes), expected, "{other:?} before a restart marker");
        let bytes = column(24, &[TEN, &first, MINUS_TEN, &second, FIFTEEN, other, END]);
        assert_eq!(samples(&bytes), expected, "{other:?} before the end");
    }
    let plain = column(24, &[TEN, &first, MINUS_TEN, &second, FIFTEEN, END]);
    for at in [2, 2 + 69] {
        for other in [&[7, 8, 9][..], &[0; 40], &[0xff, 0xd8]] {
            let other = if at == 2 { other } else { &[7, 8, 9] };
            let bytes = [&plain[..at], other, &plain[at..]].concat();
            assert_eq!(samples(&bytes), expected, "{other:?} between segments");
        }
    }
    assert_eq!(samples(&[&plain[..], &[0; 100]].concat()), expected);
}

#[test]
fn the_number_of_lines_may_follow_the_first_scan() {
    let first = restart(0);
    let lines = [0xff, 0xdc, 0, 4, 0, 16];
    for header in [0, 32] {
        let bytes = column(header, &[TEN, &first, MINUS_TEN, &lines, END]);
        assert_eq!(samples(&bytes), Ok(vec![138, 118]), "{header}");
    }
    assert!(samples(&column(0, &[TEN, &first, MINUS_TEN, END])).is_err());
}

#[test]
fn tables_are_there_and_make_sense() {
    let plain = column(8, &[TEN, END]);
    assert!(samples(&plain).is_ok());
    let at = |wanted: u8| plain.windows(2).position(|pair| pair == [0xff, wanted]).expect("there");
    let without = |from: usize, to: usize| [&plain[..from], &plain[to..]].concat();
    for bytes in [
        without(at(0xdb), at(0xc0)),
        without(at(0xc0), at(0xc4)),
        without(at(0xc4), at(0xc4) + 22),
        without(at(0xda), at(0xda) + 10),
    ] {
        assert!(matches!(samples(&bytes), Err(Fault::Damaged(_))));
    }
    let mut zero = plain.clone();
    zero[20] = 0;
    assert!(matches!(samples(&zero), Err(Fault::Damaged(_))), "a step of zero");
}

/// Damage in a photograph, as a bad card or cable does it.
#[test]
fn a_photograph_that_lost_data_is_refused() {
    let scan = PORTRAIT.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan") + 14;
    let end = PORTRAIT.len() - 2;
    let cut = |at: usize| [&PORTRAIT[..at], END].concat();
    let length = end - scan;
    for at in [scan + length / 10, scan + length / 2, end - 20] {
        assert!(decoded(&cut(at), u64::MAX).is_err(), "cut at {at}");
        assert!(matches!(decoded(&PORTRAIT[..at], u64::MAX), Err(Fault::Cut)));
        let mut zeroed = PORTRAIT.to_vec();
        zeroed[at..(at + 512).min(end)].fill(0);
        assert!(decoded(&zeroed, u64::MAX).is_err(), "zeroed at {at}");
    }
    for at in [scan + length / 10, scan + length / 2] {
        let lost = [&PORTRAIT[..at], &PORTRAIT[at + 2000..]].concat();
        assert!(decoded(&lost, u64::MAX).is_err(), "lost at {at}");
    }
    // More lines declared than coded.
    let mut bytes = PORTRAIT.to_vec();
    let frame = PORTRAIT.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a header");
    bytes[frame + 5..frame + 7].copy_from_slice(&600u16.to_be_bytes());
    assert!(decoded(&bytes, u64::MAX).is_err());
}

#[test]
fn unusual_files_are_checked_and_left_to_the_general_decoder() {
    let cmyk = include_bytes!("../../../../tests/data/cmyk.jpg");
    assert_eq!(decoded(cmyk, u64::MAX), Ok(None));
    let scan = cmyk.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    let cut = [&cmyk[..(scan + cmyk.len()) / 2], END].concat();
    assert!(matches!(decoded(&cut, u64::MAX), Err(Fault::Damaged(_))));
    assert_eq!(decoded(PORTRAIT, 1000), Ok(None), "more memory than there is");
    let half = [&PORTRAIT[..PORTRAIT.len() / 2], END].concat();
    assert!(matches!(decoded(&half, 1000), Err(Fault::Damaged(_))));
}

#[test]
fn other_kinds_are_named() {
    for (marker, bits, name) in [
        (0xc1, 12, "12-bit"),
        (0xc3, 8, "lossless"),
        (0xc5, 8, "hierarchical"),
        (0xc9, 8, "arithmetic"),
        (0xf7, 8, "JPEG-LS"),
    ] {
        let header = [0xff, 0xd8, 0xff, marker, 0, 11, bits, 0, 8, 0, 8, 1, 1, 0x11, 0];
        let found = decoded(&[&header[..], END].concat(), u64::MAX);
        assert!(matches!(found, Err(Fault::Kind(kind)) if kind.contains(name)), "{name}");
    }
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic(
        at in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = small();
        for (at, byte) in at {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // A false header costs no more memory than the limit.
        let _ = Outline::read(&bytes).map(|outline| decode(&bytes, &outline, 1 << 22));
        let bytes = &bytes[..cut.index(bytes.len())];
        let _ = Outline::read(bytes).map(|outline| decode(bytes, &outline, 1 << 22));
    }
}
