//! The learning rate of each step: warm-up, then a shape, down to a floor.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tinylm_settings::{Shaped, choices};

#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    /// The highest learning rate, reached at the end of the warm-up.
    pub lr: f64,
    /// Steps, or a share of all steps, over which the rate rises from 0.
    pub warmup: Amount,
    /// A learning rate, or a share of `lr`, below which the shape does not go.
    pub floor: Amount,
    /// Steps, or a share of all steps, over which `wsd` comes down at the end.
    pub decay: Amount,
}

choices! {
    /// How the learning rate goes after the warm-up.
    pub enum Shape {
        Constant = "constant",
        Linear = "linear",
        Cosine = "cosine",
        /// Warm-up, stable, decay.
        Wsd = "wsd",
    }
}

/// A number, or a share written as a percentage: `2000`, `"30%"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Number(f64),
    Share(f64),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    #[error("`lr` {}", self.wrong())]
    LearningRate(f64),
    #[error("`{name}` {}", self.wrong())]
    Negative { name: &'static str, value: Amount },
    #[error("`{name}` {}", self.wrong())]
    MoreThanAll { name: &'static str, value: Amount },
    #[error("`floor` {}", self.wrong())]
    FloorAboveRate { floor: f64, lr: f64 },
}

impl ScheduleError {
    pub fn setting(&self) -> &'static str {
        match self {
            Self::LearningRate(_) => "lr",
            Self::Negative { name, .. } | Self::MoreThanAll { name, .. } => name,
            Self::FloorAboveRate { .. } => "floor",
        }
    }

    /// What is wrong with that setting.
    pub fn wrong(&self) -> String {
        match self {
            Self::LearningRate(lr) => {
                format!("is {lr}, and a learning rate is a number above 0 and at most 10")
            }
            Self::Negative { value, .. } => format!("is {value}, and must be at least 0"),
            Self::MoreThanAll { value, .. } => {
                format!("is {value}, which is more than the whole training")
            }
            Self::FloorAboveRate { floor, lr } => format!("is {floor}, which is above `lr` ({lr})"),
        }
    }

    /// Returns what to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::LearningRate(_) => "set `lr` to a value such as 1e-3".to_owned(),
            Self::Negative { name: "floor", .. } | Self::FloorAboveRate { .. } => {
                "set `floor` to a lower learning rate, or to a share such as \"10%\"".to_owned()
            }
            Self::Negative { name, .. } | Self::MoreThanAll { name, .. } => {
                format!(
                    "set `{name}` to a number of updates such as 100, or to a share such as \"10%\""
                )
            }
        }
    }
}

impl Schedule {
    /// Refuses what no training could survive. 10 is far above any rate that works.
    pub fn check(&self) -> Result<(), ScheduleError> {
        if !(self.lr > 0.0 && self.lr <= 10.0) {
            return Err(ScheduleError::LearningRate(self.lr));
        }
        let amounts = [
            ("warmup", self.warmup),
            ("decay", self.decay),
            ("floor", self.floor),
        ];
        // A NaN is not at least 0 either.
        let negative = amounts
            .into_iter()
            .find(|(_, value)| !matches!(value.of(1.0), 0.0..));
        if let Some((name, value)) = negative {
            return Err(ScheduleError::Negative { name, value });
        }
        let whole = [("warmup", self.warmup), ("decay", self.decay)];
        let longer =
            |(_, value): &(_, Amount)| matches!(value, Amount::Share(share) if *share > 1.0);
        if let Some((name, value)) = whole.into_iter().find(longer) {
            return Err(ScheduleError::MoreThanAll { name, value });
        }
        let (floor, lr) = (self.floor.of(self.lr), self.lr);
        if floor > lr {
            return Err(ScheduleError::FloorAboveRate { floor, lr });
        }
        Ok(())
    }

