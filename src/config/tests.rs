//! Compares the example with the code, and written configurations with those read back.

use super::*;
use crate::hardware::uri::{duration_text, parse_duration};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Keys of the example that have no default: their value is an example.
const WITHOUT_DEFAULT: [&str; 20] = [
    "camera.uri",
    "door.role",
    "gallery.file",
    "gpio.button_inside",
    "gpio.button_outside",
    "gpio.door_contact",
    "gpio.exit",
    "gpio.reset",
    "groups.staff.clock_unsure",
    "groups.staff.hours",
    "groups.staff.on_holidays",
    "lights.blue",
    "lights.buzzer",
    "lights.green",
    "lights.red",
    "link.socket",
    "models.folder",
    "service.status_socket",
    "site.door",
    "site.key",
];

/// Other settings that make every value of a key valid.
const BESIDE: [(&str, &str); 5] = [
    ("lockout.first", "[lockout]\nlongest = \"1h\"\n"),
    ("lockout.longest", "[lockout]\nfirst = \"1s\"\n"),
    ("enroll.views", "[enroll]\nposes = []\n"),
    ("door.anti_passback", "[door]\nrole = \"in\"\n"),
    ("enroll.poses", "[enroll]\nviews = 5\n"),
];

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
}

/// A configuration with every key. A new key does not compile until it is added here.
fn everything() -> Config {
    let gpio = |line| Some(format!("gpio:0/{line}"));
    Config {
        camera: CameraConfig { uri: Some("pipe:cam".to_owned()), ..CameraConfig::default() },
        relay: RelayConfig::default(),
        gpio: GpioConfig {
            button_outside: gpio(1),
            button_inside: gpio(2),
            door_contact: gpio(3),
            exit: gpio(4),
            reset: gpio(5),
            debounce: Duration::from_millis(5),
        },
        lights: LightsConfig { red: gpio(6), green: gpio(7), blue: gpio(8), buzzer: gpio(9) },
        door: DoorConfig { role: Some(crate::access::door::Role::In), ..DoorConfig::default() },
        recognition: RecognitionConfig::default(),
        liveness: LivenessConfig::default(),
        enroll: EnrollConfig::default(),
        lockout: LockoutConfig::default(),
        schedule: ScheduleConfig::default(),
        groups: [("staff".to_owned(), group())].into(),
        gallery: GalleryConfig { file: Some("/g".into()), keep_crops: true },
        audit: AuditConfig::default(),
        models: ModelsConfig { folder: Some("/m".into()), ..Default::default() },
        service: ServiceConfig { status_socket: Some("/s".into()), ..ServiceConfig::default() },
        roles: RolesConfig::default(),
        site: SiteConfig {
            key: Some(TRUSTED.trim_matches(['[', ']', '"']).to_owned()),
            door: Some("front".to_owned()),
            ..SiteConfig::default()
        },
        link: LinkConfig { socket: Some("/l".into()), ..LinkConfig::default() },
    }
}

fn group() -> GroupConfig {
    let hours = Some(vec!["mon-fri 07:00-19:00".parse().expect("a span")]);
    GroupConfig { hours, ..GroupConfig::default() }
}

/// All keys of a text, in order.
fn keys(text: &str) -> Vec<String> {
    let read = reader::read(text).expect("a configuration");
    read.places.settings().iter().map(|place| place.key.clone()).collect()
}

/// A key of the example with its comment.
#[derive(Debug)]
struct Documented {
    key: String,
    /// The value as written.
    value: String,
    /// The lines of the comment above the key.
    about: Vec<String>,
}

/// All keys of the example with their comments.
fn documented() -> Vec<Documented> {
    let (mut all, mut table, mut about) = (Vec::new(), String::new(), Vec::new());
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (table, about) = (name.to_owned(), Vec::new());
        } else if let Some((name, value)) = setting(line) {
            let key = format!("{table}.{name}");
            all.push(Documented {
                key,
                value: value.to_owned(),
                about: std::mem::take(&mut about),
            });
        } else if line.is_empty() {
            about.clear();
        } else {
            about.push(bare.to_owned());
        }
    }
    all
}

