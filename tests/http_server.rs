//! The server client against a real OpenAI-compatible server: llama.cpp's, as Python's `llama_cpp.server`.
//!
//! Wants `llama-cpp-python[server]` in the Python of INTENDEX_LLAMA_PYTHON (else `python3`), and a Qwen2.5-Coder
//! GGUF file in INTENDEX_MODELS.

use std::{
    env,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use intendex::{
    job::spec,
    model::{Generate, Message, Prompt, Role, Sampling, http::HttpGenerator},
};
use serde_json::json;

struct Server {
    process: Child,
    base: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> String {
    env::var("INTENDEX_LLAMA_PYTHON").unwrap_or("python3".into())
}

fn gguf() -> Result<PathBuf, String> {
    let models = env::var("INTENDEX_MODELS").map_err(|_| "INTENDEX_MODELS is not set")?;
    let names = ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"];
    let mut paths = names
        .iter()
        .map(|name| PathBuf::from(&models).join(name).join("model.gguf"));
    paths
        .find(|path| path.exists())
        .ok_or(format!("no Qwen2.5-Coder in {models}"))
}

/// A server that is up; or why there is none.
fn start(logits_all: bool) -> Result<Server, String> {
    let gguf = gguf()?;
    let ask = Command::new(python())
        .args(["-c", "import llama_cpp.server.app"])
        .output();
    if !ask.is_ok_and(|output| output.status.success()) {
        return Err(format!("{} has no llama_cpp.server", python()));
    }
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let process = Command::new(python())
        .args([
            "-m",
            "llama_cpp.server",
            "--host",
            "127.0.0.1",
            "--n_ctx",
            "1024",
        ])
        .args(["--port", &address.port().to_string()])
        .args(["--logits_all", if logits_all { "true" } else { "false" }])
        .arg("--model")
        .arg(&gguf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Server {
        process,
        base: format!("http://{address}/v1"),
    };
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            server.process.try_wait().unwrap().is_none(),
            "the server ended"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "the server does not come up"
        );
        thread::sleep(Duration::from_millis(200));
    }
    Ok(server)
}

fn client(server: &Server) -> HttpGenerator {
    let settings = json!({"model": "qwen", "server": server.base, "concurrency": 2});
    let settings: spec::Generator = serde_json::from_value(settings).unwrap();
    HttpGenerator::new(&settings).unwrap()
}

fn prompt(text: &str) -> Prompt {
    Prompt {
        messages: vec![Message {
            role: Role::User,
            content: text.into(),
        }],
    }
}

fn sampling(n: usize, seed: u64) -> Sampling {
    Sampling {
        n,
        temperature: 1.0,
        top_p: 1.0,
        max_tokens: 12,
        stop: vec!["\n".into()],
        seed,
    }
}

#[test]
fn a_real_server_generates() {
    let server = match start(true) {
        Ok(server) => server,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    let client = client(&server);
    let story = prompt("Invent a strange animal. Answer with its name and one sentence about it.");
    let greedy = Sampling {
        temperature: 0.0,
        ..sampling(1, 0)
    };
    let capital = prompt("What is the capital of France? Answer in one word.");
    let answers = client.generate(&[(story.clone(), sampling(3, 7)), (capital, greedy)]);
    let animals = answers[0].as_ref().unwrap();
    assert_eq!(
        animals.len(),
        3,
        "the server ignores n; the client must not"
    );
    assert!(
        animals
            .iter()
            .all(|a| (1..=12).contains(&a.tokens) && !a.text.contains('\n'))
    );
    assert!(animals[0].text != animals[1].text || animals[1].text != animals[2].text);
    let capital = &answers[1].as_ref().unwrap()[0];
    assert!(
        capital.text.contains("Paris") && capital.finished,
        "{capital:?}"
    );

    // Its log-probabilities stand by the wrong tokens, which the client must notice.
    assert!(!client.can_score().unwrap());
}

#[test]
fn a_server_without_log_probabilities_cannot_score() {
    let server = match start(false) {
        Ok(server) => server,
        Err(why) => return eprintln!("SKIPPED: {why}"),
    };
    assert!(!client(&server).can_score().unwrap());
}
