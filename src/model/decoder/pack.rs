//! Which continuations are scored together: those of as many prompts as fill a pass.

use rayon::prelude::*;

use super::Decoder;
use super::prefix::Prefixes;
use super::score::{self, Continuation};
use crate::model::device::is_out_of_memory;
use crate::model::{LogProb, ModelError, Prompt, Score};

type Scores = Result<Vec<LogProb>, ModelError>;

/// A request as tokens.
struct Asked {
    /// Its place among the requests.
    place: usize,
    prompt: Vec<u32>,
    texts: Vec<Vec<u32>>,
}

impl Score for Decoder {
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Scores> {
        let requests = requests.par_iter().enumerate();
        let asked: Vec<Result<Asked, ModelError>> = requests
            .map(|(place, request)| self.asked(place, request))
            .collect();
        let mut results: Vec<Scores> = Vec::with_capacity(asked.len());
        let mut good = Vec::with_capacity(asked.len());
        for asked in asked {
            match asked {
                Ok(asked) => {
                    results.push(Ok(Vec::new()));
                    good.push(asked);
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let mut prefixes = self.prefixes();
        let mut rest = &good[..];
        while !rest.is_empty() {
            let (pack, others) = rest.split_at(self.pack(rest));
            let scores = self.score_pack(pack, &mut prefixes);
            for (asked, scores) in pack.iter().zip(scores) {
                results[asked.place] = scores;
            }
            rest = others;
        }
        results
    }
}

impl Decoder {
    fn asked(
        &self,
        place: usize,
        (prompt, texts): &(Prompt, Vec<String>),
    ) -> Result<Asked, ModelError> {
        let encode = |text: &String| {
            let encoding = self.tokenizer.encode(self.chat.defuse(text), false)?;
            Ok(encoding.get_ids().to_vec())
        };
        let texts = texts.iter().map(encode);
        let texts: Vec<Vec<u32>> = texts
            .collect::<tokenizers::Result<_>>()
            .map_err(|e| self.error(e))?;
        let most = texts.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Asked {
            place,
            prompt: self.encode(prompt, most)?,
            texts,
        })
    }

    /// How many of the requests fill a pass, or the memory for their prompts' keys; at least one.
    fn pack(&self, asked: &[Asked]) -> usize {
        let (mut texts, mut prompts) = (0, 0);
        let mut last: &[u32] = &[];
        for (i, one) in asked.iter().enumerate() {
            texts += one.texts.iter().map(Vec::len).sum::<usize>();
            if one.prompt != last {
                prompts += one.prompt.len();
                last = &one.prompt;
            }
            if texts >= score::tokens_at_once(&self.model) || prompts >= self.cache_tokens {
                return i + 1;
            }
        }
        asked.len()
    }

    /// The scores of each request. Those that fail together are tried apart.
    fn score_pack(&self, pack: &[Asked], prefixes: &mut Prefixes) -> Vec<Scores> {
        match self.sums(pack, prefixes) {
            Ok(sums) => {
                let mut sums = sums.into_iter();
                let scores = pack.iter().map(|asked| {
                    let own: Vec<f64> = sums.by_ref().take(asked.texts.len()).collect();
                    self.log_probabilities(asked, &own)
                });
                scores.collect()
            }
            Err(error) if pack.len() > 1 => {
                if is_out_of_memory(&error) {
                    let count = pack.len();
                    tracing::warn!(
                        "the GPU's memory is too small to score texts of {count} prompts at once"
                    );
                }
                prefixes.clear();
                let (first, second) = pack.split_at(pack.len() / 2);
                let mut scores = self.score_pack(first, prefixes);
                scores.extend(self.score_pack(second, prefixes));
                scores
            }
            Err(error) => vec![Err(error)],
        }
    }

    fn log_probabilities(&self, asked: &Asked, sums: &[f64]) -> Scores {
        let texts = sums.iter().zip(&asked.texts);
        let one = |(&sum, text): (&f64, &Vec<u32>)| match sum.is_finite() {
            true => Ok(LogProb {
                sum,
                tokens: text.len(),
            }),
            false => Err(self.error("a log-probability is not finite")),
        };
        texts.map(one).collect()
    }

    /// The sums of all texts' log-probabilities, request by request.
    fn sums(&self, pack: &[Asked], prefixes: &mut Prefixes) -> Result<Vec<f64>, ModelError> {
        let prompts: Vec<&[u32]> = pack.iter().map(|asked| &asked.prompt[..]).collect();
        let read = self.read(&prompts, prefixes)?;
        let mut continuations = Vec::new();
        for (asked, prefix) in pack.iter().zip(read) {
            continuations.extend(asked.texts.iter().map(|tokens| Continuation {
                prefix: prefix.clone(),
                tokens,
            }));
        }
        score::score(&self.model, &continuations).map_err(|e| self.error(e))
    }
}
