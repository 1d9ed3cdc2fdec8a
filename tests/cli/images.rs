//! Commands that read pictures or take them.

use super::{
    ADMIRAL, ASTRONAUT, at, enrolled, fails, json_lines, output, stderr, stdout, succeeds, video,
};
use facelatch::vision::draw::{FOUND, KNOWN, UNKNOWN};
use facelatch::vision::frame::Frame;
use facelatch::vision::picture;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::Value;
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
        ("zero.png", "an empty file; copy it again"),
    ] {
        let error = of(name)["error"].as_str().expect("an error");
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}

/// What a card or a cable damages ends in an end mark all the same.
#[test]
fn a_photo_of_which_a_part_is_missing_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let photo = std::fs::read(ASTRONAUT).expect("a portrait");
    let scan = photo.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    let middle = (scan + photo.len()) / 2;
    let mut zeroed = photo.clone();
    zeroed[middle..middle + 512].fill(0);
    for (name, bytes) in [
        ("cut.jpg", [&photo[..middle], &[0xff, 0xd9]].concat()),
        ("lost.jpg", [&photo[..middle], &photo[middle + 2000..]].concat()),
        ("zeroed.jpg", zeroed),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let path = path.to_str().expect("a plain path");
        let gallery = folder.path().join("gallery.redb");
        for command in [
            &["detect", path][..],
            &["enroll", "Ada", "--image", path, "--gallery", gallery.to_str().expect("a path")],
        ] {
            let said = fails(command);
            assert!(said.contains(name) && said.contains("damaged"), "{command:?}: {said}");
        }
    }
}

