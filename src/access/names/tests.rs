use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, compose, decompose_canonical};

/// Writes `unicode.bin` from crates that have whole tables.
fn file() -> Vec<u8> {
    let all = || '\0'..=char::MAX;
    let code = |letter: char| u32::from(letter).to_be_bytes()[1..].to_vec();
    let mut texts: Vec<u8> = Vec::new();
    let mut known: BTreeMap<String, u16> = BTreeMap::new();
    let mut row = |letter: char, text: String| {
        let at = *known.entry(text.clone()).or_insert_with(|| {
            let at = u16::try_from(texts.len()).expect("room for all texts");
            texts.push(u8::try_from(text.len()).expect("a short text"));
            texts.extend(text.bytes());
            at
        });
        [code(letter), at.to_be_bytes().to_vec()].concat()
    };
    let mut classes: Vec<(u32, u8, u8)> = Vec::new();
    for letter in all() {
        let (at, class) = (u32::from(letter), canonical_combining_class(letter));
        match classes.last_mut() {
            _ if class == 0 => {}
            Some((first, length, last))
                if *last == class && *first + u32::from(*length) == at && *length < u8::MAX =>
            {
                *length += 1;
            }
            _ => classes.push((at, 1, class)),
        }
    }
    let classes: Vec<Vec<u8>> = classes
        .into_iter()
        .map(|(first, length, class)| [&first.to_be_bytes()[1..], &[length, class]].concat())
        .collect();
    let hangul = |letter: char| ('\u{ac00}'..='\u{d7a3}').contains(&letter);
    let (mut decompositions, mut compositions, mut prototypes) = (vec![], vec![], vec![]);
    for letter in all().filter(|letter| !hangul(*letter)) {
        let mut whole = String::new();
        decompose_canonical(letter, |part| whole.push(part));
        if whole == letter.to_string() {
            let skeleton: String = unicode_security::skeleton(&whole).collect();
            if !skeleton.is_empty() && skeleton != whole {
                prototypes.push(row(letter, skeleton));
            }
            continue;
        }
        // All but the last mark compose to a character that takes it.
        let last = whole.pop().expect("a decomposition");
        let rest: Vec<char> = whole.nfc().collect();
        if let [first] = rest[..]
            && compose(first, last) == Some(letter)
        {
            compositions.push([code(first), code(last), code(letter)].concat());
        }
        whole.push(last);
        decompositions.push(row(letter, whole));
    }
    compositions.sort();
    let tables = [classes, decompositions, compositions, prototypes];
    let counts = tables.iter().map(|rows| u16::try_from(rows.len()).expect("few rows"));
    let counts: Vec<u8> = counts.flat_map(u16::to_be_bytes).collect();
    [counts, tables.concat().concat(), texts].concat()
}

#[test]
fn the_tables_are_those_of_crates_that_have_them_whole() {
    let expected = file();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/access/names/unicode.bin");
    if std::env::var_os("FACELATCH_UPDATE").is_some() {
        std::fs::write(path, &expected).expect("written");
    }
    let got = std::fs::read(path).expect("the tables");
    assert!(got == expected, "FACELATCH_UPDATE=1 writes the tables again");
}

#[test]
fn every_character_is_normalized_and_mapped_as_by_those_crates() {
    assert!(tables::versions_hold());
    for letter in '\0'..=char::MAX {
        let text = letter.to_string();
        assert_eq!(tables::class(letter), canonical_combining_class(letter), "{letter:?}");
        assert_eq!(nfc(&text), text.nfc().to_string(), "{letter:?}");
        assert_eq!(normal::nfd(&text), text.nfd().to_string(), "{letter:?}");
        let skeleton: String = unicode_security::skeleton(&text).collect();
        assert_eq!(likeness::skeleton(&text), skeleton, "{letter:?}");
    }
}

#[test]
fn names_in_any_script_are_allowed() {
    for name in [
        "Ada Lovelace",
        "Ada",
        "José Núñez-O'Brien",
        "Nguyễn Thị Minh Khai",
        "Łukasz Żółć",
        "Ξένια",
        "Юлия Щёголева",
        "יְהוֹשֻׁעַ",
        "عَلِيٌّ",
        "علی\u{200c}رضا",
        "क्षितिज",
        "क्\u{200d}षितिज",
        "ශ්\u{200d}රී",
        "สมชาย",
        "山田\u{3000}太郎",
        "김민준",
        "staff-0007",
    ] {
        assert_eq!(checked(name).as_deref(), Ok(nfc(name).as_str()), "{name}");
    }
    assert_eq!(checked(" Ada\t"), Ok("Ada".to_owned()));
    assert_eq!(checked("Jose\u{301}"), Ok("José".to_owned()));
    assert_eq!(checked("\u{1100}\u{1161}\u{11a8}"), Ok("각".to_owned()));
}

