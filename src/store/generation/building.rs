//! The generation being built, and the steps that publish it.

use std::{path::PathBuf, sync::Arc};

use super::{ABANDONED, BUILDING, Building, JOURNAL, remove_folder};
use crate::store::{
    StoreError,
    mirror::{Sending, Wrote},
    progress::{Header, Journal},
    rename,
};

impl Building {
    /// Folder of the generation being built.
    pub fn folder(&self) -> PathBuf {
        self.output.folder_named(BUILDING)
    }

    /// Begins to send what is finished to where the output really is, if that is not here.
    pub fn send(&mut self, wrote: Wrote) -> Result<(), StoreError> {
        if let Some(writing) = &self.output.writing {
            let lines = self.journal.lines()?;
            let folder = self.folder();
            let sending = writing.start((&self.plan, &folder), &lines, (self.restart, wrote))?;
            self.journal.send(sending);
        }
        Ok(())
    }

    /// What sends it, if the output really is elsewhere.
    pub fn sending(&self) -> Option<Arc<Sending>> {
        self.output.writing.as_ref()?.sending()
    }

    /// Waits until all that is finished is where the output really is.
    pub fn flush(&self) -> Result<(), StoreError> {
        match &self.output.writing {
            Some(writing) => writing.flush().map(|_| ()),
            None => Ok(()),
        }
    }

    /// What interrupted runs of other plans left, newest first, and their stages' fingerprints.
    pub fn abandoned(&self) -> Vec<(PathBuf, Header)> {
        let folders = ABANDONED.map(|name| self.output.folder_named(name));
        let with_header = folders.into_iter().filter_map(|folder| {
            let header = Journal::header(&folder.join(JOURNAL))?;
            Some((folder, header))
        });
        with_header.collect()
    }

    /// Publishes the newest generation, if it was built by this plan and its writer was killed between giving it its
    /// number and pointing `CURRENT` at it.
    pub fn publish_finished(&self) -> Result<Option<u64>, StoreError> {
        let current = self.output.number()?.unwrap_or(0);
        let Some(newest) = self.output.generations()?.pop() else {
            return Ok(None);
        };
        if newest <= current || !self.output.is_of(newest, &self.plan) {
            return Ok(None);
        }
        self.finish(newest)?;
        if self.journal.is_empty() {
            remove_folder(&self.folder())?;
        }
        Ok(Some(newest))
    }

    /// Gives the finished generation its number and points `CURRENT` at it.
    pub fn publish(self) -> Result<u64, StoreError> {
        let number = match &self.output.writing {
            Some(writing) => writing.flush()?,
            None => self.output.generations()?.last().map_or(1, |last| last + 1),
        };
        if self.output.writing.is_some() {
            // What another try of the same generation left.
            remove_folder(&self.output.folder(number))?;
        }
        rename(&self.folder(), &self.output.folder(number))?;
        self.finish(number)
    }

    fn finish(&self, number: u64) -> Result<u64, StoreError> {
        if let Some(writing) = &self.output.writing {
            writing.complete(number)?;
        }
        self.output.point_current_at(number)?;
        // It is published, whatever is left of others.
        if let Err(error) = self.output.remove_abandoned(Some(number)) {
            tracing::warn!("{error}");
        }
        Ok(number)
    }
}
