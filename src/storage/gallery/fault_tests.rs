//! Galleries that are away, put back, exchanged, read-only or crafted.

use super::files::create;
use super::tables::IDENTITY;
use super::tests::{filled, names, signed, template};
use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A gallery with Ada and Grace, and a register that remembers it.
pub(super) struct Site {
    folder: TempDir,
    pub(super) register: Register,
}

impl Site {
    /// A place for a gallery.
    pub(super) fn empty() -> Self {
        let folder = TempDir::new().expect("a folder");
        let register = Register::at(folder.path().join("register"));
        std::fs::create_dir(folder.path().join("card")).expect("a folder");
        Self { folder, register }
    }

    pub(super) fn new() -> Self {
        let site = Self::empty();
        let mut store = site.open(Purpose::Begin).expect("a new gallery");
        store.enroll("Ada", &[template(1.0, true)]).expect("enrolled");
        store.enroll("Grace", &[template(-1.0, false)]).expect("enrolled");
        site
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("card/gallery.redb")
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn open(&self, purpose: Purpose) -> Result<Store, StoreError> {
        let opening = Opening::to(purpose).registered(Some(self.register.clone()));
        Store::open_as(&self.path(), opening)
    }

    pub(super) fn kind(&self, purpose: Purpose) -> &'static str {
        self.open(purpose).map_or_else(|error| error.kind(), |_| "good")
    }

    /// Number of files on the card, without the keyring.
    fn files(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path().join("card")).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| !name.to_string_lossy().ends_with(".keys")).count()
    }

    /// A register that remembers nothing but the key.
    fn forgetful(&self) -> Register {
        let register = Register::at(self.at("forgetful"));
        let _ = std::fs::remove_dir_all(register.folder());
        std::fs::create_dir(register.folder()).expect("a folder");
        let key = |register: &Register| register.folder().join("door.key");
        std::fs::copy(key(&self.register), key(&register)).expect("copied");
        register
    }

    /// The bytes of the file and its copy.
    pub(super) fn bytes(&self) -> [Vec<u8>; 2] {
        [self.path(), copy_path(&self.path())].map(|file| std::fs::read(file).expect("a file"))
    }

    pub(super) fn write(&self, [main, copy]: &[Vec<u8>; 2]) {
        std::fs::write(self.path(), main).expect("written");
        std::fs::write(copy_path(&self.path()), copy).expect("written");
    }
}

fn restore_from(site: &Site, from: &Path) -> Result<Restored, StoreError> {
    let export = Export::open(from, Some((&site.path(), &site.register)))?;
    Store::restore(&site.path(), export, Some(&site.register))
}

const ALL: [Purpose; 4] = [Purpose::Read, Purpose::Serve, Purpose::Change, Purpose::Begin];

#[test]
fn where_a_gallery_went_away_nothing_is_created() {
    let site = Site::new();
    let (card, away) = (site.at("card"), site.at("away"));
    std::fs::rename(&card, &away).expect("moved");
    for purpose in ALL {
        assert_eq!(site.kind(purpose), "lost", "{purpose:?}");
        assert!(!card.exists(), "{purpose:?}");
    }
    // The mount point of a card that is not mounted.
    std::fs::create_dir(&card).expect("a folder");
    for purpose in ALL {
        assert_eq!(site.kind(purpose), "lost", "{purpose:?}");
        assert_eq!(site.files(), 0, "{purpose:?}");
    }
    std::fs::remove_dir(&card).expect("removed");
    std::fs::rename(&away, &card).expect("back");
    assert_eq!(names(&site.open(Purpose::Read).expect("back")), ["Ada", "Grace"]);
}

#[test]
fn a_first_start_creates_and_a_look_does_not() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("new/gallery.redb");
    for purpose in [Purpose::Read, Purpose::Change] {
        let opened = Store::open_as(&path, Opening::to(purpose));
        assert!(matches!(opened, Err(StoreError::Absent { .. })), "{purpose:?}");
        assert!(!folder.path().join("new").exists());
    }
    for purpose in [Purpose::Serve, Purpose::Begin] {
        drop(Store::open_as(&path, Opening::to(purpose)).expect("a new gallery"));
        std::fs::remove_dir_all(folder.path().join("new")).expect("removed");
    }
}

