//! An object that is read as a file is: Parquet's reader asks for pieces of it, one after the other.
//!
//! A request takes some hundredths of a second, and a page is small. So what the reader is going to read, the chunks of the columns
//! asked for, is fetched in blocks, across what lies between them where that is little, and while the reader is at those before them.

use std::{
    collections::HashSet,
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use bytes::{Bytes, BytesMut};
use parquet::{
    arrow::ProjectionMask,
    errors::ParquetError,
    file::{
        metadata::ParquetMetaData,
        reader::{ChunkReader, Length},
    },
};

use super::{Object, ObjectError, Objects, runtime, wait};

const BLOCK: u64 = 4 << 20;

/// The end of a Parquet file, where its footer mostly is whole.
const TAIL: u64 = 64 << 10;

/// Bytes that nobody asks for are fetched, where they are so few, rather than sending one request more.
const GAP: u64 = 1 << 20;

/// Blocks that are fetched ahead, of all columns together; at least one of each.
const AHEAD: usize = 8;

/// Blocks that are held for each column beside those ahead: the one being read and the one before it.
const HELD: usize = 2;

/// An object that is open for reading. It must stay as it was when it was listed, else reading fails.
#[derive(Clone)]
pub struct ObjectFile(Arc<Inner>);

struct Inner {
    objects: Objects,
    object: Object,
    state: Mutex<State>,
}

struct State {
    /// What is read in blocks, in order.
    spans: Vec<Range<u64>>,
    /// By their first byte; the one used last comes last.
    blocks: Vec<(u64, Block)>,
    /// First bytes of all that were ever fetched: behind the end of a column's chunk lies that of another, which has been read.
    fetched: HashSet<u64>,
    columns: usize,
    failure: Option<ObjectError>,
}

enum Block {
    Coming(mpsc::Receiver<Result<Bytes, ObjectError>>),
    Here(Bytes),
}

impl ObjectFile {
    /// Opens an object as it was listed in a folder.
    pub fn open(objects: &Objects, object: Object) -> Result<Self, ObjectError> {
        let tail = object.bytes.saturating_sub(TAIL)..object.bytes;
        Ok(Self(Arc::new(Inner {
            objects: objects.clone(),
            object,
            state: Mutex::new(State {
                spans: vec![tail],
                blocks: Vec::new(),
                fetched: HashSet::new(),
                columns: 1,
                failure: None,
            }),
        })))
    }

    /// Says which columns are going to be read.
    pub fn expect(&self, metadata: &ParquetMetaData, mask: &ProjectionMask) {
        let mut spans: Vec<Range<u64>> = Vec::new();
        let mut columns = 0;
        for group in metadata.row_groups() {
            let chunks = group.columns().iter().enumerate();
            let wanted = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf));
            let ranges: Vec<_> = wanted.map(|(_, chunk)| chunk.byte_range()).collect();
            columns = columns.max(ranges.len());
            let end = self.0.object.bytes;
            let ranges = ranges
                .into_iter()
                .map(|(start, length)| start..start.saturating_add(length).min(end));
            spans.extend(ranges.filter(|range| !range.is_empty()));
        }
        spans.sort_by_key(|span| span.start);
        let mut state = self.0.state();
        state.spans = joined(spans);
        // Blocks are known by where they begin, and these end elsewhere.
        state.blocks.clear();
        state.fetched.clear();
        state.columns = columns.max(1);
    }

    /// Why reading failed, if it was the storage.
    pub fn failure(&self) -> Option<ObjectError> {
        self.0.state().failure.clone()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes from `start` on: the rest of its block, or at most `length` where it is in none.
    fn read(&self, start: u64, length: u64) -> Result<Bytes, ObjectError> {
        let mut state = self.state();
        let mut blocks = state.blocks_from(start);
        let read = match blocks.next() {
            Some(block) => {
                let next = blocks.take(state.ahead());
                let next = next.filter(|next| !state.fetched.contains(&next.start));
                let next: Vec<_> = next.collect();
                let bytes = self.read_block(&mut state, &block, next);
                bytes.map(|bytes| {
                    let from = (start - block.start) as usize;
                    bytes.slice(from.min(bytes.len())..)
                })
            }
            None => {
                drop(blocks);
                let end = start.saturating_add(length).min(self.object.bytes);
                wait(self.fetch(start..end))
            }
        };
        if let Err(error) = &read {
            state.failure = Some(error.clone());
        }
        read
    }

    /// A block, while those behind it are on their way.
    fn read_block(
        &self,
        state: &mut State,
        block: &Range<u64>,
        next: Vec<Range<u64>>,
    ) -> Result<Bytes, ObjectError> {
        let held = state
            .take(block.start)
            .unwrap_or_else(|| self.start(block.clone()));
        state.fetched.insert(block.start);
        for next in next {
            state.fetched.insert(next.start);
            state.blocks.push((next.start, self.start(next)));
        }
        let bytes = match held {
            Block::Here(bytes) => bytes,
            Block::Coming(receiver) => receiver.recv().unwrap_or_else(|_| {
                let address = self.objects.address(&self.object.name);
                Err(ObjectError::told(&address, "the request was given up"))
            })?,
        };
        state.blocks.push((block.start, Block::Here(bytes.clone())));
        let most = state.columns * (HELD + state.ahead());
        let surplus = state.blocks.len().saturating_sub(most);
        state.blocks.drain(..surplus);
        Ok(bytes)
    }

    fn start(&self, block: Range<u64>) -> Block {
        let (sender, receiver) = mpsc::sync_channel(1);
        let fetch = self.fetch(block);
        runtime().spawn(async move {
            let _ = sender.send(fetch.await);
        });
        Block::Coming(receiver)
    }

    fn fetch(
        &self,
        range: Range<u64>,
    ) -> impl Future<Output = Result<Bytes, ObjectError>> + Send + use<> {
        let (objects, object) = (self.objects.clone(), self.object.clone());
        async move {
            match range.is_empty() {
                true => Ok(Bytes::new()),
                false => objects.read_part(&object, range).await,
            }
        }
    }
}

