use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
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
    HttpGenerator::new(&settings).unwrap()
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
fn scores_are_the_continuations_alone() {
    // One token a character, each with log-probability -1, as servers echo them: the first has none.
    let (base, _) = server(|_, path, body| {
        assert_eq!(path, "/v1/completions");
        let count = body["prompt"].as_str().unwrap().chars().count() + 1;
        let values: Vec<Value> = (0..count)
            .map(|i| if i == 0 { Value::Null } else { json!(-1.0) })
            .collect();
        let offsets: Vec<usize> = (0..count).collect();
        (
            200,
            String::new(),
            json!({"choices": [{"logprobs": {"token_logprobs": values, "text_offset": offsets}}]})
                .to_string(),
        )
    });
    let client = client(&base);
    assert!(client.can_score().unwrap());
    let scores = client
        .score(&[(request("é", 1).0, vec!["abc".into(), "où".into()])])
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
                sum: -2.0,
                tokens: 2
            }
        ]
    );
}

#[test]
fn a_server_that_does_not_echo_cannot_score() {
    let (base, _) = server(|_, _, _| {
        (
            200,
            String::new(),
            json!({"choices": [{"text": "x", "logprobs": null}]}).to_string(),
        )
    });
    assert!(!client(&base).can_score().unwrap());
}
