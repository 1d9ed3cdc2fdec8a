//! Compares the page and the plots of a small set of people with those in `data/report`.
//! FACELATCH_UPDATE=1 writes them again.

use facelatch::vision::embed::Embedding;
use facelatch_tools::measure::identification::Settings;
use facelatch_tools::measure::report::open::measure;
use facelatch_tools::measure::report::subjects::{Face, Subjects};
use facelatch_tools::measure::report::{Data, FORMAT, Report, closed, figures, html};
use std::path::Path;

/// If set, golden files are written again.
const UPDATE_VARIABLE: &str = "FACELATCH_UPDATE";

/// Compares with a golden file; on a difference, says how to look at it.
fn held(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report").join(name);
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        std::fs::write(&path, got).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("a golden file");
    if let Some((at, (got, expected))) =
        got.lines().zip(expected.lines()).enumerate().find(|(_, (got, expected))| got != expected)
    {
        panic!(
            "{name} line {}:\n  {got}\ninstead of\n  {expected}\n\
             {UPDATE_VARIABLE}=1 writes it again; look at the difference",
            at + 1
        );
    }
    assert_eq!(got.lines().count(), expected.lines().count(), "{name}");
}

/// Eight people on a circle with four photos each; the last two are close together.
fn people() -> Subjects {
    let faces = (0..32u16)
        .map(|at| {
            let (person, photo) = (at / 4, at % 4);
            let direction = if person == 7 { 6.55 } else { f64::from(person) };
            let angle = direction * 0.7 + (f64::from(photo) - 1.5) * 0.11 * (1.0 + direction / 9.0);
            let values = [angle.cos() as f32, angle.sin() as f32, 0.4, 0.0];
            Face {
                name: format!("{person}/photo {photo}.png"),
                person: person.into(),
                group: Some((person % 2).into()),
                // One photo shows no face.
                embedding: (at != 9).then(|| Embedding::normalized(&values)),
            }
        })
        .collect();
    let mut people: Vec<String> = (0..8).map(|person| format!("Person {person}")).collect();
    people[6] = "<script>alert(\"6\")</script> & \u{7}'s".to_owned();
    Subjects { people, groups: vec!["even".to_owned(), "odd <b>".to_owned()], faces }
}

fn open_report() -> Report {
    let subjects = people();
    let settings = Settings { enrolled: 1, outside: 0.5, seed: 1 };
    let all = subjects.compare("made up").expect("comparisons");
    let open = measure(&subjects, &all, None, "made up", &settings).expect("figures");
    Report {
        format: FORMAT,
        model: "toy".to_owned(),
        tools: "0.0.0".to_owned(),
        data: Data {
            name: "made up".to_owned(),
            sha256: "0".repeat(64),
            people: 8,
            photos: 32,
            photos_with_a_face: 31,
            no_face: vec!["2/photo 1.png".to_owned()],
            unreadable: vec![],
        },
        closed: None,
        open: Some(open),
    }
}

#[test]
fn an_open_set_is_told_as_before() {
    let report = open_report();
    held("open.html", &html::page(&report, None));
    for picture in figures::pictures(&report) {
        held(&format!("{}.svg", picture.name), &picture.svg_file());
    }
}

#[test]
fn a_closed_set_is_told_as_before() {
    let people: Vec<String> = (0..6).map(|person| format!("Person {person}")).collect();
    let labels: Vec<usize> = (0..30).map(|photo| photo % 6).collect();
    let logits: Vec<Vec<f32>> = labels
        .iter()
        .enumerate()
        .map(|(photo, label)| {
            let mut row: Vec<f32> = (0..6).map(|at| ((photo * 7 + at * 3) % 5) as f32).collect();
            row[*label] += 2.5;
            row
        })
        .collect();
    let report = Report {
        closed: Some(closed::measure(&logits, &labels, &people).expect("figures")),
        open: None,
        ..open_report()
    };
    held("closed.html", &html::page(&report, None));
    let pictures = figures::pictures(&report);
    assert_eq!(pictures.len(), 1);
    held("confusion.svg", &pictures[0].svg_file());
}

#[test]
fn a_page_needs_nothing_else_and_no_name_breaks_it() {
    let report = open_report();
    let with = html::page(&report, Some(&|_| Some(b"\x89PNG".to_vec())));
    let without = html::page(&report, None);
    for page in [&with, &without] {
        for forbidden in ["<script", "http://", "https://", "url(", "@import", "<link", "odd <b>"] {
            let rest = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("&lt;script&gt;"));
        // Every opened element is closed.
        for element in ["table", "tr", "td", "th", "figure", "svg", "div", "p", "h2", "main"] {
            let count = |text: &str| page.matches(text).count();
            let opened = count(&format!("<{element}>")) + count(&format!("<{element} "));
            assert_eq!(opened, count(&format!("</{element}>")), "{element}");
        }
        // Each picture has a description, and each identifier occurs once.
        assert_eq!(page.matches("<svg").count(), page.matches("<desc").count());
        for id in page.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }
    assert!(with.contains("<img src=\"data:image/png;base64,") && with.contains("alt=\"Person"));
    assert!(!without.contains("<img"));
}

#[test]
fn the_same_photos_give_the_same_bytes() {
    let json = || serde_json::to_string(&open_report()).expect("JSON");
    assert_eq!(json(), json());
}
