//! What is fuzzed: how to make inputs, and what reads them.

use crate::mutate::{Chance, modbus_sum, mutated, png_sums, tar_sums};
use crate::{proto, records};
use facelatch::config::{Config, EXAMPLE};
use facelatch::crypto::{PublicKey, SIGNATURE, Sealer, Secret, Signer};
use facelatch::hardware::camera::{FrameLimit, Kind, mjpeg, y4m::Y4m};
use facelatch::hardware::gpio::Line;
use facelatch::models::{MANIFEST, Manifest, Models, sha256_hex};
use facelatch::nn::{Batch, Dim, Network, Normalization, Precision, Signature};
use facelatch::service::control::{MAX_REQUEST, Request};
use facelatch::storage::door_state::{DoorStateFile, Moment};
use facelatch::storage::gallery::{Export, Opening, Purpose, Store};
use facelatch::storage::last_relay::LastRelayFile;
use facelatch::storage::models::self_test::SelfTest;
use facelatch::storage::models::{InstallOptions, ModelStore, Source};
use facelatch::vision::picture;
use image::{DynamicImage, ImageFormat};
use std::fmt::Display;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Makes an input from one and a piece of another.
type Mutate = fn(&mut Chance, Vec<u8>, &[u8]) -> Vec<u8>;

pub struct Target {
    pub name: &'static str,
    /// Executions of an ordinary test.
    pub quick: u64,
    /// A long run divides its number of executions by this.
    pub slowness: u64,
    /// Most memory that one input may take, bytes.
    pub memory: u64,
    /// Longest input, bytes.
    pub longest: usize,
    pub seeds: fn() -> Vec<Vec<u8>>,
    pub mutate: Mutate,
    /// What became of the input, in words; their number leads to new inputs.
    pub run: fn(&[u8]) -> String,
}

pub fn shown<T, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "good".to_owned())
}

fn texts(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// A folder in memory where there is one, removed at the end.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a folder")
}

/// What most targets have.
pub const FAST: Target = Target {
    name: "",
    quick: 20_000,
    slowness: 1,
    memory: 4 << 20,
    longest: 1 << 16,
    seeds: Vec::new,
    mutate: |chance, one, other| mutated(chance, one, other, &[]),
    run: |_| String::new(),
};

