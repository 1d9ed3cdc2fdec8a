//! The scenes of a simulation, one after the other on the same site.

use super::broker::{Broker, memory_of};
use super::crowd::{Crowd, GROUP, Present};
use super::door::{Do, Door, Shown};
use super::liar::Liar;
use super::office::SimulatedOffice;
use super::report::Report;
use super::{Options, PREFIX, named};
use crate::mqtt::Settings;
use crate::site::{Clock, Order};
use facelatch_site::{Code, Person};
use serde_json::json;
use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);
/// People whose removal is timed.
const REVOKED: usize = 5;
const DAY_MS: u64 = 86_400_000;

/// The site with its doors.
struct Site<'o> {
    options: &'o Options,
    settings: Settings,
    prefix: String,
    clock: Clock,
    office: SimulatedOffice,
    doors: Vec<Door>,
    crowd: Crowd,
    /// Who should be everywhere.
    present: Present,
    people: VecDeque<Person>,
    report: Report,
    broker: Option<Broker>,
}

/// Plays all scenes and prints the report. Whether all went as it should.
pub(super) fn play(
    options: &Options,
    settings: &Settings,
    broker: Option<Broker>,
) -> Result<bool, String> {
    let clock = Clock::default();
    let office = SimulatedOffice::start(named(settings, "office"), PREFIX, clock.clone())?;
    let prefix = format!("{PREFIX}/{}/fleet/", office.site);
    let mut site = Site {
        options,
        settings: settings.clone(),
        prefix,
        clock,
        office,
        doors: Vec::new(),
        crowd: Crowd::new(options.templates, options.numbers),
        present: Present::default(),
        people: VecDeque::new(),
        report: Report::new(options.json),
        broker,
    };
    if !site.office.wait_settled(Duration::from_secs(30)) {
        return Err("the broker cannot be reached".to_owned());
    }
    site.join_all()?;
    site.enroll_all();
    site.memory();
    site.new_door()?;
    site.one_change()?;
    site.revocations()?;
    site.lies()?;
    site.killed_broker()?;
    site.partition()?;
    site.locked_out_door()?;
    site.withheld()?;
    site.away_for_a_month()?;
    let good = site.report.good();
    let text = std::mem::take(&mut site.report).text();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").map_err(|error| error.to_string())?;
    Ok(good)
}

