//! Which prompts are decoded together: they join as soon as rows have left, and those that fail together are tried apart.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::generate::{self, Group};
use super::prefix::Prefixes;
use super::shortlist::Shortlist;
use super::{Decoder, ROWS_A_REQUEST};
use crate::model::device::is_out_of_memory;
use crate::model::tokenizer::offsets;
use crate::model::{Completion, Generate, ModelError, ModelIdentity, Prompt, Sampling};

type Request = (Prompt, Sampling);
type Answer = Result<Vec<Completion>, ModelError>;

impl Generate for Decoder {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn context_tokens(&self) -> usize {
        self.context
    }

    fn requests_at_once(&self) -> usize {
        self.rows / ROWS_A_REQUEST
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        offsets(&self.tokenizer, text).map_err(|e| self.error(e))
    }

    /// Prompts with the same beginning are best put into one call: the beginning is read once.
    fn generate(&self, requests: &[Request]) -> Vec<Answer> {
        let encode = |(prompt, sampling): &Request| self.encode(prompt, sampling.max_tokens);
        let prompts: Vec<Result<Vec<u32>, ModelError>> = requests.par_iter().map(encode).collect();
        let shortlist = match self.shortlist(&prompts) {
            Ok(shortlist) => shortlist,
            Err(error) => {
                let failed = |_| Err(self.error(&error));
                return requests.iter().map(failed).collect();
            }
        };
        let mut schedule = Schedule::new(self, requests, prompts, shortlist.as_ref());
        let mut prefixes = self.prefixes();
        while schedule.is_unfinished() {
            schedule.step(&mut prefixes);
        }
        let unanswered = || Err(self.error("a request has no answer"));
        let answers = schedule.answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect()
    }
}

impl Decoder {
    /// What the continuations of the prompts may draw; none: everything.
    fn shortlist(
        &self,
        prompts: &[Result<Vec<u32>, ModelError>],
    ) -> Result<Option<Shortlist<'_>>, ModelError> {
        let Some(frequent) = &self.frequent else {
            return Ok(None);
        };
        let prompts: Vec<&[u32]> = prompts.iter().flatten().map(Vec::as_slice).collect();
        let list = Shortlist::new(&self.model, frequent, &prompts, &self.vocabulary.ends);
        list.map(Some).map_err(|e| self.error(e))
    }
}

/// The requests of one call.
struct Schedule<'a> {
    decoder: &'a Decoder,
    requests: &'a [Request],
    prompts: Vec<Vec<u32>>,
    shortlist: Option<&'a Shortlist<'a>>,
    waiting: VecDeque<usize>,
    groups: Vec<Group<'a>>,
    /// Rows that may be decoded together.
    most: usize,
    answers: Vec<Option<Answer>>,
}

