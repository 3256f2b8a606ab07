use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::model::Message;

/// Answers on loopback with what `answer` says of the n-th request: status, further headers, body.
fn server(
    answer: impl Fn(usize, &str, &Value) -> (u16, String, String) + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let length = head.lines().find_map(|l| {
                l.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            });
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let path = head.split_whitespace().nth(1).unwrap().to_owned();
            let (status, headers, text) = answer(n, &path, &serde_json::from_slice(&body).unwrap());
            seen.lock().unwrap().push(head);
            write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{text}", text.len()).unwrap();
        }
    });
    (base, heads)
}

fn client(base: &str) -> HttpGenerator {
    let settings: spec::Generator = serde_json::from_value(
        json!({"model": "m", "server": base, "api_key": "secret-key", "concurrency": 3}),
    )
    .unwrap();
    let mut client = HttpGenerator::new(&settings).unwrap();
    client.transport.first_wait = Duration::from_millis(1);
    client
}

fn request(text: &str, n: usize) -> (Prompt, Sampling) {
    let messages = vec![Message {
        role: Role::User,
        content: text.into(),
    }];
    let sampling = Sampling {
        n,
        temperature: 0.7,
        top_p: 1.0,
        max_tokens: 8,
        stop: vec!["\n".into()],
        seed: 5,
    };
    (Prompt { messages }, sampling)
}

fn chat(texts: &[String]) -> String {
    let choices: Vec<Value> = texts
        .iter()
        .map(|t| json!({"message": {"content": t}, "finish_reason": "stop"}))
        .collect();
    json!({"choices": choices, "usage": {"completion_tokens": 4}}).to_string()
}

#[test]
fn a_server_that_ignores_n_is_asked_again_with_other_seeds() {
    let (base, heads) = server(|_, _, body| {
        (
            200,
            String::new(),
            chat(&[format!("seed {}", body["seed"])]),
        )
    });
    let answers = client(&base).generate(&[request("x", 3)]);
    let texts: Vec<String> = answers[0]
        .as_ref()
        .unwrap()
        .iter()
        .map(|c| c.text.clone())
        .collect();
    assert_eq!(texts, ["seed 5", "seed 6", "seed 7"]);
    assert!(heads.lock().unwrap().iter().all(|h| {
        h.to_lowercase()
            .contains("authorization: bearer secret-key")
    }));
}

#[test]
fn answers_keep_the_order_of_their_requests() {
    let (base, _) = server(|_, _, body| {
        (
            200,
            String::new(),
            chat(&[body["messages"][0]["content"].to_string()]),
        )
    });
    let requests: Vec<_> = (0..12).map(|i| request(&i.to_string(), 1)).collect();
    let answers = client(&base).generate(&requests);
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap()[0].text, format!("\"{i}\""));
    }
}

#[test]
fn busy_servers_are_asked_again_and_broken_requests_are_not() {
    let (base, _) = server(|n, _, _| match n {
        0 => (503, String::new(), "later".into()),
        1 => (429, "Retry-After: 0\r\n".into(), "slow down".into()),
        _ => (200, String::new(), chat(&["fine".into()])),
    });
    assert_eq!(
        client(&base).generate(&[request("x", 1)])[0]
            .as_ref()
            .unwrap()[0]
            .text,
        "fine"
    );

    let (base, heads) = server(|_, _, _| (400, String::new(), "no such model".into()));
    let error = client(&base)
        .generate(&[request("x", 1)])
        .remove(0)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("400") && error.contains("no such model") && !error.contains("secret-key"),
        "{error}"
    );
    assert_eq!(heads.lock().unwrap().len(), 1);
}

#[test]
fn one_bad_answer_is_its_own_requests_error() {
    let (base, _) = server(|_, _, body| match body["messages"][0]["content"].as_str() {
        Some("bad") => (200, String::new(), "{\"choices\": [".into()),
        _ => (200, String::new(), chat(&["fine".into()])),
    });
    let answers =
        client(&base).generate(&[request("good", 1), request("bad", 1), request("good", 1)]);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(
        answers[1]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("no JSON")
    );
}

#[test]
fn a_server_that_stays_away_is_given_up() {
    let (base, heads) = server(|_, _, _| (502, String::new(), "bad gateway".into()));
    let message = client(&base)
        .generate(&[request("x", 1)])
        .remove(0)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("/v1/chat/completions: 502") && message.contains("bad gateway"),
        "{message}"
    );
    assert_eq!(heads.lock().unwrap().len(), 7);

    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let message = client(&format!("http://{free}/v1")).generate(&[request("x", 1)]);
    let message = message[0].as_ref().unwrap_err().to_string();
    assert!(
        message.contains(&free.to_string()) && message.contains("is the server up?"),
        "{message}"
    );
}

