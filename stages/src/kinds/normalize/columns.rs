//! Columns by hand.

use tinylm_pipeline::settings;

settings! {
    /// Columns by hand, where a shape's own names do not fit.
    pub struct Columns {
        /// The column of raw text, or of a dialogue written as text.
        pub text: Option<String> = None,
        /// The column of what was asked.
        pub prompt: Option<String> = None,
        /// The column of what was answered.
        pub response: Option<String> = None,
        /// A column whose text is put behind the prompt, where it has one.
        pub input: Option<String> = None,
        /// The column of the system prompt.
        pub system: Option<String> = None,
        /// The column of turns.
        pub messages: Option<String> = None,
        /// Inside a turn, the name of who speaks.
        pub role: Option<String> = None,
        /// Inside a turn, the name of what is said.
        pub content: Option<String> = None,
        /// Where a row is a turn, the column that says which rows belong together.
        pub conversation: Option<String> = None => neutral None,
    }
}

impl Columns {
    pub(crate) const NONE: Self = Self {
        text: None,
        prompt: None,
        response: None,
        input: None,
        system: None,
        messages: None,
        role: None,
        content: None,
        conversation: None,
    };

    /// Returns the columns named, for reading only those of a table.
    pub(crate) fn named(&self) -> Vec<&str> {
        let all = [
            &self.text,
            &self.prompt,
            &self.response,
            &self.input,
            &self.system,
            &self.messages,
            &self.conversation,
        ];
        all.into_iter().filter_map(Option::as_deref).collect()
    }
}