impl<'a> Schedule<'a> {
    fn new(
        decoder: &'a Decoder,
        requests: &'a [Request],
        prompts: Vec<Result<Vec<u32>, ModelError>>,
        shortlist: Option<&'a Shortlist<'a>>,
    ) -> Self {
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(requests.len());
        let mut waiting = VecDeque::new();
        let encoded = prompts.into_iter().enumerate().map(|(request, prompt)| {
            let failed = prompt.as_ref().is_err();
            if !failed {
                waiting.push_back(request);
            }
            let (tokens, error) = match prompt {
                Ok(tokens) => (tokens, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            answers.push(error);
            tokens
        });
        let prompts = encoded.collect();
        Self {
            decoder,
            requests,
            prompts,
            shortlist,
            waiting,
            groups: Vec::new(),
            most: decoder.rows,
            answers,
        }
    }

    fn is_unfinished(&self) -> bool {
        !self.waiting.is_empty() || !self.groups.is_empty()
    }

    /// Lets prompts join, and adds a token to every row.
    fn step(&mut self, prefixes: &mut Prefixes) {
        let joining = self.join();
        let decoded = self.decode(&joining, prefixes);
        for group in self.groups.extract_if(.., |group| group.rows() == 0) {
            let request = group.request;
            self.answers[request] = Some(Ok(group.finish()));
        }
        if let Err(error) = decoded {
            self.try_apart(error, joining);
            prefixes.clear();
        }
    }

    /// The requests for which there is room: at least one if none is running.
    fn join(&mut self) -> Vec<usize> {
        let mut rows: usize = self.groups.iter().map(Group::rows).sum();
        let mut tokens: usize = self.groups.iter().map(Group::tokens).sum();
        let mut joining = Vec::new();
        while let Some(&next) = self.waiting.front() {
            let sampling = &self.requests[next].1;
            let has_room = rows + sampling.n <= self.most && tokens < self.decoder.cache_tokens;
            let is_idle = self.groups.is_empty() && joining.is_empty();
            if !has_room && !is_idle {
                break;
            }
            self.waiting.pop_front();
            rows += sampling.n;
            tokens += self.prompts[next].len() + sampling.n * sampling.max_tokens;
            joining.push(next);
        }
        joining
    }

    fn decode(&mut self, joining: &[usize], prefixes: &mut Prefixes) -> Result<(), ModelError> {
        let (decoder, shortlist) = (self.decoder, self.shortlist);
        let (model, vocabulary) = (&decoder.model, &decoder.vocabulary);
        let prompts: Vec<&[u32]> = joining.iter().map(|&i| &self.prompts[i][..]).collect();
        let read = decoder.read(&prompts, prefixes)?;
        let started = self.groups.len();
        for (&request, prefix) in joining.iter().zip(read) {
            let sampling = &self.requests[request].1;
            let group = Group::new(vocabulary, shortlist, request, prefix, sampling);
            self.groups.push(group);
        }
        let failed = |e| decoder.error(e);
        let new = &mut self.groups[started..];
        generate::start(model, vocabulary, shortlist, new).map_err(failed)?;
        // Those that have ended stand behind the others.
        let going = self.groups.extract_if(.., |group| group.rows() > 0);
        let mut going: Vec<Group> = going.collect();
        let stepped = match going.is_empty() {
            true => Ok(()),
            false => generate::step(model, vocabulary, shortlist, &mut going).map_err(failed),
        };
        going.append(&mut self.groups);
        self.groups = going;
        stepped
    }

    /// Has what failed together start again from its first token, which the same seeds allow: half as many rows at once if
    /// memory was short, else one request after the other. A request that failed alone has failed.
    fn try_apart(&mut self, error: ModelError, joining: Vec<usize>) {
        let running = self.groups.drain(..).map(|group| group.request);
        let mut running: Vec<usize> = running.chain(joining).collect();
        running.sort_unstable();
        running.dedup();
        running.retain(|&request| self.answers[request].is_none());
        let short = is_out_of_memory(&error);
        if let [request] = running[..] {
            self.answers[request] = Some(Err(error));
            self.most = if short { self.most } else { self.decoder.rows };
            return;
        }
        let rows = running.iter().map(|&request| self.requests[request].1.n);
        self.most = match short {
            true => rows.sum::<usize>().min(self.most) / 2,
            false => 0,
        };
        if short {
            let most = self.most;
            tracing::warn!("the GPU's memory is too small; {most} rows are decoded at once");
        }
        running
            .into_iter()
            .rev()
            .for_each(|i| self.waiting.push_front(i));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType;

    use super::super::tests::{requests, tiny};
    use super::*;

    /// The answers, and how many rows were decoded together at the end. At a step, all that is running fails so.
    fn answers(
        decoder: &Decoder,
        requests: &[Request],
        failure: Option<(usize, &str)>,
    ) -> (Vec<Answer>, usize) {
        let encode = |(prompt, sampling): &Request| decoder.encode(prompt, sampling.max_tokens);
        let prompts = requests.iter().map(encode).collect();
        let mut schedule = Schedule::new(decoder, requests, prompts, None);
        let mut prefixes = decoder.prefixes();
        for step in 0.. {
            if !schedule.is_unfinished() {
                break;
            }
            schedule.step(&mut prefixes);
            if let Some((at, message)) = failure
                && at == step
            {
                schedule.try_apart(decoder.error(message), Vec::new());
            }
        }
        let answers = schedule.answers.into_iter().map(Option::unwrap);
        (answers.collect(), schedule.most)
    }

    const SHORTAGE: &str = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";

    #[test]
    fn what_failed_together_is_drawn_again_as_it_was() {
        let decoder = tiny(GgmlDType::F32);
        let requests = requests();
        let texts = |answers: Vec<Answer>| -> Vec<Vec<Completion>> {
            answers.into_iter().map(Result::unwrap).collect()
        };
        let (whole, most) = answers(&decoder, &requests, None);
        let whole = texts(whole);
        let rows: usize = requests.iter().map(|(_, sampling)| sampling.n).sum();
        assert!(most >= rows);
        for at in 0..3 {
            let (again, halved) = answers(&decoder, &requests, Some((at, SHORTAGE)));
            assert_eq!(texts(again), whole);
            assert!((1..=rows / 2).contains(&halved), "{halved} of {rows}");
            let (again, alone) = answers(&decoder, &requests, Some((at, "not a number")));
            assert_eq!((texts(again), alone), (whole.clone(), 0));
        }
    }

    #[test]
    fn what_failed_alone_has_failed() {
        let decoder = tiny(GgmlDType::F32);
        let (alone, _) = answers(&decoder, &requests()[..1], Some((0, SHORTAGE)));
        let message = alone[0].as_ref().unwrap_err().to_string();
        assert!(message.contains("out of memory"), "{message}");
    }
}