#[test]
fn only_an_order_starts_with_a_new_gallery() {
    let site = Site::new();
    let before = site.open(Purpose::Read).expect("the gallery").revision().expect("a revision");
    let there = Store::renew(&site.path(), Some(&site.register)).expect_err("there is one");
    assert!(there.to_string().contains("move it away"), "{there}");
    std::fs::remove_file(site.path()).expect("removed");
    assert!(Store::renew(&site.path(), Some(&site.register)).is_err(), "there is a copy");
    std::fs::remove_file(copy_path(&site.path())).expect("removed");
    Store::renew(&site.path(), Some(&site.register)).expect("a new gallery");
    let store = site.open(Purpose::Change).expect("the new gallery");
    assert!(names(&store).is_empty());
    // A service that remembers the former gallery takes this one for its next revision.
    let [identity, revision] = store.revision().expect("a revision");
    assert_eq!((identity, revision), (before[0], before[1] + 1));
}

#[test]
fn an_older_file_does_not_bring_back_who_was_removed() {
    let site = Site::new();
    let old = site.bytes();
    site.open(Purpose::Change).expect("open").remove("Ada").expect("removed");
    let new = site.bytes();
    // The main file alone: the copy is newer.
    std::fs::write(site.path(), &old[0]).expect("written");
    let store = site.open(Purpose::Read).expect("the copy");
    assert_eq!(names(&store), ["Grace"]);
    let said = store.repaired().expect("a repair").to_owned();
    assert!(said.contains("an older gallery") && said.contains(".older-1"), "{said}");
    drop(store);
    // Both: the register knows better. So does the main file without a copy.
    for without_copy in [false, true] {
        site.write(&old);
        if without_copy {
            std::fs::remove_file(copy_path(&site.path())).expect("removed");
        }
        for purpose in ALL {
            assert_eq!(site.kind(purpose), "older", "{purpose:?}");
            assert_eq!(site.files(), if without_copy { 2 } else { 3 }, "{purpose:?}");
        }
    }
    // The newer one is back.
    site.write(&new);
    assert_eq!(names(&site.open(Purpose::Read).expect("open")), ["Grace"]);
    // A damaged file is not restored from a copy that is too old.
    std::fs::write(site.path(), "x").expect("written");
    std::fs::write(copy_path(&site.path()), &old[1]).expect("written");
    assert_eq!(site.kind(Purpose::Serve), "older");
}

#[test]
fn what_the_caller_remembers_counts_like_the_register() {
    let folder = TempDir::new().expect("a folder");
    let path = filled(&folder);
    let old = std::fs::read(&path).expect("a file");
    let mut store = Store::open(&path).expect("open");
    store.remove("Ada").expect("removed");
    let known = Known { revision: store.revision().expect("a revision"), inhabited: true };
    drop(store);
    std::fs::write(&path, &old).expect("written");
    std::fs::write(copy_path(&path), &old).expect("written");
    let opening = |known| Opening::to(Purpose::Read).knowing(known);
    let opened = Store::open_as(&path, opening(Some(known)));
    assert!(matches!(opened, Err(StoreError::Older { .. })));
    assert_eq!(names(&Store::open_as(&path, opening(None)).expect("open")).len(), 2);
}

#[test]
fn an_order_restores_an_older_gallery() {
    let site = Site::new();
    let backup = site.at("backup.redb");
    let mut store = site.open(Purpose::Change).expect("open");
    store.set_administrator("Grace", true).expect("changed");
    store.export(&[], &backup).expect("exported");
    store.remove("Ada").expect("removed");
    let ada = store.enroll("Hedy", &[template(0.3, true)]).expect("enrolled").id;
    let revision = store.revision().expect("a revision");
    drop(store);
    let restore = |from: &Path| restore_from(&site, from);
    let done = restore(&backup).expect("restored");
    assert_eq!((done.people, done.administrators), (2, 1));
    assert!(done.aside.expect("the former gallery").exists());
    let mut store = site.open(Purpose::Change).expect("the backup");
    assert_eq!(names(&store), ["Ada", "Grace"]);
    let [identity, now] = store.revision().expect("a revision");
    assert!(identity == revision[0] && now > revision[1], "it counts as the newest");
    // Numbers are not used again.
    assert!(store.enroll("Joan", &[]).expect("enrolled").id > ada);
    drop(store);
    // Also from a file that was put in the place of the gallery, and from the copy.
    let old = site.bytes();
    site.open(Purpose::Change).expect("open").remove("Joan").expect("removed");
    site.write(&old);
    assert_eq!(site.kind(Purpose::Serve), "older");
    restore(&site.path()).expect("restored");
    assert_eq!(names(&site.open(Purpose::Read).expect("open")).len(), 3);
    restore(&copy_path(&site.path())).expect("restored");
    assert_eq!(site.kind(Purpose::Serve), "good");
    // A missing or damaged gallery is replaced, and an unreadable backup replaces nothing.
    std::fs::write(site.path(), "x").expect("written");
    std::fs::remove_file(copy_path(&site.path())).expect("removed");
    assert!(restore(&site.at("none.redb")).is_err());
    assert!(std::fs::read(site.path()).expect("a file") == b"x");
    restore(&backup).expect("restored");
    assert_eq!(names(&site.open(Purpose::Read).expect("open")), ["Ada", "Grace"]);
}