impl Site<'_> {
    fn patience(&self) -> Duration {
        Duration::from_secs(self.options.patience)
    }

    /// Waits until all of these doors are as wanted; the time that it took since `since`.
    fn wait(
        &mut self,
        what: &str,
        since: Instant,
        doors: &[usize],
        wanted: impl Fn(&Shown) -> bool,
    ) -> Duration {
        let until = since + self.patience();
        let mut waiting: Vec<usize> = doors.to_vec();
        while !waiting.is_empty() {
            waiting.retain(|door| !wanted(&self.doors[*door].shown()));
            if Instant::now() >= until {
                let lagging = waiting.len();
                let first = waiting.first().map(|door| {
                    format!("{:?}", {
                        let shown = self.doors[*door].shown();
                        (shown.present.state(), shown.missing, shown.fault.clone())
                    })
                });
                self.report.fault(format!(
                    "{what}: {lagging} doors are not there yet; should be {:?}, the first has {first:?}",
                    self.present.state()
                ));
                break;
            }
            std::thread::sleep(PAUSE);
        }
        since.elapsed()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.doors.len()).collect()
    }

    /// Waits until these doors have just the people who should be there.
    fn agree(&mut self, what: &str, since: Instant, doors: &[usize]) -> Duration {
        let state = self.present.state();
        self.wait(what, since, doors, move |shown| shown.present.state() == state)
    }

    fn heard(&self) -> u64 {
        self.doors.iter().map(|door| door.shown().heard).sum()
    }

    /// Lets everything come to rest.
    fn rest(&mut self, what: &str) {
        let since = Instant::now();
        let doors = self.all();
        self.agree(what, since, &doors);
        if !self.office.wait_settled(self.patience()) {
            self.report.fault(format!("{what}: the office does not come to rest"));
        }
        self.agree(what, Instant::now(), &doors);
        std::thread::sleep(Duration::from_millis(1_100));
    }

    fn add_door(&mut self, keeps: bool) -> Result<(usize, Code), String> {
        let number = self.doors.len();
        let door = Door::start(
            number,
            self.office.public,
            self.prefix.clone(),
            &self.settings,
            &self.clock,
            keeps,
        )?;
        let code = Code::random().map_err(|error| error.to_string())?;
        self.office.order(Order::Admit {
            code: code.to_string(),
            door: format!("door {number}"),
            groups: vec![GROUP.to_owned()],
            writes: true,
        })?;
        door.tell(Do::Heal);
        self.doors.push(door);
        Ok((number, code))
    }

    fn join_all(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let mut codes = Vec::new();
        for number in 0..usize::from(self.options.doors) {
            codes.push(self.add_door(number < 4)?.1);
        }
        let doors = self.all();
        self.wait("connect", began, &doors, |shown| shown.fetched);
        for (door, code) in self.doors.iter().zip(codes) {
            door.tell(Do::Join(code));
        }
        let time = self.wait("join", began, &doors, |shown| shown.admitted && shown.fetched);
        self.rest("join");
        let what = format!("{} doors connected and joined in", doors.len());
        self.report.seconds(&what, "join_s", time);
        Ok(())
    }

    /// Enrols people at a door.
    fn enroll(&mut self, door: usize, count: usize) {
        let people: Vec<Person> = (0..count).map(|_| self.crowd.next()).collect();
        for person in &people {
            self.present.put(person.id, &person.name);
        }
        self.people.extend(people.iter().cloned());
        self.doors[door].tell(Do::Enroll(people));
    }

    /// Removes people at a door.
    fn remove(&mut self, door: usize, count: usize) {
        for _ in 0..count {
            let Some(person) = self.people.pop_front() else { return };
            self.present.remove(person.id);
            self.doors[door].tell(Do::Remove(person.id));
        }
    }

    fn enroll_all(&mut self) {
        let (began, before) = (Instant::now(), self.heard());
        self.enroll(0, self.options.people as usize);
        let doors = self.all();
        let time = self.agree("enrol", began, &doors);
        let what =
            format!("{} people enrolled at one door are at all doors after", self.options.people);
        self.report.seconds(&what, "enroll_all_s", time);
        self.rest("enrol");
        let heard = (self.heard() - before) / (doors.len() as u64 * u64::from(self.options.people));
        self.report.bytes("  bytes heard per door and person", "bytes_person", heard);
    }

    fn memory(&mut self) {
        if let Some(bytes) = self.broker.as_ref().and_then(Broker::memory) {
            self.report.bytes(
                "memory of the broker with all doors and people",
                "memory_broker",
                bytes,
            );
        }
        if let Some(bytes) = memory_of("self") {
            let each = bytes / self.doors.len() as u64;
            self.report.bytes(
                "memory of the simulation per door, office included",
                "memory_door",
                each,
            );
        }
    }

    fn new_door(&mut self) -> Result<(), String> {
        let (number, code) = self.add_door(false)?;
        self.wait("connect", Instant::now(), &[number], |shown| shown.fetched);
        let began = Instant::now();
        self.doors[number].tell(Do::Join(code));
        let admitted = self.wait("admit", began, &[number], |shown| shown.admitted);
        let time = self.agree("new door", began, &[number]);
        let lease = self.wait("lease", began, &[number], |shown| shown.lease_until_ms > 0);
        self.report.seconds(
            "a new door is admitted after its code was typed in",
            "new_door_admitted_s",
            admitted,
        );
        self.report.seconds("  and has everybody after", "new_door_all_s", time);
        self.report.seconds("  and its lease after", "new_door_lease_s", lease);
        self.rest("new door");
        Ok(())
    }

    fn one_change(&mut self) -> Result<(), String> {
        let (began, before) = (Instant::now(), self.heard());
        self.enroll(1, 1);
        let doors = self.all();
        let time = self.agree("one person", began, &doors);
        self.report.seconds(
            "one person enrolled at a door is at all doors after",
            "enroll_one_s",
            time,
        );
        self.rest("one person");
        let heard = (self.heard() - before) / doors.len() as u64;
        self.report.bytes("  bytes heard per door, manifest included", "bytes_change", heard);
        let (began, before) = (Instant::now(), self.heard());
        self.remove(2.min(doors.len() - 1), 1);
        let time = self.agree("one removal", began, &doors);
        self.report.seconds(
            "one person removed at a door is gone at all doors after",
            "remove_one_s",
            time,
        );
        self.rest("one removal");
        let heard = (self.heard() - before) / doors.len() as u64;
        self.report.bytes("  bytes heard per door", "bytes_removal", heard);
        Ok(())
    }

    fn revocations(&mut self) -> Result<(), String> {
        let doors = self.all();
        let mut all = Vec::new();
        let before = self.heard();
        for _ in 0..REVOKED {
            let Some(person) = self.people.pop_front() else { break };
            let person = person.id;
            self.present.remove(person);
            let began = Instant::now();
            self.office.order(Order::RevokePerson { person: person.to_string() })?;
            self.wait("revocation", began, &doors, |shown| !shown.present.contains(person));
            let times = |shown: &Shown| shown.removed.get(&person).map(|at| *at - began);
            let mut times: Vec<Duration> =
                self.doors.iter().filter_map(|door| times(&door.shown())).collect();
            times.sort_unstable();
            all.push(times);
        }
        let last = all.iter().filter_map(|times| times.last()).max().copied().unwrap_or_default();
        let mut every: Vec<Duration> = all.into_iter().flatten().collect();
        every.sort_unstable();
        let median = every.get(every.len() / 2).copied().unwrap_or_default();
        self.report.seconds(
            &format!(
                "a person locked out by the office is out, median of {REVOKED} times all doors"
            ),
            "revoke_median_s",
            median,
        );
        self.report.seconds("  at the last door", "revoke_last_s", last);
        self.rest("revocation");
        let heard = (self.heard() - before) / (doors.len() * REVOKED) as u64;
        self.report.bytes(
            "  bytes heard per door, list and lease included",
            "bytes_revocation",
            heard,
        );
        Ok(())
    }

    /// Repeats, changes, displaces and empties records.
    fn lies(&mut self) -> Result<(), String> {
        let mut liar = Liar::start(&self.settings, &self.prefix)?;
        liar.listen(Duration::from_secs(2));
        // Something newer than what the liar will repeat.
        self.remove(0, 2);
        self.enroll(1, 2);
        self.rest("before the lies");
        liar.listen(Duration::from_millis(500));
        let refused = |site: &Self| -> Vec<u64> {
            site.doors.iter().map(|door| door.shown().refused).collect()
        };
        let before = refused(self);
        let state = self.present.state();
        let old: Vec<(String, Vec<u8>)> = liar
            .first
            .iter()
            .filter(|(topic, first)| liar.newest.get(*topic) != Some(first))
            .map(|(topic, first)| (topic.clone(), first.clone()))
            .collect();
        let truth: Vec<(String, Vec<u8>)> =
            liar.newest.iter().map(|(topic, bytes)| (topic.clone(), bytes.clone())).collect();
        let repeated = old.len();
        for (topic, bytes) in old {
            liar.publish(&topic, bytes);
        }
        let step = (truth.len() / 100).max(1);
        let mut changed = 0;
        for (at, (topic, bytes)) in truth.iter().enumerate().step_by(step) {
            let mut bytes = bytes.clone();
            let place = at * 31 % bytes.len();
            match at / step % 3 {
                0 => bytes[place] ^= 0x10,
                1 => bytes.truncate(place),
                // The record of another topic.
                _ => bytes.clone_from(&truth[(at + step) % truth.len()].1),
            }
            liar.publish(topic, bytes);
            changed += 1;
        }
        // Until every door has heard lies, and none came for a while.
        let until = Instant::now() + self.patience();
        let (mut moved, mut last, mut quiet) = (false, before.clone(), Instant::now());
        while Instant::now() < until {
            moved |= self.doors.iter().any(|door| door.shown().present.state() != state);
            // What the broker answers must be read, or it takes no more.
            liar.listen(PAUSE * 10);
            let now = refused(self);
            if now != last {
                (last, quiet) = (now, Instant::now());
            }
            let all = last.iter().zip(&before).all(|(now, before)| now > before);
            if all && quiet.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
        if moved {
            self.report.fault("forged or repeated records changed who is at a door".to_owned());
        }
        let spared = last.iter().zip(&before).filter(|(now, before)| now <= before).count();
        if spared > 0 {
            self.report.fault(format!("{spared} doors heard none of the lies"));
        }
        let count = last.iter().sum::<u64>() - before.iter().sum::<u64>();
        self.report.add(
            "old records repeated, and changed ones forged",
            &format!("{repeated} and {changed}; refused {count} times, changed nobody"),
            "lies",
            json!({"repeated": repeated, "forged": changed, "refused": count, "moved": moved}),
        );
        // Emptied records reach doors that were away only by the office.
        let began = Instant::now();
        let people: Vec<String> = truth
            .iter()
            .map(|(topic, _)| topic.clone())
            .filter(|topic| topic.starts_with(&format!("{}people/", self.prefix)))
            .take(50)
            .collect();
        for topic in &people {
            liar.publish(topic, Vec::new());
        }
        drop(liar);
        let (number, code) = self.add_door(false)?;
        self.wait("connect", Instant::now(), &[number], |shown| shown.fetched);
        self.doors[number].tell(Do::Join(code));
        let time = self.agree("a door after records were emptied", began, &[number]);
        self.report.seconds(
            &format!("a new door has everybody, {} records emptied before, after", people.len()),
            "emptied_s",
            time,
        );
        self.rest("after the lies");
        Ok(())
    }

    /// The broker is killed while changes are on their way, and comes back with older state.
    fn killed_broker(&mut self) -> Result<(), String> {
        if self.broker.is_none() {
            self.report.add(
                "broker killed",
                "not played: --broker names it",
                "killed",
                json!(null),
            );
            return Ok(());
        }
        let count = (self.people.len() / 10).clamp(5, 200);
        self.enroll(1, count);
        self.remove(0, count / 2);
        std::thread::sleep(Duration::from_millis(30));
        if let Some(broker) = &mut self.broker {
            broker.kill();
        }
        // Doors go on without it.
        self.enroll(2.min(self.doors.len() - 1), 3);
        self.remove(1, 3);
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        if let Some(broker) = &mut self.broker {
            broker.start_again()?;
        }
        let doors = self.all();
        let time = self.agree("after the broker was killed", began, &doors);
        let what = format!(
            "broker killed in the middle of {} changes: all doors agree after its start in",
            count + count / 2 + 6
        );
        self.report.seconds(&what, "killed_s", time);
        self.rest("after the broker was killed");
        // The broker has everything again: a new door finds it.
        let (number, code) = self.add_door(false)?;
        self.wait("connect", Instant::now(), &[number], |shown| shown.fetched);
        self.doors[number].tell(Do::Join(code));
        self.agree("a new door after the broker was killed", Instant::now(), &[number]);
        Ok(())
    }

    /// Half of the doors lose their connections while both halves change people.
    fn partition(&mut self) -> Result<(), String> {
        let half = self.doors.len() / 2;
        for door in &self.doors[half..] {
            door.tell(Do::Cut);
        }
        self.enroll(0, 10);
        self.remove(1, 5);
        self.enroll(half, 10);
        self.remove(half, 5);
        std::thread::sleep(Duration::from_secs(2));
        let began = Instant::now();
        for door in &self.doors[half..] {
            door.tell(Do::Heal);
        }
        let doors = self.all();
        let time = self.agree("after a partition", began, &doors);
        self.report.seconds(
            "half of the doors cut off while both halves changed 15 people: all agree in",
            "partition_s",
            time,
        );
        self.rest("after a partition");
        Ok(())
    }

    /// A door is stolen: it is locked out, and everything is sealed with a new key.
    fn locked_out_door(&mut self) -> Result<(), String> {
        let stolen = self.doors.len() - 1;
        self.doors[stolen].tell(Do::Cut);
        std::thread::sleep(Duration::from_millis(200));
        let before = self.heard();
        let began = Instant::now();
        self.office
            .order(Order::RevokeDoor { door: format!("door {stolen}"), distrust_ms: None })?;
        let epoch = self.doors[0].shown().epoch;
        let others: Vec<usize> = (0..stolen).collect();
        let time = self.wait("a new data key", began, &others, |shown| shown.epoch > epoch);
        self.report.seconds(
            "a stolen door locked out: all others have the new key after",
            "rotate_s",
            time,
        );
        if !self.office.wait_settled(self.patience()) {
            self.report.fault("the office does not seal everything again".to_owned());
        }
        self.report.seconds(
            "  and the broker has everything sealed with it after",
            "resealed_s",
            began.elapsed(),
        );
        self.agree("after a new data key", began, &others);
        let heard = (self.heard() - before) / others.len() as u64;
        self.report.bytes("  bytes heard per door", "bytes_rotate", heard);
        // Its thief connects it again, and writes.
        let known = self.doors[stolen].shown().present.state();
        self.doors[stolen].tell(Do::Heal);
        let mallory = self.crowd.next();
        self.doors[stolen].tell(Do::Enroll(vec![mallory.clone()]));
        self.enroll(0, 1);
        self.agree("after a stolen door wrote", Instant::now(), &others);
        std::thread::sleep(Duration::from_secs(2));
        let has = |door: &Door| door.shown().present.contains(mallory.id);
        if others.iter().any(|door| has(&self.doors[*door])) {
            self.report.fault("a locked-out door enrolled somebody".to_owned());
        }
        let newest = self.people.back().map(|person| person.id);
        if newest.is_some_and(|person| self.doors[stolen].shown().present.contains(person)) {
            self.report.fault("a locked-out door read a new record".to_owned());
        }
        self.report.add(
            "  the stolen door, connected again",
            &format!("reads nothing new (still {} people), writes nothing", known.0),
            "stolen",
            json!({"people": known.0}),
        );
        self.doors.remove(stolen);
        self.rest("after a door was locked out");
        Ok(())
    }

    /// The broker keeps a removal from one door.
    fn withheld(&mut self) -> Result<(), String> {
        let door = self.doors.len() - 1;
        self.doors[door].tell(Do::Withhold(true));
        std::thread::sleep(Duration::from_millis(100));
        let lease = self.doors[door].shown().lease_until_ms;
        let Some(Person { id: person, .. }) = self.people.pop_front() else { return Ok(()) };
        self.present.remove(person);
        self.office.order(Order::RevokePerson { person: person.to_string() })?;
        let others: Vec<usize> = (0..door).collect();
        self.agree("withheld", Instant::now(), &others);
        // A week and more, with a new lease from the office every few hours.
        for _ in 0..8 {
            self.clock.advance(DAY_MS);
            std::thread::sleep(Duration::from_millis(1_500));
        }
        let good = self
            .wait("leases of the others", Instant::now(), &others, |shown| shown.fault.is_none());
        let held = {
            let shown = self.doors[door].shown();
            shown.lease_until_ms == lease && shown.fault.is_some()
        };
        if !held {
            self.report.fault("a door from which a removal is withheld does not notice".to_owned());
        }
        self.report.add(
            "a removal withheld from one door",
            "its lease is not renewed and ends after 7 days; those of the others are",
            "withheld",
            json!({"noticed": held, "others_s": good.as_secs_f64()}),
        );
        self.doors[door].tell(Do::Withhold(false));
        self.doors[door].tell(Do::Cut);
        self.doors[door].tell(Do::Heal);
        self.rest("withheld");
        Ok(())
    }

    fn away_for_a_month(&mut self) -> Result<(), String> {
        let door = 3.min(self.doors.len() - 1);
        self.doors[door].tell(Do::Cut);
        std::thread::sleep(Duration::from_millis(200));
        let others: Vec<usize> = self.all().into_iter().filter(|other| *other != door).collect();
        let count = (self.people.len() / 10).clamp(5, 100);
        self.remove(0, count);
        self.enroll(1, count);
        self.agree("while one is away", Instant::now(), &others);
        // Somebody is enrolled there as well.
        self.enroll(door, 1);
        for _ in 0..30 {
            self.clock.advance(DAY_MS);
            std::thread::sleep(Duration::from_millis(300));
        }
        let began = Instant::now();
        self.doors[door].tell(Do::Restart);
        let time = self.agree("back after a month", began, &[door]);
        let lease = self.wait("lease after a month", began, &[door], |shown| shown.fault.is_none());
        self.report.seconds(
            &format!("a door away for a month, {} changes missed, agrees after", 2 * count),
            "month_s",
            time,
        );
        self.report.seconds("  and has its lease again after", "month_lease_s", lease);
        self.rest("after a month");
        Ok(())
    }
}