pub fn targets() -> Vec<Target> {
    vec![
        Target { name: "y4m", seeds: y4m_seeds, mutate: y4m_mutate, run: y4m, ..FAST },
        Target {
            name: "motion jpeg",
            quick: 4000,
            memory: 16 << 20,
            seeds: || jpegs(40, 24),
            mutate: |chance, one, other| mutated(chance, one, other, JPEG),
            run: |input| shown(mjpeg::decode(input, (40, 24))),
            ..FAST
        },
        Target {
            name: "jpeg",
            quick: 1000,
            slowness: 10,
            // 100 megapixels, with what its decoder needs.
            memory: 1200 << 20,
            seeds: || {
                let mut seeds = jpegs(17, 31);
                seeds.push(include_bytes!("../data/cmyk.jpg").to_vec());
                seeds
            },
            mutate: |chance, one, other| mutated(chance, one, other, JPEG),
            run: |input| shown(picture::decode(Path::new("x.jpg"), input)),
            ..FAST
        },
        Target {
            name: "png",
            quick: 4000,
            slowness: 4,
            memory: 1200 << 20,
            seeds: pngs,
            mutate: |chance, one, other| {
                let mut input = mutated(chance, one, other, PNG);
                if !chance.one_in(4) {
                    png_sums(&mut input);
                }
                input
            },
            run: |input| shown(picture::decode(Path::new("x.png"), input)),
            ..FAST
        },
        #[cfg(feature = "serial")]
        Target {
            name: "modbus",
            quick: 50_000,
            longest: 256,
            memory: 1 << 16,
            seeds: || vec![read_answer(1, true), read_answer(0, false), vec![0xff, 0, 1, 1, 1]],
            mutate: |chance, one, other| {
                let mut input = mutated(chance, one, other, &[&[1, 1, 1], &[1, 0x81], &[1, 5, 0]]);
                if chance.one_in(2) {
                    let from = chance.index(input.len());
                    let sum = modbus_sum(&input[from..]);
                    input.extend(sum);
                }
                input
            },
            run: modbus,
            ..FAST
        },
        Target {
            name: "control socket",
            quick: 50_000,
            longest: 4 * MAX_REQUEST,
            memory: 1 << 18,
            seeds: requests,
            mutate: |chance, one, other| mutated(chance, one, other, JSON),
            run: |input| shown(Request::parse(input)),
            ..FAST
        },
        Target {
            name: "configuration",
            quick: 3000,
            slowness: 4,
            seeds: || texts(&["", EXAMPLE, &Config::default().to_toml().expect("TOML")]),
            mutate: |chance, one, other| mutated(chance, one, other, TOML),
            run: |input| {
                let text = String::from_utf8_lossy(input);
                let config = Config::parse(Path::new("c.toml"), &text);
                if let Ok(config) = &config {
                    let _ = (config.access(), config.detector(), config.liveness(), config.zone());
                }
                shown(config)
            },
            ..FAST
        },
        Target {
            name: "device addresses",
            seeds: addresses,
            mutate: |chance, one, other| mutated(chance, one, other, ADDRESS),
            run: |input| {
                let text = String::from_utf8_lossy(input);
                format!("{} {}", shown(Kind::of(&text)), shown(text.parse::<Line>()))
            },
            ..FAST
        },
        Target {
            name: "manifest",
            quick: 4000,
            slowness: 2,
            seeds: || texts(&[include_str!("../../models/manifest.toml"), SELF_TESTED]),
            mutate: |chance, one, other| mutated(chance, one, other, TOML),
            run: |input| shown(Manifest::parse(Path::new(MANIFEST), input)),
            ..FAST
        },
        Target {
            name: "self-test",
            seeds: || texts(&[SELF_TEST]),
            mutate: |chance, one, other| mutated(chance, one, other, JSON),
            run: self_test,
            ..FAST
        },
        Target {
            name: "model bundle",
            quick: 600,
            slowness: 20,
            memory: 64 << 20,
            longest: 1 << 17,
            seeds: || vec![bundle(&["manifest.toml", "pnet.onnx"]), bundle(&["./manifest.toml"])],
            mutate: |chance, one, other| {
                let mut input = mutated(chance, one, other, &[b"ustar", b"../", b"/", b"0000777"]);
                tar_sums(&mut input);
                input
            },
            run: install,
        },
        Target {
            name: "onnx",
            quick: 60,
            slowness: 200,
            memory: 256 << 20,
            seeds: || vec![include_bytes!("../../models/pnet.onnx").to_vec()],
            mutate: |chance, mut one, _| {
                for _ in 0..1 + chance.below(3) {
                    one = proto::changed(chance, one, ONNX);
                }
                one
            },
            run: network,
            ..FAST
        },
        Target {
            name: "gallery file",
            quick: 150,
            slowness: 100,
            memory: 64 << 20,
            longest: 1 << 20,
            seeds: || vec![include_bytes!("../data/gallery-with-crops-of-112.redb").to_vec()],
            mutate: |chance, one, other| mutated(chance, one, other, &[b"people", b"templates"]),
            run: |input| records::opened(|path| std::fs::write(path, input).expect("written")),
        },
        Target {
            name: "gallery records",
            quick: 150,
            slowness: 100,
            memory: 64 << 20,
            seeds: records::seeds,
            mutate: |chance, one, other| mutated(chance, one, other, &[b"staff", &[0xff, 0x0f]]),
            run: |input| records::opened(|path| records::write(path, input)),
            ..FAST
        },
        Target {
            name: "state files",
            quick: 4000,
            slowness: 10,
            seeds: || texts(&[STATE, RELAY, POINTER]),
            mutate: |chance, one, other| mutated(chance, one, other, JSON),
            run: state_files,
            ..FAST
        },
        Target {
            name: "keys and seals",
            quick: 4000,
            seeds: || {
                let signer = Signer::new(&Secret::new([1; 32]));
                let sealed = sealer().seal(b"place", b"content").expect("random numbers");
                vec![signer.public().to_string().into(), signer.sign("head", b"x").into(), sealed]
            },
            mutate: |chance, one, other| mutated(chance, one, other, &[b"ssh-ed25519 "]),
            run: keys,
            ..FAST
        },
    ]
}