#[test]
fn another_gallery_is_not_taken_for_the_one_in_use() {
    let (site, other) = (Site::new(), Site::new());
    other.open(Purpose::Change).expect("open").rename("Ada", "Mallory").expect("renamed");
    let [foreign, foreign_copy] = other.bytes();
    std::fs::write(site.path(), &foreign).expect("written");
    let store = site.open(Purpose::Serve).expect("the copy");
    assert_eq!(names(&store), ["Ada", "Grace"]);
    assert!(store.repaired().expect("a repair").contains("another gallery"));
    drop(store);
    site.write(&[foreign, foreign_copy]);
    for purpose in ALL {
        assert_eq!(site.kind(purpose), "foreign", "{purpose:?}");
    }
    // It is sealed with the keys of another door, so no order makes it this door's.
    assert!(restore_from(&site, &site.path()).is_err());
    let export = site.at("export.redb");
    other.open(Purpose::Read).expect("open").export(&[], &export).expect("exported");
    restore_from(&site, &export).expect("restored on order");
    assert_eq!(names(&site.open(Purpose::Serve).expect("open")), ["Grace", "Mallory"]);
}

#[test]
fn equal_revisions_with_different_content_are_a_fault() {
    let site = Site::new();
    let [main, _] = site.bytes();
    site.open(Purpose::Change).expect("open").rename("Ada", "Mallory").expect("renamed");
    let [_, other] = site.bytes();
    // A copy with the revision of the main file, which says something else.
    site.write(&[main.clone(), main]);
    let path = site.path();
    let free = Opening::to(Purpose::Change).registered(Some(site.forgetful()));
    Store::open_as(&path, free).expect("open").rename("Ada", "Augusta").expect("renamed");
    std::fs::write(copy_path(&path), other).expect("written");
    assert!(matches!(site.open(Purpose::Read), Err(StoreError::Differ { .. })));
    std::fs::remove_file(copy_path(&path)).expect("moved away");
    assert_eq!(names(&site.open(Purpose::Read).expect("open")), ["Augusta", "Grace"]);
}

#[test]
fn what_cannot_be_reached_is_neither_absent_nor_empty() {
    let site = Site::new();
    let opening = |purpose| Opening::to(purpose).registered(Some(site.forgetful()));
    let open = |path: &Path, purpose| match Store::open_as(path, opening(purpose)) {
        Ok(_) => "good",
        Err(error) => error.kind(),
    };
    symlink("loop.redb", site.at("loop.redb")).expect("a link");
    symlink("nowhere/g.redb", site.at("dangling.redb")).expect("a link");
    symlink(site.path(), site.at("link.redb")).expect("a link");
    std::fs::write(site.at("photo.jpg"), b"\xff\xd8\xff\xe0 not a gallery").expect("written");
    std::fs::write(site.at("empty.redb"), b"").expect("written");
    std::fs::create_dir(site.at("folder")).expect("a folder");
    for purpose in ALL {
        for (name, expected) in [
            ("loop.redb", "unreachable"),
            ("dangling.redb", "unreachable"),
            ("photo.jpg/g.redb", "unreachable"),
            ("photo.jpg", "foreign"),
            ("folder", "foreign"),
            ("empty.redb", "damaged"),
        ] {
            assert_eq!(open(&site.at(name), purpose), expected, "{name} {purpose:?}");
        }
    }
    assert_eq!(open(&site.at("link.redb"), Purpose::Read), "good");
    assert!(!site.at("nowhere").exists());
}

#[test]
fn a_database_of_another_program_is_no_gallery() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("other.redb");
    let database = Database::create(&path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("settings");
    transaction.open_table(table).expect("a table").insert("volume", 7).expect("written");
    transaction.commit().expect("written");
    drop(database);
    let opened = Store::open(&path).expect_err("foreign");
    assert!(opened.to_string().contains("another program"), "{opened}");
    assert!(matches!(Export::open(&path, None), Err(StoreError::Foreign { .. })));
}

