//! EDGE: the gallery's file as the thread `gallery` sees it: reads it again after a change,
//! and reports what is wrong with it. The people in use stay in use.

use super::status::GalleryFileNow;
use crate::access::event::Event;
use crate::models::{ModelId, Models};
use crate::storage::gallery::{
    Loaded, LoadedContent, Opening, Purpose, Register, Store, StoreError, peek, remarks,
    why_read_only,
};
use crate::vision::embed::{Embedder, Template};
use crate::vision::face_picture::FacePicture;
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// What the thread knows about the gallery's file.
pub(super) struct Sight {
    pub(super) register: Option<Register>,
    /// Its state.
    pub(super) now: GalleryFileNow,
    /// The state that the service knows.
    pub(super) told: GalleryFileNow,
    /// Not yet passed on.
    pub(super) events: Vec<Event>,
}

impl Sight {
    /// Notes the state of the gallery's file, given the error of reading it. The people in
    /// use stay in use whatever happens to it.
    pub(super) fn judge(&mut self, file: &Path, error: Option<&StoreError>) {
        let now = &mut self.now;
        let before = now.clone();
        if let Some(error) = error {
            error.kind().clone_into(&mut now.state);
            now.fault = Some(error.to_string());
            if now.fault != before.fault {
                let reason = format!("{error}; keeping the people in use");
                self.events.push(Event::GalleryFault { state: error.kind(), reason });
            }
            return;
        }
        let read_only = why_read_only(file).unwrap_or(None);
        if before.is_fault() {
            self.events.push(Event::GalleryBack);
        }
        match read_only {
            Some(reason) => {
                let error = StoreError::ReadOnly { path: file.to_owned(), reason };
                error.kind().clone_into(&mut now.state);
                now.fault = Some(error.to_string());
                if now.fault != before.fault {
                    log::warn!("{error}; until then nobody can be enrolled or removed");
                }
            }
            None => {
                now.fault = None;
                GalleryFileNow::default().state.clone_into(&mut now.state);
            }
        }
        now.remarks = remarks(file);
        for remark in now.remarks.iter().filter(|remark| !before.remarks.contains(remark)) {
            log::warn!("{remark}");
        }
    }

    /// Reads the gallery; `None` while another process has it. A file that another process
    /// left in disorder is repaired first. What is older than the people in use, or another
    /// gallery, is an error.
    pub(super) fn read(
        &mut self,
        used: &LoadedContent,
        file: &Path,
        embedder: &mut ReEmbedder,
    ) -> Result<Option<Loaded>, StoreError> {
        let (model, size) = (embedder.model.clone(), embedder.size);
        let register = self.register.as_ref();
        match peek(file, register, &model, size, |picture| embedder.embed(picture)) {
            Ok(None) => return Ok(None),
            Ok(Some(loaded)) if loaded.content.contradicts(used) => {
                return Err(StoreError::Changed { path: file.to_owned() });
            }
            Ok(Some(loaded))
                if used.known().is_some_and(|known| known.admits(loaded.content.revision())) =>
            {
                return Ok(Some(loaded));
            }
            // Where nothing was in use, the register decides.
            Ok(Some(_)) | Err(_) => {}
        }
        let opening = Opening::to(Purpose::Read)
            .within(Duration::ZERO)
            .knowing(used.known())
            .registered(self.register.clone());
        match Store::open_as(file, opening) {
            Err(StoreError::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(store) => {
                if let Some(repaired) = store.repaired() {
                    let repaired = repaired.to_owned();
                    self.now.repaired = Some(repaired.clone());
                    self.events.push(Event::GalleryRepaired(repaired));
                }
                store.load_embedding(&model, size, |picture| embedder.embed(picture)).map(Some)
            }
        }
    }
}

/// Re-embeds templates of other models. The network is loaded for the first of them.
pub(super) struct ReEmbedder {
    models: Models,
    model: ModelId,
    size: usize,
    embedder: Option<Embedder>,
}

impl ReEmbedder {
    pub(super) fn new(models: &Models) -> Result<Self> {
        let (model, size) = (models.recognizer_id()?, models.recognizer()?.embedding_size);
        Ok(Self { models: models.clone(), model, size, embedder: None })
    }

    pub(super) fn embed(&mut self, picture: &FacePicture) -> Option<Template> {
        if self.embedder.is_none() {
            self.embedder = Some(Embedder::new(self.models.recognizer().ok()?).ok()?);
        }
        let embedder = self.embedder.as_mut()?;
        let embedding = embedder.embed_face(picture.frame(), picture.landmarks()).ok()?;
        Some(Template::new(self.model.clone(), embedding))
    }
}