impl State {
    /// Blocks that are fetched ahead of one place.
    fn ahead(&self) -> usize {
        (AHEAD / self.columns).max(1)
    }

    /// The block that holds a byte, and those behind it; none where it is in no span.
    fn blocks_from(&self, byte: u64) -> impl Iterator<Item = Range<u64>> {
        let behind = self.spans.partition_point(|span| span.end <= byte);
        let spans = self.spans[behind..].iter();
        let holds = |span: &&Range<u64>| span.start <= byte;
        let is_in = spans.clone().next().as_ref().is_some_and(holds);
        spans
            .take(if is_in { usize::MAX } else { 0 })
            .flat_map(move |span| {
                let before = byte.saturating_sub(span.start) / BLOCK;
                let blocks = before..(span.end - span.start).div_ceil(BLOCK);
                blocks.map(move |n| {
                    let start = span.start + n * BLOCK;
                    start..(start + BLOCK).min(span.end)
                })
            })
    }

    fn take(&mut self, start: u64) -> Option<Block> {
        let place = self.blocks.iter().position(|(first, _)| *first == start)?;
        Some(self.blocks.remove(place).1)
    }
}

/// Spans in order, those as one between which there is little.
fn joined(spans: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end.saturating_add(GAP) => {
                last.end = last.end.max(span.end);
            }
            _ => joined.push(span),
        }
    }
    joined
}

impl Length for ObjectFile {
    fn len(&self) -> u64 {
        self.0.object.bytes
    }
}

impl ChunkReader for ObjectFile {
    type T = ObjectReader;

    fn get_read(&self, start: u64) -> Result<ObjectReader, ParquetError> {
        Ok(ObjectReader {
            file: self.clone(),
            position: start,
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = BytesMut::new();
        while bytes.len() < length {
            let missing = length - bytes.len();
            let piece = self.0.read(start + bytes.len() as u64, missing as u64);
            let piece = piece.map_err(|error| ParquetError::External(error.into()))?;
            if piece.is_empty() {
                return Err(ParquetError::EOF(format!("{missing} bytes behind its end")));
            }
            if bytes.is_empty() && piece.len() >= length {
                return Ok(piece.slice(..length));
            }
            bytes.extend_from_slice(&piece[..piece.len().min(missing)]);
        }
        Ok(bytes.freeze())
    }
}

/// Reads an object from some place on.
pub struct ObjectReader {
    file: ObjectFile,
    position: u64,
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.file.0.read(self.position, buffer.len() as u64);
        let piece = piece.map_err(io::Error::other)?;
        let read = piece.len().min(buffer.len());
        buffer[..read].copy_from_slice(&piece[..read]);
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other_across_spans() {
        let spans = joined(vec![0..10, 20..30, 9 * GAP..9 * GAP + 2 * BLOCK + 1]);
        assert_eq!(spans, [0..30, 9 * GAP..9 * GAP + 2 * BLOCK + 1]);
        let state = State {
            spans,
            blocks: Vec::new(),
            fetched: HashSet::new(),
            columns: 3,
            failure: None,
        };
        let of = |byte| state.blocks_from(byte).take(3).collect::<Vec<_>>();
        let far = 9 * GAP;
        assert_eq!(
            of(25),
            [0..30, far..far + BLOCK, far + BLOCK..far + 2 * BLOCK]
        );
        let last = far + 2 * BLOCK;
        assert_eq!(of(far + BLOCK), [far + BLOCK..last, last..last + 1]);
        assert!(of(30).is_empty() && of(last + 1).is_empty());
    }
}
