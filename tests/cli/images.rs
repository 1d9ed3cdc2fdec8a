//! Commands that read pictures or take them.

use super::{ASTRONAUT, at, fails, json_lines, output, stdout, succeeds, video};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use image::{DynamicImage, ImageFormat, RgbImage};
use std::io::Cursor;
use std::path::Path;
use tempfile::TempDir;

/// The portrait as a JPEG turned on its side, with an EXIF tag for its orientation.
fn on_its_side() -> Vec<u8> {
    let upright = image::open(ASTRONAUT).expect("a portrait");
    let mut jpeg = Cursor::new(Vec::new());
    upright.rotate270().write_to(&mut jpeg, ImageFormat::Jpeg).expect("a JPEG");
    let jpeg = jpeg.into_inner();
    // One IFD with one entry: orientation, a short, 6 (turn clockwise).
    let mut exif =
        b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let mut tagged = jpeg[..2].to_vec();
    tagged.extend([0xff, 0xe1]);
    tagged.extend((exif.len() as u16 + 2).to_be_bytes());
    tagged.append(&mut exif);
    tagged.extend(&jpeg[2..]);
    tagged
}

/// A PNG whose header claims 12000x9000 pixels that are not there.
fn enormous() -> Vec<u8> {
    let mut png = picture::encode_png(&Frame::filled(1, 1, [0; 3])).expect("a PNG");
    png[16..20].copy_from_slice(&12000u32.to_be_bytes());
    png[20..24].copy_from_slice(&9000u32.to_be_bytes());
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

#[test]
fn odd_pictures_are_read_and_bad_ones_cost_only_themselves() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    };
    let png = |picture: DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).expect("a PNG");
        bytes.into_inner()
    };
    let portrait = image::open(ASTRONAUT).expect("a portrait");
    let jpeg = std::fs::read(ASTRONAUT).expect("a portrait");
    write("alpha.png", &png(DynamicImage::ImageRgba8(portrait.to_rgba8())));
    write("cmyk.jpg", include_bytes!("../data/cmyk.jpg"));
    write("cut.jpg", &jpeg[..60]);
    write("half.jpg", &jpeg[..jpeg.len() / 2]);
    write("deep.png", &png(DynamicImage::ImageRgb16(portrait.to_rgb16())));
    write("enormous.png", &enormous());
    write("grey.png", &png(DynamicImage::ImageLuma8(portrait.to_luma8())));
    write("one.png", &png(DynamicImage::ImageRgb8(RgbImage::new(1, 1))));
    write("side.jpg", &on_its_side());
    write("text.jpg", b"this is no picture");
    write("zero.png", b"");
    let run = output(&["detect", "--json", folder.path().to_str().expect("a plain path")]);
    assert_eq!(run.status.code(), Some(1), "some cannot be read");
    let lines = json_lines(&stdout(&run));
    assert_eq!(lines.len(), 11);
    let of = |name: &str| {
        lines
            .iter()
            .find(|line| line["image"].as_str().is_some_and(|image| image.ends_with(name)))
            .unwrap_or_else(|| panic!("no line for {name}"))
    };
    for (name, faces) in [
        ("alpha.png", 1),
        ("cmyk.jpg", 0),
        ("deep.png", 1),
        ("grey.png", 1),
        ("one.png", 0),
        ("side.jpg", 1),
    ] {
        assert_eq!(of(name)["faces"].as_array().map(Vec::len), Some(faces), "{}", of(name));
    }
    assert_eq!((&of("side.jpg")["width"], &of("side.jpg")["height"]), (&320.into(), &400.into()));
    let face = &of("side.jpg")["faces"][0];
    assert!(face["quality"].as_f64().expect("a number") > 0.5, "{face}");
    for (name, expected) in [
        ("cut.jpg", "truncated"),
        ("half.jpg", "truncated"),
        ("enormous.png", "12000x9000 is 108 megapixels"),
        ("text.jpg", "neither JPEG nor PNG"),
        ("zero.png", "neither JPEG nor PNG"),
    ] {
        let error = of(name)["error"].as_str().expect("an error");
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}

#[test]
fn folders_without_pictures_are_named() {
    let folder = TempDir::new().expect("a folder");
    let empty = folder.path().to_str().expect("a plain path");
    let message = fails(&["detect", empty]);
    assert!(message.contains("no picture in this folder (0 other files)"), "{message}");
    std::fs::write(folder.path().join("notes.txt"), "x").expect("written");
    let message = fails(&["detect", empty, "no-such-file.jpg"]);
    assert!(
        message.contains("(1 other files)") && message.contains("no-such-file.jpg"),
        "{message}"
    );
}

#[test]
fn a_shot_is_written_and_measured() {
    let folder = TempDir::new().expect("a folder");
    let file = at(folder.path(), "near.y4m");
    std::fs::write(&file, video(ASTRONAUT, 1)).expect("written");
    let out = at(folder.path(), "shot.png");
    for camera in [format!("pipe:cat {file}"), format!("images:{ASTRONAUT}")] {
        let said =
            succeeds(&["camera", "shot", &out, "--camera", &camera, "--frames", "1", "--json"]);
        let line = &json_lines(&said)[0];
        let taken = picture::read(Path::new(&out)).expect("a picture");
        assert_eq!(
            (line["width"].as_u64(), line["height"].as_u64()),
            (Some(taken.width() as u64), Some(taken.height() as u64))
        );
        assert_eq!(line["faces"].as_array().expect("faces").len(), 1, "{line}");
        assert!(line["brightness"].as_f64().is_some_and(|light| (20.0..235.0).contains(&light)));
        assert!(line["sharpness"].as_f64().is_some_and(|sharp| sharp > 0.0));
    }
    for (out, camera, expected) in [
        ("shot.gif", "pipe:true", "must end in .jpg"),
        (&*out, "pipe:echo hello", "not a YUV4MPEG2 stream"),
        (&*out, "images:/no/such/folder", "/no/such/folder"),
        (&*out, "v4l:video0", "names no device"),
        (&*out, "v4l:/dev/no-such-video", "no-such-video"),
    ] {
        let message = fails(&["camera", "shot", out, "--camera", camera]);
        assert!(message.contains(expected), "{message}");
    }
}