/// Name and value of a commented-out setting.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("# ")?.split_once(" = ")?;
    let name_only = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    name_only.then_some((name, value))
}

/// The example without the comment signs of settings and tables.
fn uncommented() -> String {
    let bare = |line: &str| {
        let table = line.starts_with("# [") && line.ends_with(']');
        let settles = table || setting(line).is_some();
        let line = if settles { line.trim_start_matches("# ") } else { line };
        format!("{line}\n")
    };
    EXAMPLE.lines().map(bare).collect()
}

/// The options that the example lists below the line that begins with `heading`: their
/// names, and all of them as shown, joined as in a URI.
pub(crate) fn options(heading: &str) -> (Vec<&'static str>, String) {
    let below = EXAMPLE.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let shown: Vec<&str> = below
        .map_while(|line| line.strip_prefix("#     "))
        // Continuation lines.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let names = shown.iter().map(|option| option.split('=').next().unwrap_or_default()).collect();
    (names, shown.join("&"))
}

/// Table, key and value as a text, with the other settings that it needs.
fn text_with(key: &str, value: &str) -> String {
    let beside = BESIDE.iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
    let (table, name) = key.rsplit_once('.').expect("a key of a table");
    let head = beside.map_or_else(|| format!("[{table}]\n"), str::to_owned);
    format!("{head}{name} = {value}\n")
}

#[test]
fn the_example_as_it_stands_is_the_default() {
    assert_eq!(parse(EXAMPLE), Ok(Config::default()));
    assert_eq!(keys(EXAMPLE), Vec::<String>::new());
}

#[test]
fn the_example_uncommented_is_the_default_but_for_keys_that_have_none() {
    let mut config = parse(&uncommented()).expect("a configuration");
    // The camera of the example watches a door without liveness. With its defaults, the only
    // group of the example is refused without a time server.
    let advised: Vec<_> = config.advice().iter().map(|fault| fault.key.clone()).collect();
    assert_eq!(advised, ["liveness.mode", "schedule.clock"]);
    let default = Config::default();
    let without: BTreeSet<_> = documented()
        .into_iter()
        .filter(|one| one.about.iter().any(|line| line.contains("Not set by default.")))
        .map(|one| one.key)
        .collect();
    let named: BTreeSet<_> = WITHOUT_DEFAULT
        .iter()
        // These have a default in every group.
        .filter(|key| !["groups.staff.clock_unsure", "groups.staff.on_holidays"].contains(key))
        .map(|key| (*key).to_owned())
        .collect();
    assert_eq!(without, named);
    let mut group = config.groups.remove("staff").expect("the example's group");
    group.hours = None;
    assert_eq!(group, GroupConfig::default());
    let debounce = config.gpio.debounce;
    (config.camera, config.lights) = (default.camera.clone(), default.lights.clone());
    config.gpio = GpioConfig { debounce, ..default.gpio.clone() };
    (config.door.role, config.gallery.file, config.models.folder) = (None, None, None);
    config.link.socket = None;
    (config.site.key, config.site.door) = (None, None);
    config.service.status_socket = None;
    assert_eq!(config, default);
}

#[test]
fn the_example_has_every_key_of_the_code_in_its_order_and_no_other() {
    let code = keys(&everything().to_toml().expect("a text"));
    assert_eq!(keys(&uncommented()), code);
    let written: Vec<_> = documented().into_iter().map(|one| one.key).collect();
    assert_eq!(written, code);
}

#[test]
fn every_key_is_explained_with_what_it_may_be() {
    for one in documented() {
        let kind = one.about.last().map(String::as_str).unwrap_or_default();
        let explained = one.about.len() > 1 || kind.contains(". ");
        assert!(explained && kind.ends_with('.'), "{one:?}");
        let known = [
            "Time from ",
            "Rate above ",
            "Whole number from ",
            "Number from ",
            "Pixels from ",
            "One of ",
            "true or false.",
            "A list of ",
            "A GPIO line.",
            "A path.",
            "A size.",
            "A camera URI.",
            "A relay URI.",
            "Shares of ",
            "A user by ",
            "A public key.",
            "A name.",
        ];
        assert!(known.iter().any(|begin| kind.starts_with(begin)), "{one:?}");
        assert!(one.about.iter().all(|line| line.len() <= 90), "{one:?}");
    }
}