    /// Learning rate of update `step`, the first being 1, of `n_steps` in all.
    pub fn lr(&self, step: u64, n_steps: u64) -> f64 {
        let warmup = self.warmup.of(n_steps as f64);
        // Steps done before this one: a run of one step is not already at its floor.
        let done = (step - 1) as f64;
        if done < warmup.floor() {
            return self.lr * step as f64 / warmup.floor();
        }
        let floor = self.floor.of(self.lr);
        let decay_from = match self.shape {
            Shape::Wsd => (n_steps as f64 - self.decay.of(n_steps as f64)).max(warmup),
            _ => warmup.floor(),
        };
        let progress = (done - decay_from) / (n_steps as f64 - decay_from);
        let progress = progress.clamp(0.0, 1.0);
        let left = match self.shape {
            Shape::Constant => return self.lr,
            Shape::Linear | Shape::Wsd => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        floor + (self.lr - floor) * left
    }
}

impl Shaped for Amount {
    fn shape() -> tinylm_settings::Shape {
        tinylm_settings::Shape::Own(
            "number, or a share such as 30%",
            r#"{ "type": ["number", "string"], "minimum": 0, "not": { "type": "string", "pattern": "^\\s*-" } }"#,
        )
    }
}

impl Amount {
    /// The amount itself, given what a share is a share of.
    pub fn of(self, whole: f64) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Share(share) => share * whole,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, percent) = match text.trim().strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        match number.trim().parse::<f64>() {
            Ok(number) if number.is_finite() && percent => Ok(Self::Share(number / 100.0)),
            Ok(number) if number.is_finite() => Ok(Self::Number(number)),
            _ => Err(format!(
                "`{text}` is neither a number nor a share such as `30%`"
            )),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Share(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a share such as \"30%\"")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount::Number(number as f64))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount::Number(number as f64))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Amount, E> {
                Ok(Amount::Number(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn schedule(shape: Shape, warmup: &str) -> Schedule {
        Schedule {
            shape,
            lr: 1.0,
            warmup: warmup.parse().unwrap(),
            floor: Amount::Share(0.1),
            decay: Amount::Share(0.2),
        }
    }

    fn rates(shape: Shape, warmup: &str, n_steps: u64) -> String {
        let schedule = schedule(shape, warmup);
        let rates = (1..=n_steps).map(|step| format!("{:.2}", schedule.lr(step, n_steps)));
        rates.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_shape_warms_up_and_comes_down_to_its_floor() {
        let shapes = [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Wsd];
        let lines = shapes.map(|shape| rates(shape, "30%", 10)).join("\n");
        assert_snapshot!(lines, @"
        0.33 0.67 1.00 1.00 1.00 1.00 1.00 1.00 1.00 1.00
        0.33 0.67 1.00 1.00 0.87 0.74 0.61 0.49 0.36 0.23
        0.33 0.67 1.00 1.00 0.96 0.83 0.65 0.45 0.27 0.14
        0.33 0.67 1.00 1.00 1.00 1.00 1.00 1.00 1.00 0.55
        ");
        assert_eq!(rates(Shape::Linear, "2", 4), rates(Shape::Linear, "50%", 4));
    }

    #[test]
    fn a_rate_stays_between_0_and_lr_even_when_the_warmup_is_longer_than_the_run() {
        for shape in [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::Wsd] {
            for warmup in ["0", "1", "7", "2000", "100%", "0.5"] {
                for n_steps in [1, 2, 10] {
                    let schedule = schedule(shape, warmup);
                    let mut rates = (1..=n_steps).map(|step| schedule.lr(step, n_steps));
                    assert!(rates.all(|lr| lr > 0.0 && lr <= 1.0), "{shape:?} {warmup}");
                }
            }
        }
    }

    #[test]
    fn rates_that_cannot_train_are_refused() {
        for lr in [1e9, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            let schedule = Schedule {
                lr,
                ..schedule(Shape::Cosine, "0")
            };
            assert!(schedule.check().is_err(), "{lr}");
        }
        let negative = schedule(Shape::Cosine, "-5").check().unwrap_err();
        assert!(negative.to_string().starts_with("`warmup` is -5"));
        let long = schedule(Shape::Cosine, "200%").check().unwrap_err();
        assert_snapshot!(long, @"`warmup` is 200%, which is more than the whole training");
        let high = Schedule {
            floor: Amount::Number(2.0),
            ..schedule(Shape::Cosine, "0")
        };
        assert_snapshot!(high.check().unwrap_err(), @"`floor` is 2, which is above `lr` (1)");
    }

    #[test]
    fn amounts_are_read_and_written_as_people_write_them() {
        for text in ["2000.0", "\"30%\"", "0.5"] {
            let amount: Amount = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), text);
        }
        assert_eq!(
            serde_json::from_str::<Amount>("7").unwrap(),
            Amount::Number(7.0)
        );
        assert!(serde_json::from_str::<Amount>("\"a lot\"").is_err());
    }
}
