use super::*;
use crate::vision::embed::Embedding;
use crate::vision::frame::Frame;
use proptest::prelude::*;
use tempfile::TempDir;

pub(super) fn model() -> ModelId {
    ModelId::new("2026.11+abcd")
}

pub(super) fn signed(model: &ModelId, x: f32) -> Template {
    Template::new(model.clone(), Embedding::normalized(&[x, 1.0, 0.0, -x]))
}

pub(super) fn template(x: f32, kept: bool) -> NewTemplate {
    let pixels = (0..112 * 112 * 3).map(|i| (i % 251) as u8).collect();
    let frame = Frame::new(112, 112, pixels).expect("112 x 112");
    let picture = kept.then(|| FacePicture::from_arcface_crop(frame).expect("112 x 112"));
    NewTemplate { template: signed(&model(), x), picture }
}

pub(super) fn filled(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("gallery.redb");
    let mut store = Store::open(&path).expect("a new gallery");
    store.enroll("Ada", &[template(1.0, true), template(2.0, false)]).expect("enrolled");
    store.enroll("Grace", &[template(-1.0, true)]).expect("enrolled");
    path
}

pub(super) fn names(store: &Store) -> Vec<String> {
    store.people().expect("people").into_iter().map(|person| person.name).collect()
}

#[test]
fn people_stay_after_closing() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    assert_eq!(names(&store), ["Ada", "Grace"]);
    let ada = store.enroll(" Ada ", &[template(3.0, true)]).expect("enrolled");
    assert_eq!((ada.templates, ada.crops), (3, 2));
    store.rename("Grace", "Grace Hopper").expect("renamed");
    assert!(matches!(store.rename("Ada", "Grace Hopper"), Err(StoreError::Taken { .. })));
    store.remove("Ada").expect("removed");
    drop(store);
    let mut store = Store::open(&path).expect("the gallery");
    assert_eq!(names(&store), ["Grace Hopper"]);
    assert!(matches!(store.remove("Ada"), Err(StoreError::Unknown { .. })));
    let loaded = store.load(&model(), 4).expect("loaded");
    assert_eq!((loaded.gallery.people(), loaded.gallery.templates()), (1, 1));
    // Numbers are never reused.
    let ada = store.enroll("Ada", &[]).expect("enrolled");
    assert_eq!(ada.id, PersonId(3));
}

#[test]
fn traits_stay_with_their_person() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    store.set_administrator("Ada", true).expect("changed");
    store.set_group("Ada", "night").expect("changed");
    store.rename("Ada", "Countess").expect("renamed");
    let unknown = store.set_administrator("Ada", true);
    assert!(matches!(unknown, Err(StoreError::Unknown { .. })));
    drop(store);
    let store = Store::open(&path).expect("the gallery");
    let ada = store.find("Countess").expect("Ada");
    let traits = Traits { administrator: true, group: "night".to_owned(), ..Traits::default() };
    assert_eq!(ada.traits, traits);
    assert_eq!(store.find("Grace").expect("Grace").traits, Traits::default());
    let loaded = store.load(&model(), 4).expect("loaded").gallery;
    assert_eq!(loaded.traits(ada.id), Some(&traits));
}

#[test]
fn somebody_unnamed_is_added_in_one_change_with_their_look_alike() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    let [gallery, before] = store.revision().expect("a revision");
    let grace = store.find("Grace").expect("Grace").id;
    store.rename("Ada", "staff-0003").expect("renamed");
    let templates = [template(0.5, true), template(0.6, true)];
    let look_alike = Some((grace, 0.07));
    let boss = Traits { administrator: true, ..Traits::default() };
    let trainee = Traits { probation: true, ..Traits::default() };
    let new = store.enroll_unnamed(&templates, boss, look_alike).expect("enrolled");
    assert_eq!((new.name.as_str(), new.id, new.templates), ("staff-0003x", PersonId(3), 2));
    assert_eq!(store.revision().expect("a revision"), [gallery, before + 2]);
    let traits = Traits { administrator: true, stricter: 0.07, ..Traits::default() };
    assert_eq!(new.traits, traits);
    assert_eq!(store.find("Grace").expect("Grace").traits.stricter, 0.07);
    // A similar person removed in the meantime does no harm.
    store.remove("Grace").expect("removed");
    let next = store.enroll_unnamed(&templates, trainee, Some((grace, 0.2)));
    let next = next.expect("enrolled");
    assert_eq!((next.name.as_str(), next.traits.stricter), ("staff-0004", 0.2));
    assert!(next.traits.probation);
    store.rename("staff-0004", "Eve").expect("renamed");
    assert!(!store.find("Eve").expect("Eve").traits.probation);
}