/// Root may write any file, so this uses what the opening does with a read-only file.
#[test]
fn a_read_only_gallery_is_read_and_not_changed() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let site = Site::new();
    for file in [site.path(), copy_path(&site.path())] {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o400)).expect("rights");
    }
    for purpose in [Purpose::Read, Purpose::Serve] {
        let store = site.open(purpose).expect("the gallery");
        assert_eq!(names(&store), ["Ada", "Grace"]);
        assert!(store.read_only().expect("a reason").contains("chmod"), "{purpose:?}");
        assert_eq!(store.export(&[], &site.at(&format!("{purpose:?}"))).expect("exported"), 2);
    }
    assert_eq!(site.kind(Purpose::Change), "read-only");
    assert_eq!(site.kind(Purpose::Begin), "read-only");
}

/// A gallery file with these records, which somebody crafted.
fn crafted(path: &Path, edits: Vec<Edit>) {
    let database = create(path).unwrap_or_else(|_| panic!("a new file"));
    let mut all = vec![meta(REVISION, 1), meta(NEXT_PERSON, 1), meta(IDENTITY, 7)];
    all.extend(edits);
    write(&database, &all).expect("written");
}

fn person(name: &str, traits: Traits) -> PersonRecord {
    PersonRecord { name: name.to_owned(), enrolled_at: 1, traits }
}

fn row(template: &Template) -> TemplateRecord {
    TemplateRecord::rotated(template, template.model(), None).expect("its own model")
}

#[test]
fn crafted_people_are_refused_by_name_and_others_taken() {
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let model = super::tests::model();
    let values = |values: &[f32]| {
        // As bytes: a template of this program is never like this.
        let mut bytes = postcard::to_stdvec(&(model.as_str(), values)).expect("bytes");
        bytes.insert(0, 1);
        bytes
    };
    let raw = |key: u64, body: Vec<u8>| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(b"templates");
        hasher.update(&key.to_le_bytes());
        hasher.update(&body);
        let mut record = body;
        record.extend(hasher.finalize().to_le_bytes());
        Edit { table: TEMPLATES, key, record: Some(record) }
    };
    let good = row(&signed(&model, 0.3));
    let boss = Traits { administrator: true, ..Traits::default() };
    let mut edits = vec![
        put(PEOPLE, 1, &person("Boss", boss)),
        put(TEMPLATES, 1 << 32, &good),
        put(PEOPLE, 2, &person("x\n\u{1b}[31mRoot", Traits::default())),
        put(PEOPLE, 3, &person("Group", Traits { group: "a\nb".to_owned(), ..Traits::default() })),
        put(PEOPLE, 4, &person("Easy", Traits { stricter: -1.0, ..Traits::default() })),
        put(PEOPLE, 5, &person("NaN", Traits::default())),
        raw(5 << 32, values(&[f32::NAN; 4])),
        put(PEOPLE, 6, &person("Zero", Traits::default())),
        raw(6 << 32, values(&[0.0; 4])),
        put(PEOPLE, 7, &person("Long", Traits::default())),
        raw(7 << 32, values(&[1.0; 8])),
        put(PEOPLE, 8, &person("None", Traits::default())),
        raw(8 << 32, values(&[])),
        put(PEOPLE, 9, &person("Flood", Traits::default())),
    ];
    edits.extend((0..100).map(|n| put(TEMPLATES, (9 << 32) | n, &good)));
    edits.push(put(PEOPLE, 10, &person("Bomb", Traits::default())));
    edits.push(put(TEMPLATES, 10 << 32, &good));
    // A PNG of 10,000 x 10,000 pixels, format 1 of a kept picture.
    let png = png_of(10_000);
    edits.push(put(CROPS, 10 << 32, &Png(png)));
    crafted(&at("crafted.redb"), edits);
    let mut store = Store::open(&at("gallery.redb")).expect("a new gallery");
    let export = Export::open(&at("crafted.redb"), None).expect("records are whole");
    let done = store.import(&export, false).expect("imported");
    assert_eq!((done.added, done.made_ordinary, done.taken.len()), (1, 1, 0));
    let said = done.refused.join("\n");
    for expected in [
        "\"x\\\\n\\\\u{1b}[31mRoot\": its name",
        "\"Group\": its group contains",
        "\"Easy\": the addition to its threshold is -1",
        "\"NaN\": a template has values that are no numbers",
        "\"Zero\": a template is zero",
        "\"Long\": a template has 8 values",
        "\"None\": a template has 0 values",
        "\"Flood\": more than 64 templates",
        "\"Bomb\": a picture of 10000x10000 pixels",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains('\u{1b}') && said.lines().count() == 9, "{said:?}");
    assert_eq!(names(&store), ["Boss"]);
    assert!(!store.find("Boss").expect("Boss").traits.administrator);
    store.remove("Boss").expect("removed");
    store.import(&export, true).expect("imported");
    assert!(store.find("Boss").expect("Boss").traits.administrator);
    // A restore takes all or nothing.
    drop(store);
    let restored = Store::restore(
        &at("gallery.redb"),
        Export::open(&at("crafted.redb"), None).expect("whole"),
        None,
    );
    assert!(matches!(restored, Err(StoreError::Invalid { .. })));
    // As the gallery itself it takes no memory and shows no control characters.
    drop(export);
    let store = Store::open(&at("crafted.redb")).expect("open");
    let loaded = store.load(&model, 4).expect("loaded");
    assert!(loaded.gallery.templates() <= MOST_TEMPLATES + 9);
    assert!(names(&store).iter().all(|name| !name.chars().any(char::is_control)));
    assert!(store.pictures(PersonId(10)).expect("pictures").is_empty());
}