#[test]
fn the_ranges_that_are_documented_are_those_of_the_code() {
    let mut ranges = 0;
    for one in documented() {
        let kind = one.about.last().expect("what it may be");
        let Some((kind, range)) = kind.split_once(" from ") else { continue };
        let (from, to) = range.trim_end_matches('.').split_once(" to ").expect("a range");
        ranges += 1;
        // Both ends are valid, a little beyond them is not.
        let step = if kind == "Number" { 0.01 } else { 1.0 };
        let (inside, beyond) = if kind == "Time" {
            let time = |text| parse_duration(text).expect("a time");
            let (from, to, little) = (time(from), time(to), Duration::from_millis(1));
            let text = |time| format!("{:?}", duration_text(time));
            let below = from.checked_sub(little).filter(|below| !below.is_zero());
            ([text(from), text(to)], [below.map(text), Some(text(to + little))])
        } else {
            let number = |text: &str| text.parse::<f64>().expect("a number");
            let (from, to) = (number(from), number(to));
            let below = (from > 0.0).then(|| (from - step).to_string());
            ([from.to_string(), to.to_string()], [below, Some((to + step).to_string())])
        };
        for value in inside {
            let text = text_with(&one.key, &value);
            assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        }
        for value in beyond.into_iter().flatten() {
            let text = text_with(&one.key, &value);
            let message = parse(&text).expect_err(&text);
            assert!(message.contains(&format!("{} = ", one.key)), "{message}");
        }
    }
    assert_eq!(ranges, 27);
}

#[test]
fn the_names_that_are_documented_are_those_of_the_code() {
    for one in documented() {
        let kind = one.about.last().expect("what it may be");
        let Some(names) =
            kind.strip_prefix("One of ").or_else(|| kind.strip_prefix("A list of \""))
        else {
            continue;
        };
        let list = kind.starts_with("A list of");
        let names = if list { format!("\"{names}") } else { names.to_owned() };
        let names: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
        for name in &names {
            let value = if list { format!("[\"front\", {name:?}]") } else { format!("{name:?}") };
            let text = text_with(&one.key, &value);
            assert!(parse(&text).is_ok(), "{text}: {:?}", parse(&text));
        }
        let value = if list { "[\"nothing\"]" } else { "\"nothing\"" };
        let message = parse(&text_with(&one.key, value)).expect_err(&one.key);
        let (_, offered) = message.split_once(" is unknown; expected ").expect("names");
        let offered: BTreeSet<&str> = offered.split('"').skip(1).step_by(2).collect();
        assert_eq!(names, offered, "{}", one.key);
    }
}

#[test]
fn every_key_is_one_that_a_running_service_takes_over_or_one_that_it_cannot() {
    let code = keys(&everything().to_toml().expect("a text"));
    let code: BTreeSet<&str> = code
        .iter()
        .map(|key| if key.starts_with("groups.") { "groups" } else { key.as_str() })
        .collect();
    let sorted: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(sorted.iter().copied().collect::<BTreeSet<_>>(), code);
    assert_eq!(sorted.len(), code.len(), "a key is there twice");
    for key in KEYS {
        let table = key.name.split('.').next().unwrap_or_default();
        let restart = [
            "camera", "relay", "gpio", "lights", "gallery", "audit", "service", "roles", "link",
            "site",
        ]
        .contains(&table)
            || ["door.lock", "recognition.distinct_views", "models.folder"].contains(&key.name);
        let restart = restart && !["audit.pictures", "audit.replay"].contains(&key.name);
        assert_eq!(key.restart, restart, "{}", key.name);
    }
}

/// A list of one key.
const TRUSTED: &str = "[\"ssh-ed25519 \
    AAAAC3NzaC1lZDI1NTE5AAAAIKNEqwoZai8T7U0ScclarbmIAHRSQu6c8RJOwbacrQc7 office\"]";