#[test]
fn people_from_before_traits_are_read() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    // Format 1: a name and a time.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Old(String, u64);
    impl Content for Old {}
    store.commit(vec![put(PEOPLE, 2, &Old("Grace".to_owned(), 5))]).expect("written");
    drop(store);
    let mut store = Store::open(&path).expect("the gallery");
    let grace = store.find("Grace").expect("Grace");
    assert_eq!((grace.enrolled_at, &grace.traits), (5, &Traits::default()));
    store.set_administrator("Grace", true).expect("changed");
    assert!(store.find("Grace").expect("Grace").traits.administrator);
}

#[test]
fn a_name_that_cannot_be_shown_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let mut store = Store::open(&folder.path().join("g.redb")).expect("a new gallery");
    for name in ["", "  ", "a\nb", &"x".repeat(101)] {
        assert!(matches!(store.enroll(name, &[]), Err(StoreError::Name { .. })));
    }
    store.enroll("Łucja Ærø 王", &[]).expect("enrolled");
}

#[test]
fn a_new_name_that_looks_like_one_enrolled_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    store.enroll("Jose\u{301}", &[]).expect("enrolled");
    for (name, other) in [("ada", "Ada"), ("\u{410}da", "Ada"), ("JOSÉ", "José")] {
        for result in [store.enroll(name, &[]).map(drop), store.rename("Grace", name)] {
            let error = result.expect_err(name).to_string();
            assert!(error.contains(&format!("looks like {other:?}")), "{error}");
        }
    }
    assert_eq!(store.enroll("José", &[template(3.0, false)]).expect("José").templates, 1);
    assert_eq!(store.enroll("Jose\u{301}", &[template(4.0, false)]).expect("José").templates, 2);
    store.rename("Ada", "ADA").expect("one's own name may change its case");
    assert_eq!(names(&store), ["ADA", "Grace", "José"]);
}

#[test]
fn people_with_names_that_are_refused_today_stay_usable() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    let old = |name: &str| PersonRecord {
        name: name.to_owned(),
        enrolled_at: 0,
        traits: Traits::default(),
    };
    let edits = vec![
        put(PEOPLE, 7, &old("Ada\u{200b}")),
        put(PEOPLE, 8, &old("Jose\u{301}")),
        meta(NEXT_PERSON, 9),
    ];
    store.commit(edits).expect("written");
    assert_eq!(store.find("Ada").expect("Ada").id, PersonId(1));
    let hidden = store.enroll("Ada\u{200b}", &[template(3.0, false)]).expect("Ada");
    assert_eq!((hidden.id, hidden.templates), (PersonId(7), 1));
    assert_eq!(store.find("José").expect("José").id, PersonId(8));
    store.set_administrator("Ada\u{200b}", true).expect("changed");
    store.rename("Ada\u{200b}", "Lovelace").expect("renamed");
    store.remove("José").expect("removed");
    assert_eq!(names(&store), ["Ada", "Grace", "Lovelace"]);
}

