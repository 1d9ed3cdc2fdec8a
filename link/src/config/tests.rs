use super::*;
use proptest::prelude::*;

fn fault(text: &str) -> String {
    Config::parse(text).expect_err(text)
}

#[test]
fn the_example_is_the_default_and_names_every_key() {
    assert_eq!(Config::parse(EXAMPLE), Ok(Config::default()));
    // With every key set: comments whose text is `key = value`.
    let set: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(k, _)| !k.contains(' ')) => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let config = Config::parse(&set).expect("the example with every key");
    let written = toml::to_string(&config).expect("written");
    let keys = |text: &str| {
        let mut keys: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = ").map(|(key, _)| key.to_owned()))
            .collect();
        keys.sort();
        keys
    };
    // None is left out: what the code has, the example has.
    assert_eq!(keys(&set), keys(&written));
    assert_eq!(keys(&set).len(), 18);
    // Keys with a default show it.
    let default = toml::to_string(&Config::default()).expect("written");
    for line in default.lines().filter(|line| line.contains(" = ")) {
        assert!(EXAMPLE.contains(&format!("\n# {line}\n")), "{line}");
    }
    assert_eq!(Config::parse(&written), Ok(config));
}

#[test]
fn faults_have_their_place_and_the_cure() {
    let said = fault("[mqtt]\nulr = \"mqtts://a\"\n");
    assert_eq!(said, "2:1: mqtt.ulr is unknown; did you mean url?");
    assert!(fault("[mqt]\n").starts_with("1:2: mqt is unknown; did you mean mqtt?"));
    let said = fault("[home_assistant]\nsomething = 1\n");
    assert!(said.ends_with("unknown; [home_assistant] has discovery, prefix"), "{said}");
    let said = fault("[mqtt]\nurl = \"http://a\"\n");
    assert!(said.starts_with("2:7: mqtt.url: expected a URL like \"mqtts://host\""), "{said}");
    assert!(fault("[mqtt]\nurl = \"mqtts://me:pw@host\"\n").contains("no name or password"));
    assert!(fault("[mqtt]\nkeep_alive = \"1s\"\n").starts_with("2:1: mqtt.keep_alive = \"1s\""));
    assert!(fault("[mqtt]\nkeep_alive = \"soon\"\n").contains("like \"10s\""));
    assert!(fault("[mqtt]\nkeep_alive = 30\n").contains("mqtt.keep_alive"));
    assert!(fault("[mqtt]\nkey = \"k\"\n").contains("mqtt.certificate as well"));
    assert!(fault("[mqtt]\nurl = \"mqtt://a\"\nca = \"c\"\n").contains("no TLS"));
    assert!(fault("[mqtt]\nprefix = \"a/#\"\n").contains("beginning of a topic"));
    assert!(fault("[mqtt]\nprefix = \"/a\"\n").contains("beginning of a topic"));
    assert!(fault("[webhook]\nurl = \"https://a/b\"\n").contains("secret_file"));
    assert!(fault("[home_assistant]\ndiscovery = \"no\"\n").contains("true or false"));
    assert!(fault("a = [").contains("not valid TOML"));
}

#[test]
fn urls_are_read_as_they_are_written() {
    for (text, shown) in [
        ("mqtts://a.example", "mqtts://a.example:8883"),
        ("mqtt://a:1/", "mqtt://a:1"),
        ("mqtt://[::1]", "mqtt://[::1]:1883"),
    ] {
        let url: MqttUrl = text.parse().expect(text);
        assert_eq!(url.to_string(), shown);
        assert_eq!(url.to_string().parse(), Ok(url));
    }
    assert!("mqtt://[::1]".parse::<MqttUrl>().expect("a URL").local());
    let url: HttpUrl = "https://a/b?c=d".parse().expect("a URL");
    assert_eq!(
        (url.path.as_str(), url.port, url.to_string().as_str()),
        ("/b?c=d", 443, "https://a")
    );
    let url: HttpUrl = "http://localhost:8080".parse().expect("a URL");
    assert_eq!((url.path.as_str(), url.authority().as_str()), ("/", "localhost:8080"));
    for wrong in [
        "https://",
        "https://a b/",
        "https://a/b c",
        "https://a:0/",
        "https://a/\u{e9}",
        "ftp://a",
        "https://[a]/",
        "https://a:b/",
    ] {
        assert!(wrong.parse::<HttpUrl>().is_err(), "{wrong}");
    }
}

#[test]
fn likely_mistakes_are_named() {
    assert!(Config::default().advice()[0].contains("nothing is linked"));
    let config = Config::parse("[mqtt]\nurl = \"mqtt://broker\"\n").expect("read");
    assert!(config.advice()[0].contains("no TLS"), "{:?}", config.advice());
    let config = Config::parse("[mqtt]\nurl = \"mqtt://127.0.0.1\"\n").expect("read");
    assert!(config.advice().is_empty());
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), name in "[a-z_]{0,12}", value in any::<String>()) {
        let _ = Config::parse(&text);
        let _ = Config::parse(&format!("[mqtt]\n{name} = {value:?}\n"));
        let _ = value.parse::<MqttUrl>();
        let _ = format!("https://{value}").parse::<HttpUrl>();
    }

    #[test]
    fn times_read_back(millis in 0u64..10_000_000) {
        let time = Duration::from_millis(millis);
        prop_assert_eq!(time::parse(&time::text(time)), Some(time));
    }
}