#[test]
fn trusted_keys_are_keys_and_few() {
    let text = |list: &str| format!("[models]\ntrusted_keys = {list}");
    let config = parse(&text(TRUSTED)).expect("a key");
    assert!(!config.trusted_keys().is_empty());
    for (list, expected) in [
        ("[\"ssh-rsa AAAA office\"]", "models.trusted_keys has \"ssh-rsa AAAA office\""),
        ("[\"\"]", "ssh-keygen -t ed25519"),
        (&format!("[{}]", "\"a\",".repeat(17)), "at most 16"),
        (&format!("[{0}, {0}]", &TRUSTED[1..TRUSTED.len() - 1]), "twice"),
    ] {
        let message = parse(&text(list)).expect_err(list);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_changed_setting_reports_whether_it_needs_a_restart() {
    let default = Config::default();
    assert_eq!(default.changed(&default).count(), 0);
    assert_eq!(default.needs_restart(&default), None);
    // Values that differ from the default.
    let others: BTreeMap<&str, &str> = [
        ("relay.uri", "\"serial:/dev/ttyUSB0\""),
        ("groups", "{ staff = {} }"),
        ("recognition.two_faces", "\"all\""),
        ("recognition.zone", "[0.1, 0.1, 0.9, 0.9]"),
        ("door.lock", "\"fail-safe\""),
        ("door.duress", "\"double\""),
        ("door.anti_passback", "\"soft\""),
        ("door.open_hours", "[\"09:00-17:00\"]"),
        ("door.open_hours_on_holidays", "[\"09:00-17:00\"]"),
        ("liveness.mode", "\"advise\""),
        ("liveness.threshold", "0.25"),
        ("camera.largest_frame", "8"),
        ("enroll.poses", "[\"front\"]"),
        ("schedule.holidays", "[\"12-25\"]"),
        ("schedule.clock", "\"trusted\""),
        ("models.trusted_keys", TRUSTED),
        ("recognition.minimum_face", "70"),
        ("recognition.false_accept_rate", "\"1e-5\""),
        ("recognition.false_entries_per_year", "1.5"),
        ("recognition.strangers_per_day", "7"),
        ("enroll.duplicate_rate", "\"1e-6\""),
        ("enroll.look_alike_rate", "\"1e-4\""),
        ("audit.keep_for", "\"30 days\""),
        ("audit.largest", "\"1 GB\""),
        ("roles.read", "[\"ada\"]"),
        ("roles.order", "[\"@staff\"]"),
        ("roles.administrator", "[\"1001\"]"),
        ("link.user", "\"ada\""),
        ("link.orders", "[\"open\"]"),
        ("link.names", "\"name\""),
        ("site.on_lease_end", "\"keep\""),
    ]
    .into();
    let documented = documented();
    for key in KEYS {
        let shown = documented.iter().find(|one| one.key == key.name).map(|one| &one.value);
        let value = match (others.get(key.name), shown.map(String::as_str)) {
            (Some(other), _) => (*other).to_owned(),
            (None, Some("true")) => "false".to_owned(),
            (None, Some("false")) => "true".to_owned(),
            (None, Some(shown)) if WITHOUT_DEFAULT.contains(&key.name) => shown.to_owned(),
            (None, Some(shown)) => match shown.parse::<u32>() {
                Ok(number) => (number + 1).to_string(),
                // Six seconds are in the range of all other times.
                Err(_) if key.name == "gpio.debounce" => "\"5ms\"".to_owned(),
                Err(_) if key.name == "door.anti_passback_forgets" => "\"61s\"".to_owned(),
                Err(_) if key.name == "enroll.first_within" => "\"11s\"".to_owned(),
                Err(_) if key.name == "audit.pictures" => "\"all\"".to_owned(),
                Err(_) if key.name == "audit.pictures_keep_for" => "\"2 days\"".to_owned(),
                Err(_) => "\"6s\"".to_owned(),
            },
            (None, None) => continue,
        };
        let text = match key.name {
            "groups" => format!("groups = {value}"),
            // Not valid alone.
            "door.anti_passback" => continue,
            name => text_with(name, &value),
        };
        let changed = parse(&text).expect(&text);
        let seen: Vec<_> = default.changed(&changed).map(|key| key.name).collect();
        assert!(seen.contains(&key.name), "{text}: {seen:?}");
        assert_eq!(default.needs_restart(&changed), key.restart.then_some(key.name), "{text}");
    }
}

#[test]
fn the_first_key_that_needs_a_restart_is_reported() {
    let config =
        parse("[door]\nopen_for = \"5s\"\nlock = \"fail-safe\"\n[gpio]\nexit = \"gpio:0/1\"");
    let config = config.expect("a configuration");
    assert_eq!(Config::default().needs_restart(&config), Some("gpio.exit"));
}

#[test]
fn the_default_is_written_and_read_back() {
    let text = Config::default().to_toml().expect("a text");
    assert!(text.contains("open_for = \"3s\"") && text.contains("false_accept_rate = \"1e-4\""));
    assert!(
        text.contains("zone = [0.0, 0.0, 1.0, 1.0]") && text.contains("lock = \"fail-secure\"")
    );
    assert_eq!(parse(&text), Ok(Config::default()));
}

#[test]
fn printed_settings_name_their_origin() {
    let text = "[door]\nopen_for = \"4s\"\n[groups.\"night shift\"]\nhours = [\"22:00-06:00\"]\n";
    let effective = Effective::parse(Path::new("facelatch.toml"), text).expect("a configuration");
    let printed = effective.to_toml().expect("a text");
    for line in [
        "open_for = \"4s\"  # facelatch.toml:2",
        "exit_for = \"3s\"  # default",
        "[groups.\"night shift\"]",
        "hours = [\"22:00-06:00\"]  # facelatch.toml:4",
        "on_holidays = []  # default",
        "# button_outside is not set",
        "[camera]",
        "# uri is not set",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    assert!(printed.contains("# file = \"/"), "{printed}");
    assert_eq!(parse(&printed), Ok(effective.config.clone()));
    let json = effective.to_json().expect("JSON");
    assert_eq!(json["config"]["door"]["open_for"], "4s");
    assert_eq!(json["config"]["camera"]["uri"], serde_json::Value::Null);
    assert_eq!(json["set"]["door.open_for"], serde_json::json!([2, 1]));
    assert!(json["instead"]["gallery.file"].is_string());
}

#[test]
fn an_unreadable_file_is_reported_with_the_cure() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let message = |path: &Path| Config::read(path).expect_err("no configuration").to_string();
    let path = folder.path().join("facelatch.toml");
    assert!(message(&path).ends_with("facelatch config example prints one"), "{}", message(&path));
    std::fs::write(&path, [0xff, b'\n']).expect("written");
    assert!(
        message(&path).contains("facelatch.toml:1:1: line 1 is not UTF-8"),
        "{}",
        message(&path)
    );
    std::fs::write(&path, "#".repeat(2 << 20)).expect("written");
    assert!(message(&path).contains("is it a configuration?"), "{}", message(&path));
}

/// Any time within a range in milliseconds, to the nanosecond.
fn time_within(from: u64, to: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (from * 1_000_000..=to * 1_000_000).prop_map(Duration::from_nanos),
        (from..=to).prop_map(Duration::from_millis),
    ]
}

/// Configurations with random values of many settings.
fn settings() -> impl Strategy<Value = Config> {
    let line =
        "gpio:([0-9]|/dev/gpiochip[0-9]|pinctrl-[a-z]{3})/[0-9]{1,3}(\\?active=low)?|gpio:P[0-9]";
    let board = (
        proptest::option::of("pipe:[a-z]{1,4}( \\PC{0,20})?"),
        proptest::collection::vec(proptest::option::of(line), 9),
        time_within(0, 1000),
    );
    let door = (
        time_within(200, 60_000),
        time_within(1000, 3_600_000),
        any::<(bool, bool, bool)>(),
        proptest::collection::vec((0usize..7, 0u16..1440, 0u16..=1440), 0..4),
    );
    let groups = proptest::collection::btree_map("\\PC{0,12}", any::<(bool, bool)>(), 0..4);
    let recognition = (
        1e-300f64..=1e-2,
        3usize..=30,
        time_within(100, 10_000),
        (0f32..0.5, 0f32..0.5, 0.51f32..=1.0, 0.51f32..=1.0),
        20f32..2000.0,
        0f32..=1.0,
    );
    let paths = (
        proptest::option::of("/\\PC{0,12}"),
        proptest::option::of("\\PC{1,12}"),
        time_within(2000, 600_000),
    );
    (board, door, groups, recognition, paths).prop_map(
        |((camera, lines, debounce), door, groups, recognition, paths)| {
            let mut config = everything();
            let mut lines = lines.into_iter();
            let mut line = || lines.next().flatten();
            config.camera.uri = camera;
            config.gpio = GpioConfig {
                button_outside: line(),
                button_inside: line(),
                door_contact: line(),
                exit: line(),
                reset: line(),
                debounce,
            };
            config.lights =
                LightsConfig { red: line(), green: line(), blue: line(), buzzer: line() };
            let (open_for, held_open_after, (safe, closed, role), spans) = door;
            config.door.open_for = open_for;
            config.door.held_open_after = held_open_after;
            config.door.lock_when_closed = closed;
            if safe {
                config.door.lock = crate::access::door::LockKind::FailSafe;
            }
            config.door.role = role.then_some(crate::access::door::Role::Out);
            let names = ["mon", "tue-fri", "sat,sun", "fri-mon", "mon,wed", "mon-sun", "sun"];
            config.door.open_hours = spans
                .iter()
                .map(|(day, from, to)| {
                    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
                    let span = format!("{} {}-{}", names[*day], clock(*from), clock(*to));
                    span.parse().expect("a span")
                })
                .collect();
            config.groups = groups
                .into_iter()
                .map(|(name, (hours, _))| {
                    let with = if hours { group() } else { GroupConfig::default() };
                    (name, with)
                })
                .collect();
            let (rate, frames, expires, (left, top, right, bottom), face, threshold) = recognition;
            config.recognition.false_accept_rate = rate;
            config.recognition.frames = frames;
            config.recognition.evidence_expires = expires;
            config.recognition.zone = [left, top, right, bottom];
            config.recognition.minimum_face = face;
            config.liveness.threshold = threshold;
            let (gallery, models, watchdog) = paths;
            config.gallery.file = gallery.map(PathBuf::from);
            config.models.folder = models.map(PathBuf::from);
            config.service.watchdog = watchdog;
            config
        },
    )
}

proptest! {
    #[test]
    fn a_written_configuration_reads_back_unchanged(config in settings()) {
        let text = config.to_toml().expect("a text");
        prop_assert_eq!(parse(&text), Ok(config.clone()), "{}", text);
        let effective = Effective::parse(Path::new("a\nb"), &text).expect("a configuration");
        let printed = effective.to_toml().expect("a text");
        prop_assert_eq!(config.needs_restart(&effective.config), None);
        let mut shown = config;
        shown.camera.uri = shown.camera.uri.as_deref().map(crate::hardware::camera::redacted);
        prop_assert_eq!(parse(&printed), Ok(shown), "{}", printed);
        prop_assert!(effective.to_json().is_ok());
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}|[\\[\\]{}=\"'.,#\\\\a-c0-9\n \u{0}-\u{20}]{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_change_of_a_text_panics(
        at in 0usize..20_000, length in 0usize..12,
        text in "\\PC{0,12}|[\\[\\]{}=\"'.,#\\\\a-c0-9\n]{0,12}|`, expected |\\[\\[door\\]\\]",
        value in "nan|inf|-1|1e400|\"\"|\"1e-400\"|\"\u{0661}s\"|\\{\\}|\\[\\[\\]\\]|1979-05-27|9999999999999999999",
        key in 0usize..KEYS.len(),
    ) {
        let mut whole = uncommented();
        let from = whole.floor_char_boundary(at.min(whole.len()));
        let to = whole.floor_char_boundary((from + length).min(whole.len()));
        whole.replace_range(from..to, &text);
        if let Err(message) = parse(&whole) {
            prop_assert!(message.starts_with("facelatch.toml:"), "{}", message);
        }
        let key = KEYS[key].name;
        let text = if key.contains('.') { text_with(key, &value) } else { format!("{key} = {value}") };
        if let Err(message) = parse(&text) {
            prop_assert!(message.starts_with("facelatch.toml:"), "{}", message);
        }
    }
}