#[test]
fn no_error_or_identity_holds_a_secret() {
    let answer = json!({"error": "incorrect API key secret-key"}).to_string();
    for status in [200, 401] {
        let answer = answer.clone();
        let (base, _) = server(move |_, _, _| (status, String::new(), answer.clone()));
        let client = client(&base);
        let message = client
            .generate(&[request("x", 1)])
            .remove(0)
            .unwrap_err()
            .to_string();
        assert!(message.contains("incorrect API key [api_key]"), "{message}");
        if status == 401 {
            assert!(
                client.can_score().is_err(),
                "a wrong key is no missing feature"
            );
        }
    }
    let settings = json!({"model": "m", "server": "https://me:pass@example.org/v1"});
    let error = HttpGenerator::new(&serde_json::from_value(settings).unwrap())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("api_key") && !error.to_string().contains("pass@"),
        "{error}"
    );
}

/// Echoes a prompt as `cut` makes tokens of it, each with log-probability -1, and a token more, as servers do.
fn echo(body: &Value, cut: impl Fn(&str) -> Vec<String>) -> (u16, String, String) {
    echo_with(-1.0, body, cut)
}

fn echo_with(value: f64, body: &Value, cut: impl Fn(&str) -> Vec<String>) -> (u16, String, String) {
    let (mut at, mut values, mut offsets) = (0, Vec::new(), Vec::new());
    for token in cut(body["prompt"].as_str().unwrap())
        .iter()
        .chain([&".".to_string()])
    {
        values.push(if at == 0 { Value::Null } else { json!(value) });
        offsets.push(at);
        at += token.chars().count();
    }
    let logprobs = json!({"token_logprobs": values, "text_offset": offsets});
    (
        200,
        String::new(),
        json!({"choices": [{"logprobs": logprobs}]}).to_string(),
    )
}

#[test]
fn scores_are_the_continuations_alone() {
    let (base, _) = server(|_, path, body| {
        assert_eq!(path, "/v1/completions");
        // Words with the space before them, as byte-pair vocabularies have them.
        echo(body, |prompt| {
            prompt
                .split_inclusive(' ')
                .fold(vec![String::new()], |mut words, w| {
                    words.last_mut().unwrap().push_str(w.trim_end_matches(' '));
                    if w.ends_with(' ') {
                        words.push(" ".into());
                    }
                    words
                })
        })
    });
    let client = client(&base);
    assert!(client.can_score().unwrap());
    let texts = ["where is it?".to_string(), "où".into()];
    let scores = client
        .score(&[(request("é ü", 1).0, texts.to_vec())])
        .remove(0)
        .unwrap();
    assert_eq!(
        scores,
        [
            LogProb {
                sum: -3.0,
                tokens: 3
            },
            LogProb {
                sum: -1.0,
                tokens: 1
            }
        ]
    );
}

#[test]
fn a_token_across_the_boundary_is_the_continuations() {
    let text = "Assistant: what";
    let offsets = |at: &[u64]| -> Vec<Value> { at.iter().map(|o| json!(o)).collect() };
    let inside = |at: &[u64]| continuation(&offsets(at), text, "Assistant:".len());
    assert_eq!(inside(&[0, 9, 10, 15]), [false, false, true, false]);
    assert_eq!(inside(&[0, 9, 15]), [false, true, false]);
    // Parts of one character share an offset.
    assert_eq!(
        inside(&[0, 9, 10, 10, 10]),
        [false, false, true, true, true]
    );
    // Some servers count from the start of a longer prompt.
    assert_eq!(inside(&[7, 17, 22]), [false, true, false]);
}

#[test]
fn a_server_whose_probabilities_are_of_other_tokens_cannot_score() {
    let words = |text: &str| text.split_inclusive(' ').map(str::to_owned).collect();
    let (base, _) = server(move |_, _, body| echo_with(-15.0, body, words));
    assert!(!client(&base).can_score().unwrap());
}

#[test]
fn a_server_that_does_not_echo_cannot_score() {
    let silent = json!({"choices": [{"text": "x", "logprobs": null}]}).to_string();
    for (status, answer) in [
        (200, silent),
        (400, "no echo".into()),
        (500, "logits_all".into()),
        (404, "".into()),
    ] {
        let (base, _) = server(move |_, _, _| (status, String::new(), answer.clone()));
        assert!(!client(&base).can_score().unwrap(), "{status}");
    }
    let (base, _) = server(|_, _, _| (503, String::new(), "loading".into()));
    assert!(
        client(&base).can_score().is_err(),
        "a server that is away may be able to score"
    );
}

#[test]
fn estimated_tokens_lie_in_order_on_character_boundaries() {
    let (base, _) = server(|_, _, _| (200, String::new(), String::new()));
    let text = "A reader’s question: 東京は日本の首都です, isn't it?";
    let mut end = 0;
    for (from, to) in client(&base).token_offsets(text).unwrap() {
        assert!(end <= from && from < to, "{from}..{to}");
        assert!(text[end..from].trim().is_empty() && text.get(from..to).is_some());
        end = to;
    }
    assert_eq!(end, text.len());
}
