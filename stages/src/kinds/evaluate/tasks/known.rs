//! The tasks that CORE measures, each with the rules that its published figures follow.

use super::example::Form;

/// How the prompts of a task are put together and what its figure is held against.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    /// Solved examples before each one.
    pub(super) shots: usize,
    /// Between what is asked and what is answered.
    pub(super) delimiter: String,
    /// What guessing would reach; without one, what the number of choices says.
    pub(super) baseline: Option<f64>,
}

const SPACE: &str = " ";
const ANSWER: &str = "\nAnswer: ";

const CORE: [(&str, usize, &str, f64); 22] = [
    ("hellaswag_zeroshot", 0, SPACE, 0.25),
    ("jeopardy", 10, ANSWER, 0.0),
    ("bigbench_qa_wikidata", 10, SPACE, 0.0),
    ("arc_easy", 10, ANSWER, 0.25),
    ("arc_challenge", 10, ANSWER, 0.25),
    ("copa", 0, SPACE, 0.5),
    ("commonsense_qa", 10, SPACE, 0.403),
    ("piqa", 10, ANSWER, 0.5),
    ("openbook_qa", 0, SPACE, 0.25),
    ("lambada_openai", 0, SPACE, 0.0),
    ("hellaswag", 10, SPACE, 0.25),
    ("winograd_wsc", 0, SPACE, 0.5),
    ("winogrande", 0, SPACE, 0.5),
    ("bigbench_dyck_languages", 10, SPACE, 0.0),
    ("agi_eval_lsat_ar", 3, SPACE, 0.25),
    ("bigbench_cs_algorithms", 10, SPACE, 0.0),
    ("bigbench_operators", 10, SPACE, 0.0),
    ("bigbench_repeat_copy_logic", 10, SPACE, 0.0),
    ("squad", 10, SPACE, 0.0),
    ("coqa", 0, SPACE, 0.0),
    ("boolq", 10, ANSWER, 0.62),
    ("bigbench_language_identification", 10, SPACE, 0.091),
];

impl Rules {
    /// Returns those of CORE; a task that it does not know is asked without examples.
    pub(super) fn of(task: &str) -> Self {
        let known = CORE.iter().find(|(name, ..)| *name == task);
        let (shots, delimiter, baseline) = match known {
            Some(&(_, shots, delimiter, baseline)) => (shots, delimiter, Some(baseline)),
            None => (0, SPACE, None),
        };
        Self {
            shots,
            delimiter: delimiter.to_owned(),
            baseline,
        }
    }
}

/// Minimal pairs are the one form that CORE does not have.
pub(super) fn is_in_core(form: Form) -> bool {
    form != Form::Pair
}