#[test]
fn characters_that_cannot_be_seen_are_refused() {
    for hidden in [
        '\u{ad}',
        '\u{34f}',
        '\u{115f}',
        '\u{17b4}',
        '\u{180e}',
        '\u{200b}',
        '\u{200c}',
        '\u{200d}',
        '\u{2060}',
        '\u{2063}',
        '\u{2800}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{ffa0}',
        '\u{fff9}',
        '\u{e0041}',
        '\u{e0101}',
    ] {
        for name in [format!("Ada{hidden}"), format!("{hidden}Ada"), format!("A{hidden}da")] {
            assert_eq!(checked(&name), Err(NameFault::Invisible(hidden)), "{name:?}");
        }
    }
    for hidden in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2067}'] {
        assert_eq!(checked(&format!("A{hidden}da")), Err(NameFault::Direction(hidden)));
    }
    assert_eq!(checked("A\u{2028}da"), Err(NameFault::Invisible('\u{2028}')));
    for shapeless in ['\u{e000}', '\u{fdd0}', '\u{fffd}', '\u{1fffe}', '\u{10ffff}'] {
        assert_eq!(checked(&format!("A{shapeless}da")), Err(NameFault::Shapeless(shapeless)));
    }
    for control in ['\n', '\u{1b}', '\0', '\u{7f}', '\u{85}'] {
        assert_eq!(checked(&format!("A{control}da")), Err(NameFault::Control(control)));
    }
    for (name, mark) in [
        ("\u{301}Ada", '\u{301}'),
        ("Ada \u{301}", '\u{301}'),
        ("Aq\u{301}\u{301}da", '\u{301}'),
        ("Aq\u{321}\u{301}\u{302}\u{303}\u{304}da", '\u{304}'),
    ] {
        assert_eq!(checked(name), Err(NameFault::Mark(mark)), "{name:?}");
    }
    assert_eq!(checked(" \u{a0}"), Err(NameFault::Empty));
    assert_eq!(checked(&"é".repeat(LONGEST)), Ok("é".repeat(LONGEST)));
    assert_eq!(checked(&"e\u{301}".repeat(LONGEST)), Ok("é".repeat(LONGEST)));
    assert_eq!(checked(&"é".repeat(LONGEST + 1)), Err(NameFault::Long));
}

#[test]
fn names_that_people_take_for_each_other_look_alike() {
    for (one, other) in [
        ("Ada", "ada"),
        ("Ada", "\u{410}da"),
        ("Ada", "Ad\u{430}"),
        ("ADA", "\u{430}d\u{430}"),
        ("Ada", "Ada\u{200b}"),
        ("José", "Jose\u{301}"),
        ("JOSÉ", "jose\u{301}"),
        ("Ilan", "llan"),
        ("ILAN", "llan"),
        ("Ilan", "ilan"),
        ("Olga", "0lga"),
        ("olga", "0LGA"),
        ("Marna", "Mama"),
        ("Straße", "STRASSE"),
        ("Ada Lovelace", "Ada\u{a0} Lovelace"),
        ("山田 太郎", "山田\u{3000}太郎"),
        ("ivan", "i\u{307}van"),
        ("Ada", "\u{1d400}da"),
        ("Ada", "Ａｄａ"),
        ("علیرضا", "علی\u{200c}رضا"),
    ] {
        assert!(Likeness::of(one).is_like(&Likeness::of(other)), "{one:?} {other:?}");
        assert_eq!(look_alikes([one, "Grace", other]), [(one, other)]);
    }
    for (one, other) in [
        ("Ada", "Adam"),
        ("Jose", "José"),
        ("Ada Lovelace", "AdaLovelace"),
        ("staff-0001", "staff-0011"),
        ("Anna", "Anne"),
        ("김민준", "김민중"),
        ("山田", "田山"),
    ] {
        assert!(!Likeness::of(one).is_like(&Likeness::of(other)), "{one:?} {other:?}");
    }
    assert_eq!(look_alikes(["Ada", "ada", "ADA"]), [("Ada", "ada"), ("Ada", "ADA")]);
}

#[test]
fn numbers_never_look_alike() {
    let names: Vec<String> = (0..2000).map(|number| format!("staff-{number:04}")).collect();
    assert_eq!(look_alikes(names.iter().map(String::as_str)), []);
}

/// Letters, marks, Hangul parts and anything else.
fn text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        any::<char>(),
        proptest::char::range('\u{300}', '\u{36f}'),
        proptest::char::range('\u{c0}', '\u{24f}'),
        proptest::char::range('\u{5b0}', '\u{5c7}'),
        proptest::char::range('\u{900}', '\u{dff}'),
        proptest::char::range('\u{1100}', '\u{11ff}'),
        proptest::char::range('\u{1e00}', '\u{1fff}'),
        proptest::char::range('\u{ac00}', '\u{d7ff}'),
    ];
    prop::collection::vec(letter, 0..12).prop_map(|letters| letters.into_iter().collect())
}

proptest! {
    #[test]
    fn texts_are_normalized_and_mapped_as_by_those_crates(text in text()) {
        prop_assert_eq!(nfc(&text), text.nfc().to_string());
        prop_assert_eq!(normal::nfd(&text), text.nfd().to_string());
        let skeleton: String = unicode_security::skeleton(&text).collect();
        prop_assert_eq!(likeness::skeleton(&text), skeleton);
    }

    #[test]
    fn a_checked_name_stays_as_it_is_and_shows_every_character(text in text()) {
        if let Ok(name) = checked(&text) {
            prop_assert_eq!(checked(&name), Ok(name.clone()));
            let other = Likeness::of(&text);
            prop_assert!(Likeness::of(&name).is_like(&other));
            prop_assert!(!name.chars().any(|c| c.is_control() || within(&DIRECTION, c)));
        }
    }
}