#[test]
fn other_kinds_of_files_are_named_with_the_way_out() {
    let folder = TempDir::new().expect("a folder");
    for (name, bytes, expected) in [
        ("anim.jpg", &b"GIF89a"[..], "a GIF, neither JPEG nor PNG; convert it"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (
            "page.png",
            b"<!DOCTYPE html><html>",
            "a web page, neither JPEG nor PNG; a download failed",
        ),
        ("lfs.jpg", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("film.jpg", b"\0\0\0\x14ftypisom\0\0\0\0isom", "ffmpeg -i"),
        (
            "lossless.jpg",
            b"\xff\xd8\xff\xc3\0\x0b\x08\0\x08\0\x08\x01\x01\x11\0",
            "a lossless JPEG",
        ),
        ("ios.png", b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI\x50\0\x20\x02\x2b\xd5\xb3\x7f", "iOS"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let said = fails(&["detect", path.to_str().expect("a plain path")]);
        assert!(said.contains(expected) && said.contains(name), "{name}: {said}");
        assert!(!said.contains("damaged"), "{said}");
    }
}

/// A FIFO nobody writes to would be waited for without end.
#[test]
fn a_fifo_is_refused_without_waiting() {
    let folder = TempDir::new().expect("a folder");
    let fifo = folder.path().join("manifest.toml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).expect("a FIFO");
    let (fifo, folder) = (fifo.to_str().expect("a path"), folder.path().to_str().expect("a path"));
    let store = format!("{folder}/store");
    let gallery = format!("{folder}/gallery.redb");
    for command in [
        &["detect", fifo][..],
        &["enroll", "Ada", "--image", fifo, "--gallery", &gallery],
        &["embed", ASTRONAUT, "--models", folder],
        &["models", "verify", "--models", folder],
        &["models", "install", fifo, "--store", &store],
        &["models", "install", folder, "--store", &store],
        &["people", "import", fifo, "--gallery", &gallery],
        &["config", "check", "--config", fifo],
    ] {
        let said = fails(command);
        let named = ["regular file", "a FIFO"].iter().any(|words| said.contains(words));
        assert!(named, "{command:?}: {said}");
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
    let camera = format!("images:{ASTRONAUT}");
    let said = succeeds(&["camera", "shot", &out, "--camera", &camera, "--faces", "--json"]);
    let read = |path: &str| picture::read(Path::new(path)).expect("a picture");
    assert_drawn(&read(ASTRONAUT), &read(&out), &json_lines(&said)[0]["faces"][0], FOUND);
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

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Asserts that the drawn picture is the source with a box of `colour` along the box of
/// `face`, dots inside it, and a label outside it, of the same colour with black or white
/// letters.
#[track_caller]
fn assert_drawn(source: &Frame, drawn: &Frame, face: &Value, colour: [u8; 3]) {
    assert_eq!((drawn.width(), drawn.height()), (source.width(), source.height()));
    let side = |at: usize| face["box"][at].as_f64().expect("a number");
    let (left, top) = (side(0).floor() as isize, side(1).floor() as isize);
    let (right, bottom) = (side(2).ceil() as isize, side(3).ceil() as isize);
    for (x, y) in [(left, top), (right - 1, top), (left, bottom - 1), (right - 1, bottom - 1)] {
        assert_eq!(drawn.pixel(x, y), colour, "corner {x},{y}");
    }
    let mut inside = 0;
    let mut label: Vec<(isize, isize)> = Vec::new();
    for y in 0..source.height() as isize {
        for x in 0..source.width() as isize {
            let new = drawn.pixel(x, y);
            if new == source.pixel(x, y) {
                continue;
            }
            if (left..right).contains(&x) && (top..bottom).contains(&y) {
                inside += 1;
            } else {
                assert!([colour, [16; 3], [255; 3]].contains(&new), "{new:?} at {x},{y}");
                label.push((x, y));
            }
        }
    }
    let area = (right - left) * (bottom - top);
    assert!(inside > 0 && inside < area / 3, "{inside} of {area} pixels of the face");
    let rows = |(_, y): &(isize, isize)| (top - 60..top).contains(y);
    assert!(!label.is_empty() && label.iter().all(rows), "the label stands above the box");
}

#[test]
fn detected_faces_are_drawn_on_copies() {
    let folder = TempDir::new().expect("a folder");
    let drawn = folder.path().join("new/drawn");
    let save = drawn.to_str().expect("a plain path");
    let plain = succeeds(&["detect", "--json", ASTRONAUT]);
    let said = succeeds(&["detect", "--json", "--save", save, ASTRONAUT]);
    assert_eq!(said, plain, "the output stays the same");
    let read = |path: &Path| picture::read(path).expect("a picture");
    let source = read(Path::new(ASTRONAUT));
    let copy = drawn.join("astronaut.png");
    assert_drawn(&source, &read(&copy), &json_lines(&said)[0]["faces"][0], FOUND);
    // Pictures are written once, also beside their sources.
    let input = drawn.join("input.png");
    std::fs::write(&input, picture::encode_png(&source).expect("a PNG")).expect("written");
    let before = std::fs::read(&input).expect("a file");
    let input = input.to_str().expect("a plain path");
    let said = succeeds(&["detect", "--save", save, input, input, ASTRONAUT]);
    assert!(said.ends_with(&format!("3 pictures saved in {save}\n")), "{said}");
    let expected = ["astronaut-2.png", "astronaut.png", "input-2.png", "input-3.png", "input.png"];
    assert_eq!(names(&drawn), expected);
    assert_eq!(std::fs::read(input).expect("a file"), before);
    assert_eq!(read(&drawn.join("input-3.png")), read(&copy));
}

#[test]
fn identified_people_are_drawn_green_and_others_red() {
    let folder = TempDir::new().expect("a folder");
    let gallery = enrolled(&folder);
    let drawn = folder.path().join("drawn");
    let arguments = ["identify", "--json", ASTRONAUT, ADMIRAL, "--gallery", &gallery];
    let plain = succeeds(&arguments);
    let save = ["--save", drawn.to_str().expect("a plain path")];
    let said = succeeds(&[&arguments[..], &save].concat());
    assert_eq!(said, plain, "the output stays the same");
    assert_eq!(names(&drawn), ["astronaut.png", "grace_hopper.png"]);
    let lines = json_lines(&said);
    for (line, source, name, colour) in [
        (&lines[0], ASTRONAUT, "astronaut.png", KNOWN),
        (&lines[1], ADMIRAL, "grace_hopper.png", UNKNOWN),
    ] {
        let read = |path: &Path| picture::read(path).expect("a picture");
        let face = &line["faces"][0];
        assert_drawn(&read(Path::new(source)), &read(&drawn.join(name)), face, colour);
    }
}

#[test]
fn pictures_that_cannot_be_read_or_saved_cost_only_themselves() {
    let folder = TempDir::new().expect("a folder");
    let cut = at(folder.path(), "cut.jpg");
    std::fs::write(&cut, &std::fs::read(ASTRONAUT).expect("a portrait")[..60]).expect("written");
    // With ".png" and a number, this name is longer than file systems allow.
    let long = at(folder.path(), &format!("{}.jpg", "x".repeat(251)));
    std::fs::copy(ASTRONAUT, &long).expect("copied");
    let drawn = folder.path().join("drawn");
    let save = drawn.to_str().expect("a plain path");
    let run = output(&["detect", "--json", "--save", save, &long, &long, &cut, ADMIRAL]);
    assert_eq!(run.status.code(), Some(1));
    let lines = json_lines(&stdout(&run));
    assert_eq!(lines.len(), 4);
    assert!(lines[2]["error"].is_string() && lines[3]["faces"].is_array());
    let expected = ["grace_hopper.png".to_owned(), format!("{}.png", "x".repeat(251))];
    assert_eq!(names(&drawn), expected);
    let message = stderr(&run);
    assert!(message.contains("cannot write the drawn picture"), "{message}");
    assert!(message.contains("drawn: 1 picture could not be saved"), "{message}");
    // A folder that cannot be created ends the command at once.
    let message = fails(&["detect", "--save", &at(Path::new(&cut), "drawn"), ASTRONAUT]);
    assert!(message.contains("cannot create this folder"), "{message}");
}