const JPEG: &[&[u8]] = &[
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xc0",
    b"\xff\xc2",
    b"\xff\xc4",
    b"\xff\xda",
    b"\xff\xdb",
    b"\xff\xdd",
    b"\xff\xd0",
    b"\xff\xd7",
    b"\xff\xe1",
    b"\xff\xee",
    b"\xff\x00",
    b"Exif\0\0",
    b"\xff\xfe",
    b"Adobe",
];
const PNG: &[&[u8]] = &[
    b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"zTXt", b"CgBI", b"acTL",
    b"MM\0*", b"II*\0",
];
pub const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"1e999",
    b"-1",
    b"\\u0000",
    b"\\ud800",
    b"\"do\"",
    b"\"who\"",
    b"\"way\"",
    b"\"ago_ms\"",
    b"\"site-join\"",
    b"\"code\"",
    b"\"in\"",
    b"18446744073709551616",
];
const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"=",
    b"\n",
    b"\"",
    b"'''",
    b"{",
    b"}",
    b",",
    b"true",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"\"10s\"",
    b"\"-1s\"",
    b"\"1e9h\"",
    b"#",
    b"..",
    b"\"08:00-18:00\"",
    b"\"Europe/Paris\"",
    b"1979-05-27T07:32:00Z",
];
const ADDRESS: &[&[u8]] = &[
    b"v4l:",
    b"pipe:",
    b"images:",
    b"nokhwa:",
    b"gpio:",
    b"serial:",
    b"log:",
    b"?",
    b"&",
    b"=",
    b"/dev/",
    b"name=",
    b"usb=",
    b"fps=",
    b"loop",
    b"active=low",
    b"bias=",
    b"%00",
    b"..",
    b"gpiochip",
];
const ONNX: &[&[u8]] = &[
    b"Conv",
    b"Gemm",
    b"QuantizeLinear",
    b"DequantizeLinear",
    b"PRelu",
    b"Reshape",
    b"Loop",
    b"If",
    b"Shape",
    b"axis",
    b"pads",
    b"strides",
];

fn y4m_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    for (colours, bytes) in [
        ("", 24),
        ("C420jpeg", 24),
        ("C422", 32),
        ("C444", 48),
        ("Cmono", 16),
        ("C411", 24),
        ("C420p10", 48),
        ("C444alpha", 64),
    ] {
        let mut stream = format!("YUV4MPEG2 W4 H4 F25:1 Ip A1:1 {colours} XCOLORRANGE=FULL\n");
        stream.push_str("FRAME\n");
        let mut stream = stream.into_bytes();
        stream.extend((0..bytes).map(|at| at as u8 * 5));
        stream.extend(b"FRAME Ip\n");
        stream.extend((0..bytes).map(|at| at as u8 * 3));
        seeds.push(stream);
    }
    seeds
}

fn y4m_mutate(chance: &mut Chance, one: Vec<u8>, other: &[u8]) -> Vec<u8> {
    let words: &[&[u8]] =
        &[b"FRAME\n", b"YUV4MPEG2 ", b" W", b" H", b" C420", b" It", b"\n", b"XCOLORRANGE=FULL"];
    mutated(chance, one, other, words)
}

fn y4m(input: &[u8]) -> String {
    match Y4m::within(Cursor::new(input), FrameLimit::megapixels(0.1)) {
        Ok(mut stream) => {
            for number in 0..4 {
                match stream.read_frame() {
                    Ok(Some(_)) => {}
                    Ok(None) => return format!("ended, {}", number > 0),
                    Err(error) => return error.to_string(),
                }
            }
            "four frames".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn pixels(width: u32, height: u32) -> DynamicImage {
    DynamicImage::from(image::RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8])
    }))
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture.write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

