//! The report as one self-contained HTML page: no script, and no font or picture from
//! elsewhere. All names are escaped.

use super::breakdown::{Person, WorstPair};
use super::closed::Closed;
use super::figures::{self, MOST_DRAWN};
use super::open::{Open, RATES};
use super::{Data, Report};
use crate::measure::chart::{Picture, STYLE, escape};
use crate::measure::groups::LEAST_EXPECTED;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write;

/// Largest number of rows of a table in the page; `report.json` has all rows.
const ROWS: usize = 60;

/// Style sheet of the page.
const PAGE_STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:72rem;\
background:#fff;color:#1b1f24}\
h1,h2{line-height:1.2}\
h2{margin-top:2.5rem;border-bottom:1px solid #8884}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;margin:1rem 0}\
caption{text-align:left;font-weight:bold;padding:.25rem 0}\
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884;\
font-variant-numeric:tabular-nums}\
th:first-child,td:first-child,td.word,th.word{text-align:left}\
figure{margin:1rem 0;display:inline-block;max-width:100%;vertical-align:top}\
svg.plot{max-width:100%;height:auto}\
.pair{margin:.5rem;width:15rem}.pair img{width:7rem;height:7rem;border-radius:4px}\
.wrong{font-weight:bold}\
.pair figcaption{font-size:.85rem;overflow-wrap:anywhere}\
@media (prefers-color-scheme:dark){body{background:#14171b;color:#e4e7eb}}";

/// Function from a photo's index to the PNG file of its aligned face.
pub type Faces<'f> = dyn Fn(usize) -> Option<Vec<u8>> + 'f;

/// Renders the page. Without `faces` it has no face pictures.
pub fn page(report: &Report, faces: Option<&Faces>) -> String {
    let title = format!("{} on {}", report.model, report.data.name);
    let mut page = Page(String::new());
    page.push(&format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none';img-src data:;style-src 'unsafe-inline'\">\n\
         <title>{0}</title>\n<style>{PAGE_STYLE}{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{0}</h1>\n",
        escape(&title)
    ));
    summary(&mut page, report);
    let pictures = figures::pictures(report);
    if let Some(closed) = &report.closed {
        closed_set(&mut page, closed, &pictures);
    }
    if let Some(open) = &report.open {
        open_set(&mut page, open, &pictures);
        worst(&mut page, open, faces);
        people(&mut page, &open.people);
    }
    left_out(&mut page, &report.data);
    page.paragraph(&format!(
        "Made by facelatch-tools {}. report.json has the complete figures.",
        report.tools
    ));
    page.push("</main>\n</body>\n</html>\n");
    page.0
}

/// The HTML written so far.
struct Page(String);

impl Page {
    fn push(&mut self, html: &str) {
        self.0.push_str(html);
    }

    fn heading(&mut self, text: &str) {
        self.push(&format!("<h2>{}</h2>\n", escape(text)));
    }

    fn paragraph(&mut self, text: &str) {
        self.push(&format!("<p>{}</p>\n", escape(text)));
    }

    fn picture(&mut self, pictures: &[Picture], name: &str) {
        if let Some(picture) = pictures.iter().find(|picture| picture.name == name) {
            self.push(&format!("<figure>\n{}\n</figure>\n", picture.svg()));
        }
    }

    /// Adds a table; the first cell of each row is its header. Column names that begin with
    /// `=` mark columns of text, which are left-aligned.
    fn table(&mut self, caption: &str, columns: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        let word = |column: usize| match columns.get(column) {
            Some(name) if name.starts_with('=') => " class=\"word\"",
            _ => "",
        };
        let mut html = format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\">\n<table>\n\
             <caption>{0}</caption>\n<thead><tr>",
            escape(caption)
        );
        // Writing into a string cannot fail.
        for (column, name) in columns.iter().enumerate() {
            let name = escape(name.trim_start_matches('='));
            let _ = write!(html, "<th scope=\"col\"{}>{name}</th>", word(column));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in rows.iter().take(ROWS) {
            html.push_str("<tr>");
            for (column, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                let _ = match column {
                    0 => write!(html, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(html, "<td{}>{cell}</td>", word(column)),
                };
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n</table>\n</div>\n");
        self.push(&html);
        if rows.len() > ROWS {
            self.paragraph(&format!("{} more rows are in report.json.", rows.len() - ROWS));
        }
    }
}

fn summary(page: &mut Page, report: &Report) {
    let data = &report.data;
    let mut rows = vec![
        row(["Model", &report.model]),
        row(["Data", &format!("{}, sha256 {}", data.name, data.sha256)]),
        row(["People", &data.people.to_string()]),
        row([
            "Photos",
            &format!("{}, of which {} show a face", data.photos, data.photos_with_a_face),
        ]),
    ];
    if let Some(closed) = &report.closed {
        let [low, high] = closed.top1_interval;
        rows.push(row([
            "Top-1 accuracy",
            &format!("{} (95 %: {} to {})", percent(closed.top1), percent(low), percent(high)),
        ]));
        rows.push(row(["Top-5 accuracy", &percent(closed.top5)]));
        rows.push(row([
            "Loss",
            &format!("{:.4} (by chance: {:.4})", closed.loss, closed.loss_of_chance),
        ]));
    }
    if let Some(open) = &report.open {
        if let Some(protocol) = &open.protocol {
            rows.push(row([
                "Accuracy, LFW protocol",
                &format!(
                    "{} ± {:.2} over {} folds, {} pairs",
                    percent(protocol.accuracy),
                    protocol.accuracy_sd * 100.0,
                    protocol.folds,
                    protocol.pairs
                ),
            ]));
            rows.push(row(["EER, LFW protocol", &percent(protocol.eer)]));
        }
        let verification = &open.verification;
        let reference = &verification.reference;
        rows.push(row(["EER, all pairs of photos", &percent(verification.eer)]));
        rows.push(row([
            &format!("TAR at FAR {:.0e}", reference.far),
            &format!("{}{}", percent(reference.tar), within(reference.interval)),
        ]));
        if let Some(point) = open.identification.as_ref().and_then(|found| found.fnir.last()) {
            rows.push(row([
                &format!("FNIR at FPIR {:.0e}", point.fpir),
                &format!("{}{}", percent(point.fnir), within(point.interval)),
            ]));
        }
        if let Some(figures) = &open.likelihood {
            rows.push(row(["Cllr", &format!("{:.4} bits", figures.line.cllr)]));
        }
    }
    page.table("Summary", &["Item", "=Value"], &rows);
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

fn closed_set(page: &mut Page, closed: &Closed, pictures: &[Picture]) {
    page.heading("Closed set: classification of known people");
    page.paragraph(
        "All people are in the training data. The logits are computed without the margin, \
         because adding it requires the label that is to be predicted. The interval treats photos \
         as independent. Photos of one person are not quite independent, so the interval may be \
         too narrow.",
    );
    page.picture(pictures, "confusion");
    let mut confused: Vec<_> =
        closed.confusion.iter().filter(|cell| cell.person != cell.taken_for).collect();
    confused.sort_by_key(|cell| std::cmp::Reverse(cell.photos));
    let name = |label: usize| closed.names.get(label).cloned().unwrap_or_default();
    let rows: Vec<Vec<String>> = confused
        .iter()
        .map(|cell| vec![name(cell.person), name(cell.taken_for), cell.photos.to_string()])
        .collect();
    if closed.classes > MOST_DRAWN {
        page.paragraph("There are too many people to draw the confusion matrix.");
    }
    page.table("Confusions, most frequent first", &["Person", "=Classified as", "Photos"], &rows);
    let rows: Vec<Vec<String>> = closed
        .people
        .iter()
        .map(|person| {
            vec![
                person.person.clone(),
                person.photos.to_string(),
                person.right.to_string(),
                percent(person.right as f64 / person.photos.max(1) as f64),
                person.others.to_string(),
                person.mistaken_for.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let columns =
        ["Person", "Photos", "Correct", "Recall", "False positives", "=Most frequent error"];
    page.table("Each person", &columns, &rows);
}

fn open_set(page: &mut Page, open: &Open, pictures: &[Picture]) {
    let verification = &open.verification;
    page.heading("Verification: do two photos show the same person?");
    page.paragraph(&format!(
        "All pairs of photos were compared: {} genuine pairs (one person) and {} impostor pairs \
         (two people). A pair is accepted if its similarity reaches the threshold. {} genuine \
         pairs with a missing face count as rejected. The 95 % intervals come from a bootstrap \
         over people with all their photos. A false accept rate at which fewer than 30 impostor \
         pairs may pass is marked (few) and is not reliable.",
        verification.genuine, verification.impostor, verification.lost
    ));
    let rows: Vec<Vec<String>> = verification
        .tar
        .iter()
        .map(|point| {
            vec![
                format!("{:.0e}{}", point.far, if point.impostors < 30 { " (few)" } else { "" }),
                percent(point.tar),
                interval(point.interval),
                format!("{:.4}", point.threshold),
                point.impostors.to_string(),
            ]
        })
        .collect();
    let columns = ["FAR", "TAR", "95 % interval", "Threshold", "Impostor pairs allowed"];
    page.table("True accept rate by false accept rate", &columns, &rows);
    if !verification.not_measurable.is_empty() {
        let rates: Vec<String> =
            verification.not_measurable.iter().map(|far| format!("{far:.0e}")).collect();
        page.paragraph(&format!(
            "Not measurable, for lack of impostor pairs: {} (of {} rates).",
            rates.join(", "),
            RATES.len()
        ));
    }
    for name in ["roc", "det", "similarities"] {
        page.picture(pictures, name);
    }
    let rows: Vec<Vec<String>> = open
        .thresholds
        .iter()
        .map(|at| {
            vec![
                format!("{:.1e}{}", at.far, if at.extrapolated { " (extrapolated)" } else { "" })
                    .replace(".0e", "e"),
                format!("{:.4}", at.threshold),
                format!("{:.1e}", at.measured_far),
                percent(at.tar),
            ]
        })
        .collect();
    page.table(
        "Thresholds of the manifest on these people",
        &["Nominal FAR", "Threshold", "Measured FAR", "Measured TAR"],
        &rows,
    );
    if let Some(found) = &open.identification {
        page.heading("Identification: search in a gallery");
        page.paragraph(&format!(
            "{} people are enrolled with {} photos. The probes are {} of their other photos, and \
             {} photos of {} people who are not enrolled. A search is a false negative if the \
             right person is not the best match or is below the threshold. It is a false positive \
             if it finds a match for a person who is not enrolled (ISO/IEC 19795-1). Without a \
             threshold the right person is the best match in {} of the searches (rank-1 rate).",
            found.enrolled,
            found.templates,
            found.mated,
            found.non_mated,
            found.outside,
            percent(found.rank_one)
        ));
        let rows: Vec<Vec<String>> = found
            .fnir
            .iter()
            .map(|point| {
                vec![
                    format!("{:.0e}", point.fpir),
                    percent(point.fnir),
                    interval(point.interval),
                    format!("{:.4}", point.threshold),
                ]
            })
            .collect();
        let columns = ["FPIR", "FNIR", "95 % interval", "Threshold"];
        page.table("False negative by false positive identification rate", &columns, &rows);
        page.picture(pictures, "identification");
    }
    if let Some(figures) = &open.likelihood {
        page.heading("Likelihood ratio of a similarity");
        let line = &figures.line;
        let others = figures.cllr_others.map_or(String::new(), |cost| {
            format!(" A line fitted on one half of the people costs {cost:.4} bits on the other.")
        });
        page.paragraph(&format!(
            "The natural logarithm of the likelihood ratio is {:.3} · similarity {} {:.3} between \
             similarities of {:.3} and {:.3}, and constant beyond them. Its cost (Cllr) is \
             {:.4} bits. Uninformative ratios cost 1 bit, and no increasing function of the \
             similarity costs less than {:.4} bits.{others} The line was fitted on the same \
             photos, so the first cost is too optimistic. Genuine and impostor pairs have the same \
             total weight. Where the dots are above the line, the evidence for the same person is \
             stronger than the line claims.",
            line.slope,
            if line.offset < 0.0 { "−" } else { "+" },
            line.offset.abs(),
            line.lowest,
            line.highest,
            line.cllr,
            figures.cllr_least
        ));
        page.picture(pictures, "likelihood");
    }
    groups(page, open);
}

fn groups(page: &mut Page, open: &Open) {
    if open.groups.is_empty() {
        return;
    }
    let reference = &open.verification.reference;
    page.heading("Groups");
    page.paragraph(&format!(
        "All groups are measured at the same threshold, {:.4} (FAR {:.0e} over all people).",
        reference.threshold, reference.far
    ));
    let rows: Vec<Vec<String>> = open
        .groups
        .iter()
        .map(|group| {
            let of = |count: usize, share: String| {
                if count > 0 { share } else { "not measured".to_owned() }
            };
            vec![
                group.group.clone(),
                group.people.to_string(),
                group.photos.to_string(),
                group.genuine.to_string(),
                of(group.genuine, percent(group.tar)),
                group.impostor.to_string(),
                of(group.impostor, format!("{:.1e}", group.far)),
                of(group.genuine.min(group.impostor), percent(group.eer)),
            ]
        })
        .collect();
    let columns =
        ["Group", "People", "Photos", "Genuine pairs", "TAR", "Impostor pairs", "FAR", "EER"];
    page.table("Within groups", &columns, &rows);
    rates_of_groups(page, open);
    let rows: Vec<Vec<String>> = open
        .between
        .iter()
        .filter(|pair| pair.impostor > 0)
        .map(|pair| {
            let names = pair.groups.join(" and ");
            vec![names, pair.impostor.to_string(), format!("{:.1e}", pair.far)]
        })
        .collect();
    page.table("Between groups", &["Groups", "Impostor pairs", "FAR"], &rows);
}

/// Rates of each group at each threshold, the worst one marked.
fn rates_of_groups(page: &mut Page, open: &Open) {
    page.paragraph(&format!(
        "At each threshold, the false accept rate within a group is compared with the rate that \
         the threshold states. A group with fewer than {LEAST_EXPECTED} expected false accepts has \
         too few pairs to be judged, unless its excess is beyond doubt. The 95 % intervals are \
         Wilson's. Pairs that share a person are not independent, so false accepts count once for \
         people who appear in several of them, and genuine pairs count once per person. The worst \
         group has the highest rate in proportion to the stated one."
    ));
    let worst = open.worst_group.as_ref();
    match worst {
        Some(worst) => page.paragraph(&format!("Worst group: {worst}.")),
        None => page.paragraph("No group has enough pairs to be judged."),
    }
    let mut rows = vec![];
    for group in &open.groups {
        for rate in &group.rates {
            let stated = format!("{:e}", rate.stated);
            let is_worst =
                worst.is_some_and(|worst| worst.name == group.group && worst.stated == stated);
            let mark = match (is_worst, rate.enough) {
                (true, _) => "worst",
                (false, true) => "",
                (false, false) => "too few pairs",
            };
            let [low, high] = rate.far_interval;
            rows.push(vec![
                group.group.clone(),
                format!("{stated}{}", if rate.extrapolated { " (extrapolated)" } else { "" }),
                format!("{:.4}", rate.threshold),
                format!("{:.1e}", rate.far),
                format!("{low:.1e} to {high:.1e}"),
                rate.tar.map_or("not measured".to_owned(), percent),
                rate.tar_interval.map_or(String::new(), |known| interval(Some(known))),
                mark.to_owned(),
            ]);
        }
    }
    let columns = [
        "Group",
        "Stated FAR",
        "Threshold",
        "FAR",
        "95 % interval",
        "TAR",
        "95 % interval",
        "=Note",
    ];
    page.table("Groups at each threshold", &columns, &rows);
}

fn worst(page: &mut Page, open: &Open, faces: Option<&Faces>) {
    page.heading("Worst pairs");
    let reference = &open.verification.reference;
    page.paragraph(&format!(
        "Pairs that are wrong at the threshold {:.4} (FAR {:.0e}) are marked. Check the photos \
         first: the label may be wrong, not the model.",
        reference.threshold, reference.far
    ));
    if faces.is_none() {
        page.paragraph("This report was made without face pictures.");
    }
    let kinds = [
        ("Most similar impostor pairs (one per two people)", "false accept", &open.false_accepts),
        ("Least similar genuine pairs", "false reject", &open.false_rejects),
    ];
    for (caption, fault, pairs) in kinds {
        match faces {
            Some(faces) => {
                page.push(&format!("<h3>{}</h3>\n", escape(caption)));
                for pair in pairs {
                    page.push(&face_pair(pair, fault, faces));
                }
            }
            None => {
                let rows: Vec<Vec<String>> = pairs
                    .iter()
                    .map(|pair| {
                        let fault = if pair.wrong { fault } else { "" };
                        let similarity = format!("{:.4}", pair.similarity);
                        let [first, second] = pair.photos.clone();
                        vec![first, second, similarity, fault.to_owned()]
                    })
                    .collect();
                page.table(caption, &["Photo 1", "=Photo 2", "Similarity", "=Error"], &rows);
            }
        }
    }
}

fn face_pair(pair: &WorstPair, fault: &str, faces: &Faces) -> String {
    let mut html = "<figure class=\"pair\">".to_owned();
    for ((face, person), photo) in pair.faces.iter().zip(&pair.people).zip(&pair.photos) {
        if let Some(png) = faces(*face) {
            let _ = write!(
                html,
                "<img src=\"data:image/png;base64,{}\" width=\"112\" height=\"112\" alt=\"{}\" title=\"{}\">",
                BASE64_STANDARD.encode(png),
                escape(person),
                escape(photo)
            );
        }
    }
    let [first, second] = &pair.people;
    let who = if first == second { first.clone() } else { format!("{first} and {second}") };
    let told =
        if pair.wrong { format!(" <span class=\"wrong\">{fault}</span>") } else { "".into() };
    let _ = writeln!(
        html,
        "<figcaption>{}: {:.4}{told}</figcaption></figure>",
        escape(&who),
        pair.similarity
    );
    html
}

fn people(page: &mut Page, people: &[Person]) {
    page.heading("Each person");
    page.paragraph("At the same threshold, people with the most errors first.");
    let similarity =
        |value: Option<f32>| value.map_or(String::new(), |value| format!("{value:.4}"));
    let rows: Vec<Vec<String>> = people
        .iter()
        .map(|person| {
            vec![
                person.person.clone(),
                person.photos.to_string(),
                person.no_face.to_string(),
                person.genuine.to_string(),
                person.false_rejects.to_string(),
                similarity(person.least_alike),
                person.false_accepts.to_string(),
                similarity(person.most_alike),
                person.most_alike_to.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let columns = [
        "Person",
        "Photos",
        "Without a face",
        "Genuine pairs",
        "False rejects",
        "Lowest genuine",
        "False accepts",
        "Highest impostor",
        "=Most similar person",
    ];
    page.table("Errors by person", &columns, &rows);
}

fn left_out(page: &mut Page, data: &Data) {
    if data.no_face.is_empty() && data.unreadable.is_empty() {
        return;
    }
    page.heading("Photos that could not be used");
    let kinds = [("no face", &data.no_face), ("unreadable", &data.unreadable)];
    let rows: Vec<Vec<String>> = kinds
        .into_iter()
        .flat_map(|(fault, photos)| photos.iter().map(|photo| row([photo, fault])))
        .collect();
    page.table("Photos without a face, or unreadable", &["Photo", "=Fault"], &rows);
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn interval(interval: Option<[f64; 2]>) -> String {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    interval.map_or("not known".to_owned(), |[low, high]| {
        format!("{} to {} %", percent(low), percent(high))
    })
}

fn within(known: Option<[f64; 2]>) -> String {
    if known.is_some() { format!(" (95 %: {})", interval(known)) } else { String::new() }
}