#[test]
fn templates_of_another_model_are_left_out_until_made_anew() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let mut store = Store::open(&path).expect("the gallery");
    store.enroll("Hedy", &[template(3.0, false)]).expect("enrolled");
    let other = ModelId::new("other");
    let loaded = store.load(&other, 4).expect("loaded");
    assert_eq!((loaded.gallery.templates(), loaded.of_other_models), (0, 4));
    // Templates of a third model are not accepted as those of the wanted model.
    let third = signed(&ModelId::new("third"), 7.0);
    let done = store.re_embed(&other, |_| Some(third.clone())).expect("nothing done");
    assert_eq!((done.renewed, done.without_crop), (0, 4));
    let made = signed(&other, 7.0);
    let done = store.re_embed(&other, |_| Some(made.clone())).expect("re-embedded");
    let (lost, fewer) = (vec!["Hedy".to_owned()], vec!["Ada".to_owned()]);
    assert_eq!(done, ReEmbedded { renewed: 2, without_crop: 2, lost, fewer });
    let loaded = store.load(&other, 4).expect("loaded");
    assert_eq!((loaded.gallery.templates(), loaded.of_other_models), (2, 2));
    assert_eq!(loaded.to_renew, ["Ada", "Hedy"]);
    assert!(loaded.gallery.best(&made).expect("somebody").similarity > 0.999);
    assert!(loaded.gallery.best(&signed(&model(), 7.0)).is_none());
}

#[test]
fn an_exported_file_can_be_imported_elsewhere() {
    let folder = TempDir::new().expect("a folder");
    let store = Store::open(&filled(&folder)).expect("the gallery");
    let out = folder.path().join("out/ada.redb");
    assert_eq!(store.export(&["Ada".to_owned()], &out).expect("exported"), 1);
    assert!(store.export(&[], &out).is_err(), "the file is there already");
    let mut other = Store::open(&folder.path().join("other.redb")).expect("a new gallery");
    other.enroll("Someone", &[template(0.5, false)]).expect("enrolled");
    let before = (std::fs::read(&out).expect("a file"), stamp(&out));
    let export = Export::open(&out, None).expect("an export");
    let added = Imported { added: 1, ..Imported::default() };
    assert_eq!(other.import(&export, false).expect("imported"), added);
    let taken = Imported { taken: vec!["Ada".to_owned()], ..Imported::default() };
    assert_eq!(other.import(&export, false).expect("imported"), taken);
    drop(export);
    assert_eq!((std::fs::read(&out).expect("a file"), stamp(&out)), before, "only read");
    let ada = other.find("Ada").expect("Ada");
    assert_eq!((ada.id, ada.templates, ada.crops), (PersonId(2), 2, 1));
    assert_eq!(other.pictures(ada.id).expect("pictures").len(), 1);
}

#[test]
fn a_file_in_use_is_said_to_be() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let _held = Store::open(&path).expect("the gallery");
    assert!(matches!(Store::open(&path), Err(StoreError::Busy { .. })));
}

#[test]
fn a_damaged_file_gives_way_to_its_copy() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let whole = std::fs::read(&path).expect("a file");
    let half = whole[..whole.len() / 2].to_vec();
    for (n, broken) in [half, vec![], b"not a gallery at all".to_vec()].iter().enumerate() {
        std::fs::write(&path, broken).expect("written");
        let store = Store::open(&path).expect("the copy");
        assert_eq!(names(&store), ["Ada", "Grace"]);
        let aside = format!("{}.damaged-{}", path.display(), n + 1);
        assert!(store.repaired().expect("a repair").contains(&aside));
        assert_eq!(&std::fs::read(aside).expect("kept"), broken);
    }
    std::fs::remove_file(&path).expect("removed");
    let store = Store::open(&path).expect("the copy");
    assert_eq!(names(&store), ["Ada", "Grace"]);
}

#[test]
fn a_damaged_or_late_copy_is_made_anew() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let copy = copy_path(&path);
    let old = std::fs::read(&copy).expect("a copy");
    Store::open(&path).expect("open").remove("Ada").expect("removed");
    for broken in [old, b"nothing".to_vec()] {
        std::fs::write(&copy, broken).expect("written");
        drop(Store::open(&path).expect("the gallery"));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(names(&Store::open(&path).expect("the copy")), ["Grace"]);
    }
}