fn jpegs(width: u32, height: u32) -> Vec<Vec<u8>> {
    let colour = pixels(width, height);
    let grey = DynamicImage::from(colour.to_luma8());
    vec![encoded(&colour, ImageFormat::Jpeg), encoded(&grey, ImageFormat::Jpeg)]
}

fn pngs() -> Vec<Vec<u8>> {
    let colour = pixels(9, 7);
    let kinds = [
        DynamicImage::from(colour.to_luma8()),
        DynamicImage::from(colour.to_luma_alpha8()),
        DynamicImage::from(colour.to_rgba16()),
        colour,
    ];
    kinds.iter().map(|picture| encoded(picture, ImageFormat::Png)).collect()
}

#[cfg(feature = "serial")]
fn read_answer(coil: u8, echo: bool) -> Vec<u8> {
    let sealed = |frame: &[u8]| [frame, &modbus_sum(frame)].concat();
    let mut bytes = if echo { sealed(&[1, 1, 0, 0, 0, 1]) } else { vec![] };
    bytes.extend(sealed(&[1, 1, 1, coil]));
    bytes
}

#[cfg(feature = "serial")]
fn modbus(input: &[u8]) -> String {
    use facelatch::hardware::relay::coil_of;
    let state = coil_of(1, 0, input);
    if let Ok(on) = state {
        // Only bytes that somebody sealed are an answer. With an echo it is what follows.
        let sealed = |frame: &[u8]| modbus_sum(&frame[..4]) == frame[4..6];
        let says = |frame: &[u8]| {
            frame.starts_with(&[1, 1, 1]) && sealed(frame) && Some(frame[3] & 1 == 1) == on
        };
        assert!(input.windows(6).any(says), "{on:?} from {input:02x?}");
    }
    state.map_or_else(|fault| fault.to_string(), |on| format!("{on:?}"))
}

fn requests() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"do":"status"}"#,
        r#"{"do":"lockdown"}"#,
        r#"{"do":"always-open"}"#,
        r#"{"do":"site-join","code":"0123456789abcdefghjk"}"#,
        r#"{"do":"open","who":null}"#,
        "[]",
        "",
    ])
}

fn addresses() -> Vec<Vec<u8>> {
    texts(&[
        "v4l:/dev/video0?size=640x480&fps=15",
        "v4l:usb=1-1.2",
        "v4l:name=HD Pro",
        "pipe:'rpicam-vid -t 0'",
        "images:frames/*.jpg?fps=10&loop",
        "nokhwa:0",
        "gpio:GPIO17?active=low&bias=pull-up",
        "gpio:/dev/gpiochip0/17",
    ])
}

/// A manifest with a self-test; the digests are of other files.
const SELF_TESTED: &str = include_str!("corpus/manifest-with-self-test.toml");

const SELF_TEST: &str = include_str!("corpus/self-test.json");

fn self_test(input: &[u8]) -> String {
    thread_local! {
        static PARSED: Manifest =
            Manifest::parse(Path::new(MANIFEST), SELF_TESTED.as_bytes()).expect("a manifest");
    }
    let mut manifest = PARSED.with(Manifest::clone);
    if let Some(entry) = &mut manifest.selftest {
        entry.sha256 = sha256_hex(input);
    }
    shown(SelfTest::read(Path::new("set"), &manifest, &|_| Ok(input.to_vec())))
}

/// A tar with these files of the built-in set.
fn bundle(files: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for name in files {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name);
        let bytes = std::fs::read(source).expect("a file of the set");
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).expect("added");
    }
    tar.into_inner().expect("a tar")
}

