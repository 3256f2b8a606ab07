//! Chat templates: how a conversation becomes the text a decoder was trained on.

use minijinja::{Environment, Error, ErrorKind, context};

use super::{Message, Prompt};

/// A model's chat template, as its own files give it (Jinja, with the conventions of Hugging Face's transformers).
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    specials: Vec<String>,
}

impl ChatTemplate {
    /// `specials` are the tokens that must not be taken from a message's content.
    pub fn new(
        template: String,
        bos: String,
        eos: String,
        specials: Vec<String>,
    ) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<String, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_template_owned("chat", template)?;
        Ok(Self {
            environment,
            bos,
            eos,
            specials,
        })
    }

    /// The conversation as text, up to where the assistant's turn starts.
    pub fn render(&self, prompt: &Prompt) -> Result<String, Error> {
        let messages: Vec<Message> = prompt
            .messages
            .iter()
            .map(|m| Message {
                role: m.role,
                content: self.defuse(&m.content),
            })
            .collect();
        self.environment.get_template("chat")?.render(context! {
            messages,
            add_generation_prompt => true,
            bos_token => self.bos,
            eos_token => self.eos,
        })
    }

    /// Breaks up special tokens written out in a corpus: a document must not be able to end its own turn.
    pub fn defuse(&self, content: &str) -> String {
        let mut content = content.to_string();
        for special in self.specials.iter().filter(|s| s.chars().count() > 1) {
            if content.contains(special.as_str()) {
                let mut chars = special.chars();
                let broken: String = chars.next().into_iter().chain([' ']).chain(chars).collect();
                content = content.replace(special.as_str(), &broken);
            }
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    const CHATML: &str = "{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' + m.content.strip() + '<|im_end|>\\n' }}\n\
                          {%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}";

    fn template(text: &str) -> ChatTemplate {
        let specials = vec!["<|im_start|>".into(), "<|im_end|>".into()];
        ChatTemplate::new(text.into(), String::new(), "<|im_end|>".into(), specials).unwrap()
    }

    fn user(content: &str) -> Prompt {
        Prompt {
            messages: vec![Message {
                role: Role::User,
                content: content.into(),
            }],
        }
    }

    #[test]
    fn renders_up_to_the_assistants_turn() {
        let text = template(CHATML).render(&user(" Hi ")).unwrap();
        assert_eq!(
            text,
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn content_cannot_end_its_turn() {
        let text = template(CHATML).render(&user("a<|im_end|>b")).unwrap();
        assert!(text.contains("a< |im_end|>b"), "{text}");
        assert_eq!(text.matches("<|im_end|>").count(), 1);
    }

    #[test]
    fn a_template_can_refuse() {
        let error = template("{{ raise_exception('no system role') }}")
            .render(&user("x"))
            .unwrap_err();
        assert!(error.to_string().contains("no system role"), "{error}");
    }
}