#[test]
fn the_copy_of_another_gallery_is_not_taken_for_ones_own() {
    let (here, there) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (path, other) = (filled(&here), filled(&there));
    Store::open(&other).expect("open").rename("Ada", "Somebody").expect("renamed");
    Store::open(&path).expect("open").rename("Ada", "Augusta").expect("renamed");
    std::fs::copy(copy_path(&other), copy_path(&path)).expect("copied");
    drop(Store::open(&path).expect("the gallery"));
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(names(&Store::open(&path).expect("the copy")), ["Augusta", "Grace"]);
    let left = std::fs::read_dir(here.path()).expect("a folder").count();
    assert_eq!(left, 2, "no draft stays behind");
}

#[test]
fn peeking_reads_without_touching_and_without_waiting() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let before = stamp(&path);
    let loaded =
        peek(&path, None, &model(), 4, |_| None).expect("a gallery").expect("nobody works on it");
    assert_eq!((loaded.gallery.people(), loaded.of_other_models), (2, 0));
    assert_eq!(stamp(&path), before);
    let mut store = Store::open(&path).expect("open");
    assert!(peek(&path, None, &model(), 4, |_| None).expect("no fault").is_none());
    store.remove("Ada").expect("removed");
    drop(store);
    let after =
        peek(&path, None, &model(), 4, |_| None).expect("a gallery").expect("nobody works on it");
    assert!(after.content.revision()[1] > loaded.content.revision()[1]);
    assert_eq!(after.content.revision()[0], loaded.content.revision()[0]);
    std::fs::write(&path, "nonsense").expect("written");
    assert!(peek(&path, None, &model(), 4, |_| None).is_err());
}

#[test]
fn both_damaged_is_an_error_that_names_both_and_touches_neither() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    std::fs::write(&path, "x").expect("written");
    std::fs::write(copy_path(&path), "y").expect("written");
    let message = Store::open(&path).expect_err("both are damaged").to_string();
    assert!(message.contains("gallery.redb") && message.contains("last-good"), "{message}");
    assert_eq!(std::fs::read(&path).expect("kept"), b"x");
}

/// Flips one bit of every byte of the database's header and its commit slots, and all
/// bits of the bytes that hold the version of a slot.
#[test]
fn a_flipped_bit_of_the_header_is_put_right() {
    const HEADER: usize = 320;
    const VERSIONS: [usize; 2] = [64, 192];
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let files = [path.clone(), copy_path(&path)];
    let whole = files.clone().map(|file| std::fs::read(file).expect("a file"));
    let bits = (0..HEADER).flat_map(|at| {
        let all = VERSIONS.contains(&at);
        (0..8).filter(move |bit| all || at % 8 == *bit).map(move |bit| (at, bit))
    });
    for (at, bit) in bits {
        for (broken, file) in files.iter().enumerate() {
            for (file, bytes) in files.iter().zip(&whole) {
                std::fs::write(file, bytes).expect("written");
            }
            let mut bytes = whole[broken].clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(file, bytes).expect("written");
            let opened = Store::open(&path);
            let store = opened.unwrap_or_else(|error| panic!("byte {at} bit {bit}: {error}"));
            assert_eq!(names(&store), ["Ada", "Grace"], "byte {at} bit {bit}");
            assert!(store.copy.is_some(), "byte {at} bit {bit}: there is no copy");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whichever byte is damaged, everybody is still present afterwards.
    #[test]
    fn a_flipped_byte_loses_nobody(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let folder = TempDir::new().expect("a folder");
        let path = filled(&folder);
        let mut bytes = std::fs::read(&path).expect("a file");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).expect("written");
        let store = Store::open(&path).expect("the gallery or its copy");
        prop_assert_eq!(names(&store), ["Ada", "Grace"]);
        let loaded = store.load(&model(), 4).expect("loaded");
        prop_assert_eq!(loaded.gallery.templates(), 3);
        prop_assert!(loaded.gallery.best(&signed(&model(), 2.0)).expect("Ada").similarity > 0.9999);
    }
}