/// A kept picture of format 1.
#[derive(serde::Serialize, serde::Deserialize)]
struct Png(Vec<u8>);

impl Content for Png {}

/// A PNG whose header promises a square of this side.
fn png_of(side: u32) -> Vec<u8> {
    let frame = crate::vision::frame::Frame::filled(8, 8, [0; 3]);
    let mut png = crate::vision::picture::encode_png(&frame).expect("a PNG");
    png[16..20].copy_from_slice(&side.to_be_bytes());
    png[20..24].copy_from_slice(&side.to_be_bytes());
    let sum = crc32fast::hash(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

#[test]
fn impossible_numbers_are_damage() {
    let folder = TempDir::new().expect("a folder");
    for (n, key) in [0, u64::MAX, (1 << 32) + 1].into_iter().enumerate() {
        let path = folder.path().join(format!("{n}.redb"));
        crafted(&path, vec![put(PEOPLE, key, &person("Big", Traits::default()))]);
        let opened = Export::open(&path, None);
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{key}");
    }
    let path = folder.path().join("revision.redb");
    crafted(&path, vec![meta(REVISION, u64::MAX)]);
    assert!(matches!(Export::open(&path, None), Err(StoreError::Damaged { .. })));
    // A number that is taken is not given again.
    let path = folder.path().join("next.redb");
    crafted(&path, vec![put(PEOPLE, 5, &person("Ada", Traits::default()))]);
    let mut store = Store::open(&path).expect("open");
    assert_eq!(store.enroll("Grace", &[]).expect("enrolled").id, PersonId(6));
}

#[test]
fn templates_of_one_person_are_bounded() {
    let folder = TempDir::new().expect("a folder");
    let mut store = Store::open(&folder.path().join("g.redb")).expect("a new gallery");
    let many = vec![template(1.0, false); MOST_TEMPLATES];
    store.enroll("Ada", &many).expect("enrolled");
    let more = store.enroll("Ada", &many[..1]);
    assert!(matches!(more, Err(StoreError::ManyTemplates { count: 65, .. })));
    assert!(store.enroll("Grace", &vec![template(1.0, false); 65]).is_err());
    assert_eq!(names(&store), ["Ada"]);
}

#[test]
fn a_draft_that_stayed_behind_does_no_harm() {
    let site = Site::new();
    let backup = site.at("backup.redb");
    site.open(Purpose::Read).expect("open").export(&[], &backup).expect("exported");
    let draft = format!("{}.draft-{}", site.path().display(), std::process::id());
    std::fs::write(&draft, "half").expect("written");
    let restored = restore_from(&site, &backup);
    assert_eq!(restored.expect("restored").people, 2);
    assert!(!Path::new(&draft).exists());
    // Of processes that were killed.
    let drafts = ["gallery.redb.draft-9", "gallery.last-good.redb.draft-9", "other.draft-9"];
    let drafts = drafts.map(|name| site.at("card").join(name));
    for draft in &drafts {
        std::fs::write(draft, "faces").expect("written");
    }
    drop(site.open(Purpose::Read).expect("open"));
    assert_eq!(drafts.map(|draft| draft.exists()), [false, false, true]);
    // The gallery is restored, the register not yet: a cut between the two.
    let known = site.register.known(&site.path()).expect("an entry").expect("known");
    let [identity, revision] = known.revision;
    let before = Known { revision: [identity, revision - 1], ..known };
    site.register.note(&site.path(), before).expect("written");
    assert_eq!(site.kind(Purpose::Serve), "good");
    let after = site.register.known(&site.path()).expect("an entry");
    assert_eq!(after, Some(known));
}
