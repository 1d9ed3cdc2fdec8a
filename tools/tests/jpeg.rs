//! The device's JPEG decoder gives exactly the pixels of libjpeg.

use facelatch::vision::picture;
use mozjpeg::{ColorSpace, Compress, Decompress};
use proptest::prelude::*;
use std::path::Path;

/// How a JPEG file is encoded.
#[derive(Clone, Copy, Debug)]
struct Form {
    width: usize,
    height: usize,
    /// Pixels that share a colour sample, horizontally and vertically; `None` for grey.
    shared: Option<(u8, u8)>,
    scans: Scans,
    quality: u8,
}

/// Order of the scans.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scans {
    Sequential,
    /// One frequency band after another.
    Bands,
    /// The upper bits of each band first, as libjpeg does it.
    Bits,
}

/// Slowly changing colours with noise and a sharp edge.
fn pixels(form: Form, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as usize
    };
    let channels = if form.shared.is_some() { 3 } else { 1 };
    let mut pixels = Vec::new();
    for y in 0..form.height {
        for x in 0..form.width {
            let edge = if x > y { 120 } else { 0 };
            pixels.extend(
                (0..channels).map(|c| ((c * 70 + 5 * x + 3 * y + edge + next() / 4) % 256) as u8),
            );
        }
    }
    pixels
}

fn written(form: Form, pixels: &[u8]) -> Vec<u8> {
    let grey = form.shared.is_none();
    let space = if grey { ColorSpace::JCS_GRAYSCALE } else { ColorSpace::JCS_RGB };
    let mut compress = Compress::new(space);
    compress.set_size(form.width, form.height);
    if form.scans != Scans::Bands {
        compress.set_fastest_defaults();
    }
    compress.set_quality(f32::from(form.quality));
    if grey {
        compress.set_color_space(space);
    }
    if let Some(shared) = form.shared {
        compress.set_chroma_sampling_pixel_sizes(shared, shared);
    }
    if form.scans != Scans::Sequential {
        compress.set_progressive_mode();
    }
    let mut started = compress.start_compress(Vec::new()).expect("begun");
    started.write_scanlines(pixels).expect("written");
    started.finish().expect("ended")
}

fn by_libjpeg(jpeg: &[u8]) -> Vec<u8> {
    let mut picture = Decompress::new_mem(jpeg).expect("a header").rgb().expect("a picture");
    picture.read_scanlines::<[u8; 3]>().expect("pixels").into_flattened()
}

fn check(form: Form, seed: u32) -> Result<(), TestCaseError> {
    let jpeg = written(form, &pixels(form, seed));
    let frame = picture::decode(Path::new("made.jpg"), &jpeg).expect("a picture");
    prop_assert_eq!((frame.width(), frame.height()), (form.width, form.height));
    let expected = by_libjpeg(&jpeg);
    let differing = frame.pixels().iter().zip(&expected).filter(|(a, b)| a != b).count();
    prop_assert_eq!(differing, 0, "{:?}", form);
    Ok(())
}

const SHARED: [Option<(u8, u8)>; 5] =
    [None, Some((1, 1)), Some((2, 1)), Some((1, 2)), Some((2, 2))];

const SCANS: [Scans; 3] = [Scans::Sequential, Scans::Bands, Scans::Bits];

/// The encoder really produces the forms that the other tests rely on.
#[test]
fn the_forms_are_written_as_meant() {
    for scans in SCANS {
        let form = Form { width: 40, height: 30, shared: Some((2, 2)), scans, quality: 90 };
        let jpeg = written(form, &pixels(form, 1));
        let has = |wanted: &dyn Fn(&[u8]) -> bool| jpeg.windows(10).any(wanted);
        assert_eq!(has(&|w| w.starts_with(&[0xff, 0xc2])), scans != Scans::Sequential);
        // Start of a scan of one component. The upper half of its last byte is the number
        // of bits already sent.
        let refines = has(&|w| w.starts_with(&[0xff, 0xda, 0, 8, 1]) && w[9] >> 4 != 0);
        assert_eq!(refines, scans == Scans::Bits, "{scans:?}");
    }
}

/// Beginning and end of each scan with its data.
fn scans(jpeg: &[u8]) -> Vec<std::ops::Range<usize>> {
    let marker = |from: usize, wanted: &dyn Fn(u8) -> bool| {
        let rest = jpeg[from..].windows(2);
        let found = rest.enumerate().find(|(_, pair)| pair[0] == 0xff && wanted(pair[1]));
        found.map(|(at, _)| from + at)
    };
    let mut scans: Vec<std::ops::Range<usize>> = vec![];
    while let Some(start) = marker(scans.last().map_or(0, |scan| scan.end), &|m| m == 0xda) {
        let end = marker(start + 2, &|m| m != 0 && !(0xd0..=0xd7).contains(&m)).expect("an end");
        scans.push(start..end);
    }
    scans
}

/// Each scan of a progressive picture is needed: components, bands and single bits.
#[test]
fn a_picture_without_one_of_its_scans_is_refused() {
    for scans_of in [Scans::Bands, Scans::Bits] {
        let shared = Some((2, 2));
        let form = Form { width: 60, height: 50, shared, scans: scans_of, quality: 90 };
        let jpeg = written(form, &pixels(form, 7));
        let scans = scans(&jpeg);
        assert!(scans.len() > 3, "{scans:?}");
        for scan in &scans {
            let without = [&jpeg[..scan.start], &jpeg[scan.end..]].concat();
            let read = picture::decode(Path::new("made.jpg"), &without);
            assert!(read.is_err(), "{scans_of:?} without {scan:?} of {scans:?}");
        }
    }
}

/// Edges, where colours have no neighbours.
#[test]
fn small_sizes_are_equal() {
    for shared in SHARED {
        for scans in SCANS {
            for size in 0..36 {
                let (width, height) = (1 + size % 6, 1 + size / 6);
                let form = Form { width, height, shared, scans, quality: 90 };
                check(form, size as u32).expect("equal");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_form_is_equal(
        width in 1usize..90, height in 1usize..90, shared in prop::sample::select(&SHARED[..]),
        scans in prop::sample::select(&SCANS[..]), quality in 5u8..=100, seed in any::<u32>(),
    ) {
        check(Form { width, height, shared, scans, quality }, seed)?;
    }
}
