//! What sealing costs, measured.

use super::fault_tests::Site;
use super::tests::model;
use super::*;
use crate::storage::keys::DoorKeys;
use crate::vision::embed::Embedding;
use crate::vision::frame::Frame;

/// What sealing costs with a thousand people of five templates and pictures each. Run with
/// `cargo test --release --lib cost_tests -- --ignored --nocapture`.
#[test]
#[ignore = "takes a minute and prints times"]
#[allow(clippy::print_stderr)]
fn cost() {
    const PEOPLE_ENROLLED: u64 = 1000;
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut template = |picture: Option<FacePicture>| {
        let values: Vec<f32> = std::iter::repeat_with(&mut noise).take(256).collect();
        let template = Template::new(model(), Embedding::normalized(&values));
        NewTemplate { template, picture }
    };
    // As large as the picture of a face: some 30 kB.
    let pixels = (0..112usize * 112 * 3).map(|i| ((i * i) % 251) as u8 / 2).collect();
    let frame = Frame::new(112, 112, pixels).expect("112 x 112");
    let picture = FacePicture::from_arcface_crop(frame).expect("112 x 112");
    // Processor time: other work on the machine does not count.
    let used = || -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        let nanoseconds: f64 = text.split(' ').next().expect("a number").parse().expect("a number");
        nanoseconds / 1e6
    };
    let time = |what: &str, work: &mut dyn FnMut()| {
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let began = used();
                work();
                used() - began
            })
            .collect();
        times.sort_by(f64::total_cmp);
        eprintln!("{what}: {:.1} ms", times[2]);
    };
    let site = Site::new();
    let keys = DoorKeys::open(&site.path(), &site.place()).expect("the keys");
    let rotation = keys.rotation(keys.rotations()[0], 256).expect("a rotation");
    let values: Vec<f32> = (0..256).map(|at| at as f32).collect();
    let began = used();
    for _ in 0..10_000 {
        std::hint::black_box(rotation.rotate(std::hint::black_box(&values)));
    }
    eprintln!("rotate a probe: {:.2} us", (used() - began) * 1e3 / 1e4);
    time("open the keyring", &mut || {
        DoorKeys::open(&site.path(), &site.place()).expect("the keys");
    });
    for pictures in [false, true] {
        let site = Site::empty();
        let plain = site.at("plain.redb");
        let mut store = Store::open(&plain).expect("a new gallery");
        let kept = PictureRecord::new(&picture).expect("a PNG");
        let mut edits = Vec::new();
        for number in 1..=PEOPLE_ENROLLED {
            let person = PersonRecord {
                name: format!("staff-{number:04}"),
                enrolled_at: 1,
                traits: Traits::default(),
            };
            edits.push(put(PEOPLE, number, &person));
            for key in (0..5).map(|n| (number << 32) | n) {
                let template = template(None).template;
                let record = store.guard.template_record(&template, &model());
                edits.push(put(TEMPLATES, key, &record.expect("its model")));
                if pictures {
                    edits.push(put(CROPS, key, &kept));
                }
            }
        }
        edits.push(meta(NEXT_PERSON, PEOPLE_ENROLLED + 1));
        store.commit(edits).expect("written");
        drop(store);
        let export = Export::open(&plain, None).expect("plain");
        Store::restore(&site.path(), export, Some(&site.register)).expect("sealed");
        let size = |path: &Path| std::fs::metadata(path).expect("a file").len() >> 20;
        eprintln!("pictures {pictures}: {} MB, sealed {} MB", size(&plain), size(&site.path()));
        time("  open and load, plain", &mut || {
            let store = Store::open(&plain).expect("open");
            assert_eq!(store.load(&model(), 256).expect("loaded").gallery.templates(), 5000);
        });
        time("  open and load, sealed", &mut || {
            let store = site.open(Purpose::Serve).expect("open");
            assert_eq!(store.load(&model(), 256).expect("loaded").gallery.templates(), 5000);
        });
        time("  peek, plain", &mut || {
            peek(&plain, None, &model(), 256, |_| None).expect("read");
        });
        time("  peek, sealed", &mut || {
            peek(&site.path(), Some(&site.register), &model(), 256, |_| None).expect("read");
        });
        let five: Vec<_> = (0..5).map(|_| template(Some(picture.clone()))).collect();
        let mut store = Store::open(&plain).expect("open");
        time("  enroll five views, plain", &mut || {
            store.enroll_unnamed(&five, Traits::default(), None).expect("enrolled");
        });
        let mut store = site.open(Purpose::Change).expect("open");
        time("  enroll five views, sealed", &mut || {
            store.enroll_unnamed(&five, Traits::default(), None).expect("enrolled");
        });
        drop(store);
        time("  new keys", &mut || {
            Store::rotate(&site.path(), &site.register, false).expect("rotated");
        });
    }
}
