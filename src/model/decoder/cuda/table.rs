//! Where each token of a batch finds its keys: the table that `decoder.cu` reads.

use candle_core::{Result, Tensor};
use half::bf16;

use super::TILE;
use super::launch::{Gpu, Launch, address};
use crate::model::decoder::architecture::Shape;
use crate::model::decoder::attention::{Cache, Part, Sees};

pub struct Table {
    /// Three numbers a token, three a sequence, four addresses a layer and sequence.
    at: Tensor,
    tokens: usize,
    sequences: usize,
    /// First token and number of tokens of each attention tile.
    pub tiles: Tensor,
    /// How many warps share out the keys of the same queries.
    pub parts: usize,
    /// Keys and values of texts, which a layer overwrites after the other.
    _texts: Option<Cache>,
}

/// A part's tokens as the kernels see them. Places and strides are in elements.
struct Sequence<'a> {
    prefix: Option<&'a Cache>,
    own: &'a Cache,
    /// How far apart the key heads of `own` are.
    stride: usize,
    /// The first layer's `own` is that of all layers.
    shared: bool,
}

impl Table {
    pub fn new(gpu: &Gpu, shape: Shape, parts: &[Part]) -> Result<Self> {
        let d = shape.head_dim;
        let tokens: usize = parts.iter().map(|part| part.tokens).sum();
        let texts = texts(gpu, shape, parts)?;
        let (mut sequence_of, mut rows, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sequences, mut tiles) = (Vec::new(), Vec::new());
        let mut text_tokens = 0;
        // A prompt has many tiles, and its long ones read keys less often.
        let is_prompt = |part: &Part| matches!(part.sees, Sees::Prompt { .. });
        let parts_of_keys = if parts.iter().any(is_prompt) { 1 } else { 2 };
        let tile = 2 * TILE / parts_of_keys / (shape.heads / shape.kv_heads);
        for (i, part) in parts.iter().enumerate() {
            let n = part.tokens;
            for first in (0..n).step_by(tile) {
                tiles.extend([rows.len() + first, tile.min(n - first)].map(|x| x as u32));
            }
            sequence_of.extend(std::iter::repeat_n(i as i64, n));
            match part.sees {
                Sees::Prompt { prompt, from } => {
                    rows.extend(std::iter::repeat_n(0, n));
                    slots.extend((from..from + n).map(|slot| slot as i64));
                    sequences.push(Sequence {
                        prefix: None,
                        own: prompt,
                        stride: prompt.positions() * d,
                        shared: false,
                    });
                }
                Sees::Rows {
                    prefix,
                    own,
                    places,
                    added,
                } => {
                    let capacity = own.positions();
                    rows.extend(places.iter().map(|place| (place * capacity * d) as i64));
                    slots.extend(std::iter::repeat_n(added as i64, n));
                    sequences.push(Sequence {
                        prefix: Some(prefix),
                        own,
                        stride: own.k.dim(2)? * capacity * d,
                        shared: false,
                    });
                }
                Sees::Text { prefix } => {
                    let Some(own) = &texts else {
                        candle_core::bail!("there is no room for texts");
                    };
                    rows.extend(std::iter::repeat_n((text_tokens * d) as i64, n));
                    slots.extend((0..n).map(|slot| slot as i64));
                    text_tokens += n;
                    sequences.push(Sequence {
                        prefix: Some(prefix),
                        own,
                        stride: own.positions() * d,
                        shared: true,
                    });
                }
            }
        }
        let mut at = [sequence_of, rows, slots].concat();
        let past = |s: &Sequence| s.prefix.map_or(0, Cache::positions);
        at.extend(sequences.iter().map(|s| past(s) as i64));
        at.extend(sequences.iter().map(|s| (past(s) * d) as i64));
        at.extend(sequences.iter().map(|s| s.stride as i64));
        at.extend(addresses(shape, &sequences)?);
        Ok(Self {
            at: gpu.upload(at.into_iter())?,
            tokens,
            parts: parts_of_keys,
            sequences: sequences.len(),
            tiles: gpu.upload(tiles.into_iter())?,
            _texts: texts,
        })
    }

    pub fn pass_to(&self, launch: &mut Launch) -> Result<()> {
        launch.tensor(&self.at)?;
        launch
            .number(self.tokens as i32)
            .number(self.sequences as i32);
        Ok(())
    }
}

/// Room for the keys of one layer of all texts.
fn texts(gpu: &Gpu, shape: Shape, parts: &[Part]) -> Result<Option<Cache>> {
    let texts = parts
        .iter()
        .filter(|part| matches!(part.sees, Sees::Text { .. }));
    let tokens: usize = texts.map(|part| part.tokens).sum();
    if tokens == 0 {
        return Ok(None);
    }
    let room = || gpu.empty::<bf16>(&[1, shape.kv_heads, tokens, shape.head_dim]);
    Ok(Some(Cache {
        k: room()?,
        v: room()?,
    }))
}

/// By layer and sequence: the prefix's keys and values, then the sequence's own.
fn addresses(shape: Shape, sequences: &[Sequence]) -> Result<Vec<i64>> {
    let mut first = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let (own, prefix) = (sequence.own, sequence.prefix);
        let layer = |cache: &Cache| cache.k.elem_count() / cache.k.dims()[0] * size_of::<bf16>();
        let prefix_step = prefix.map_or(0, layer);
        let own_step = if sequence.shared { 0 } else { layer(own) };
        let of = |x: Option<&Tensor>| x.map_or(Ok(0), address);
        first.push([
            (of(prefix.map(|p| &p.k))?, prefix_step),
            (of(prefix.map(|p| &p.v))?, prefix_step),
            (address(&own.k)?, own_step),
            (address(&own.v)?, own_step),
        ]);
    }
    let layers = 0..shape.layers;
    Ok(layers
        .flat_map(|layer| {
            let of_layer = move |(start, step): (u64, usize)| start as i64 + (layer * step) as i64;
            first.iter().flatten().map(move |&one| of_layer(one))
        })
        .collect())
}