fn install(input: &[u8]) -> String {
    let folder = folder();
    let place = folder.path().join("set");
    let store = ModelStore::new(&place);
    let mut tar = input;
    let source = Source::Tar("set.tar", &mut tar);
    let gallery = folder.path().join("gallery.redb");
    let options = InstallOptions {
        unsigned: true,
        downgrade: true,
        lower: true,
        ..InstallOptions::new(Precision::Int8, &gallery, 1e-4)
    };
    let done = store.install(source, &options, &mut |_| Ok(()));
    // Nothing is written beside the store.
    let written: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|e| e.expect("one").path())
        .collect();
    assert!(written.iter().all(|path| *path == place), "{written:?}");
    assert!(!place.join(".draft").exists(), "a draft was left");
    shown(done).replace(&folder.path().display().to_string(), "")
}

fn network(input: &[u8]) -> String {
    let signature = Signature {
        input: [Dim::Fixed(1), Dim::Fixed(3), Dim::Free('H'), Dim::Free('W')],
        outputs: vec![2, 4],
    };
    match Network::load("pnet.onnx", input, &signature, &Normalization::BYTES, None) {
        Ok(mut network) => {
            let mut batch = Batch::default();
            batch
                .add(16, 20)
                .iter_mut()
                .enumerate()
                .for_each(|(at, value)| *value = at as i16 % 99);
            shown(network.run(&batch))
        }
        Err(error) => error.to_string(),
    }
}

const STATE: &str = r#"{"format":1,"saved":{"boot":"a","since_boot_s":100,"trusted_unix":1795600000},"state":{"lockout":{"tries":2,"level":1,"left_s":30,"last_s":4},"passages":[{"person":7,"role":"in","ago_s":60}],"clock_floor":1795600000}}"#;
const RELAY: &str = r#"{"version":1,"relay":"log:","lock":"fail-secure","check":0}"#;
const POINTER: &str = "current = \"2026.11-int8+1f2e3d4c\"\nprevious = \"built-in\"\n";

fn state_files(input: &[u8]) -> String {
    let folder = folder();
    let state = DoorStateFile::beside(&folder.path().join("gallery.redb"));
    let relay = LastRelayFile::of(folder.path(), Path::new("/etc/facelatch.toml"));
    let pointer = folder.path().join("current.toml");
    for path in [state.path(), relay.path(), &pointer] {
        std::fs::write(path, input).expect("written");
    }
    let now = Moment { boot: "a".to_owned(), since_boot_s: 200, trusted_unix: None };
    let store = ModelStore::new(folder.path());
    let said =
        format!("{} {} {}", shown(state.read(&now)), shown(relay.read()), shown(store.pointer()));
    said.replace(&folder.path().display().to_string(), "")
}

fn sealer() -> Sealer {
    Sealer::new(&Secret::new([7; 32]))
}

fn keys(input: &[u8]) -> String {
    let key = String::from_utf8_lossy(input).parse::<PublicKey>();
    let opened = sealer().open(b"place", input);
    if let Ok(content) = &opened {
        assert_eq!(content.as_slice(), b"content", "forged");
    }
    let signature = input.first_chunk::<SIGNATURE>();
    let signer = Signer::new(&Secret::new([1; 32])).public();
    let verified = signature.map(|signature| signer.verify("head", b"x", signature));
    format!("{} {} {verified:?}", shown(key), opened.is_ok())
}

/// Opens a gallery file, imports it into a new gallery, and serves it.
pub fn used(path: &Path, folder: &Path) -> String {
    let into = |error: &dyn Display| error.to_string().replace(&folder.display().to_string(), "");
    let imported = Export::open(path, None).map(|export| {
        let mut store = Store::open(&folder.join("other/gallery.redb")).expect("a new gallery");
        store.import(&export, false)
    });
    let imported = match &imported {
        Ok(Ok(done)) => format!("{} added {}", done.added > 0, done.refused.join(" ")),
        Ok(Err(error)) => into(error),
        Err(error) => into(error),
    };
    let models = Models::built_in().and_then(|models| models.recognizer_id()).expect("a model");
    let served = match Store::open_as(path, Opening::to(Purpose::Serve)) {
        Ok(store) => shown(store.load(&models, 256)),
        Err(error) => error.kind().to_owned(),
    };
    format!("{imported}; {served}")
}
