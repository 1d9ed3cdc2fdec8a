//! EDGE: keeps the state of the door over restarts: takes it up at the start, and saves it
//! while the service runs and when it ends.

use super::pipeline::Pipeline;
use crate::storage::door_state::{
    DoorStateError, DoorStateFile, DoorStateWriter, Moment, Resumed, SaveSchedule,
};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;

/// Saves the state of a door. Drop it last: that waits for the last write.
pub struct DoorStateKeeper {
    writer: DoorStateWriter,
    schedule: SaveSchedule,
    /// Whether the last write failed, which was logged then.
    failed: bool,
}

impl DoorStateKeeper {
    /// Takes up the state of the door with this gallery. A file that cannot be read is
    /// logged, and the door starts without it.
    ///
    /// # Errors
    /// If the thread that writes cannot be started.
    pub fn resume(gallery: &Path, pipeline: &mut Pipeline, now: Duration) -> Result<Self> {
        let file = DoorStateFile::beside(gallery);
        let Resumed { state, clock } = file.read(&Moment::now(None)).unwrap_or_else(|error| {
            log::error!("{error}");
            Resumed::default()
        });
        pipeline.resume(now, &state, clock);
        let writer = DoorStateWriter::start(file)
            .context("cannot start the thread that writes the state of the door")?;
        let schedule = SaveSchedule::new(pipeline.changes());
        Ok(Self { writer, schedule, failed: false })
    }

    /// Between two frames: saves what has changed, not too often. Not while the gallery's
    /// folder is away, because that would write into the empty mount point.
    pub fn visit(&mut self, pipeline: &Pipeline, now: Duration) {
        while let Some(written) = self.writer.written() {
            self.told(&written);
        }
        if pipeline.gallery_file().is_writable() && self.schedule.due(now, pipeline.changes()) {
            self.save(pipeline, now);
        }
    }

    /// Saves the state at the end of the service.
    pub fn end(self, pipeline: &Pipeline, now: Duration) {
        if pipeline.gallery_file().is_writable() {
            self.save(pipeline, now);
        }
    }

    fn save(&self, pipeline: &Pipeline, now: Duration) {
        // If the card is so slow that two states wait, the next change is saved.
        self.writer.write(pipeline.saved(now), Moment::now(pipeline.trusted_unix(now)));
    }

    /// Logs the first of several failures, and their end.
    fn told(&mut self, written: &Result<(), DoorStateError>) {
        match written {
            Ok(()) => {
                if std::mem::replace(&mut self.failed, false) {
                    log::info!("the state of the door is saved again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    log::error!("{error}");
                }
            }
        }
    }
}
