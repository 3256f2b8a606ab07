//! A generator on loopback that answers every prompt with a question, but for those with a word in them; slowly, if wanted.

// Tests use some of it.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

pub struct Server {
    /// Its URL.
    pub base: String,
    refused: Arc<Mutex<String>>,
    asked: Arc<AtomicU64>,
    milliseconds: Arc<AtomicU64>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let refused = Arc::new(Mutex::new(String::new()));
        let server = Self {
            base,
            refused,
            asked: Arc::default(),
            milliseconds: Arc::default(),
        };
        let (word, asked) = (server.refused.clone(), server.asked.clone());
        let milliseconds = server.milliseconds.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                asked.fetch_add(1, Ordering::SeqCst);
                let word = word.lock().unwrap().clone();
                let wait = Duration::from_millis(milliseconds.load(Ordering::SeqCst));
                thread::spawn(move || {
                    thread::sleep(wait);
                    answer(stream.unwrap(), &word);
                });
            }
        });
        server
    }

    /// From now on each answer takes so long.
    pub fn answer_after(&self, wait: Duration) {
        let wait = wait.as_millis() as u64;
        self.milliseconds.store(wait, Ordering::SeqCst);
    }

    /// How often it has been asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// From now on prompts with this word are bad requests.
    pub fn refuse(&self, word: &str) {
        *self.refused.lock().unwrap() = word.to_owned();
    }
}

fn answer(mut stream: TcpStream, refused: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0);
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let (status, text) = match (head.contains("/chat/completions"), body.contains(refused)) {
        // It cannot score.
        (false, _) => (404, "{}"),
        (true, true) => (400, "{}"),
        (true, false) => (
            200,
            r#"{"choices": [{"message": {"content": "what is this about?"}, "finish_reason": "stop"}],
                "usage": {"completion_tokens": 4}}"#,
        ),
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
    )
    .unwrap();
}
