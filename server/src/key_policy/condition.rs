//! One condition of a statement: operator, key, values.
//!
//! Owns: the operators of AWS policies, how each reads its values and compares. Knows nothing of:
//! statements, where a request's values come from.
//!
//! Invariants
//! - A negated operator is the denial of its positive one, over all values of the request: `Not…`
//!   holds if no value matches, so also if there is none.
//! - Operands are checked when the policy is written; a request's value that is not of the
//!   operator's kind matches nothing.
//!   Source: AWS, "IAM JSON policy elements: Condition operators".

use std::net::IpAddr;

use super::keys::{ConditionKey, ValueKind};
use super::pattern;
use crate::auth::amz_date::AmzDate;

/// The condition key with the reason of an access.
const REASON: &str = "kluis:Reason";
/// The only reason that a policy is ever asked about.
const REASON_OF_CALLS: &str = "customer-initiated";
/// The reason that jobs work for. No policy is asked at their steps, so a condition on it would
/// promise what does not happen.
const REASON_OF_JOBS: &str = "tenant-job";

/// What a request brings along.
pub(super) trait Values {
    /// The values of a key; none if the request has no such key.
    fn values(&self, key: &ConditionKey) -> Vec<String>;
}

/// How two values of an order compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What an operator compares, its negation aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Arn,
    Bool,
    Date(Order),
    Ip,
    Null,
    Number(Order),
    Text,
    TextAnyCase,
    TextPattern,
}

/// A value of the policy, read as its operator reads it.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Bool(bool),
    Network(IpAddr, u8),
    Number(f64),
    Text(String),
}

/// How many of a request's values have to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    All,
    Any,
}

/// A condition, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    test: Test,
    is_negated: bool,
    is_if_exists: bool,
    quantifier: Option<Quantifier>,
    key: ConditionKey,
    operands: Vec<Operand>,
}

/// The positive operators, and the negated ones beside their test.
const OPERATORS: [(&str, Test, bool); 25] = [
    ("ArnEquals", Test::Arn, false),
    ("ArnLike", Test::Arn, false),
    ("ArnNotEquals", Test::Arn, true),
    ("ArnNotLike", Test::Arn, true),
    ("Bool", Test::Bool, false),
    ("DateEquals", Test::Date(Order::Equal), false),
    ("DateGreaterThan", Test::Date(Order::Greater), false),
    ("DateGreaterThanEquals", Test::Date(Order::GreaterOrEqual), false),
    ("DateLessThan", Test::Date(Order::Less), false),
    ("DateLessThanEquals", Test::Date(Order::LessOrEqual), false),
    ("DateNotEquals", Test::Date(Order::Equal), true),
    ("IpAddress", Test::Ip, false),
    ("NotIpAddress", Test::Ip, true),
    ("NumericEquals", Test::Number(Order::Equal), false),
    ("NumericGreaterThan", Test::Number(Order::Greater), false),
    ("NumericGreaterThanEquals", Test::Number(Order::GreaterOrEqual), false),
    ("NumericLessThan", Test::Number(Order::Less), false),
    ("NumericLessThanEquals", Test::Number(Order::LessOrEqual), false),
    ("NumericNotEquals", Test::Number(Order::Equal), true),
    ("StringEquals", Test::Text, false),
    ("StringEqualsIgnoreCase", Test::TextAnyCase, false),
    ("StringLike", Test::TextPattern, false),
    ("StringNotEquals", Test::Text, true),
    ("StringNotEqualsIgnoreCase", Test::TextAnyCase, true),
    ("StringNotLike", Test::TextPattern, true),
];

impl Condition {
    /// Reads a condition: the operator with its prefix and suffix, the key's name, the values.
    /// The message says what is wrong.
    pub(super) fn parse(operator: &str, key: &str, values: &[String]) -> Result<Self, String> {
        let (name, quantifier) = quantified(operator);
        let (name, is_if_exists) =
            name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let (condition_key, kind) = ConditionKey::parse(key)
            .ok_or_else(|| format!("the condition key {key:?} is not known"))?;
        let found = OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let (test, is_negated) = match found {
            Some((_, test, is_negated)) => (*test, *is_negated),
            None if name.eq_ignore_ascii_case("Null") => (Test::Null, false),
            None => return Err(format!("the condition operator {operator:?} is not known")),
        };
        if test == Test::Null && (is_if_exists || quantifier.is_some()) {
            return Err("Null stands alone, without IfExists or ForAllValues".to_owned());
        }
        if !test.applies_to(kind) {
            return Err(format!("{operator} does not apply to {key}"));
        }
        if values.is_empty() {
            return Err(format!("{operator} on {key} has no value"));
        }
        let read = |value: &String| {
            test.operand(value).ok_or_else(|| format!("{operator} on {key} has an unfit value"))
        };
        let operands: Vec<_> = values.iter().map(read).collect::<Result<_, _>>()?;
        if condition_key == ConditionKey::Known(REASON) {
            let seen = |reason| operands.iter().any(|operand| test.matches(operand, reason));
            if seen(REASON_OF_JOBS) && !seen(REASON_OF_CALLS) {
                return Err(format!(
                    "{key} is never {REASON_OF_JOBS}: a job is decided on when it is started"
                ));
            }
        }
        Ok(Self { test, is_negated, is_if_exists, quantifier, key: condition_key, operands })
    }

    /// Whether it holds for a request.
    pub(super) fn holds(&self, request: &dyn Values) -> bool {
        let values = request.values(&self.key);
        if self.test == Test::Null {
            return self.operands.contains(&Operand::Bool(values.is_empty()));
        }
        if values.is_empty() && self.is_if_exists {
            return true;
        }
        let matches =
            |value: &String| self.operands.iter().any(|operand| self.test.matches(operand, value));
        match self.quantifier {
            Some(Quantifier::All) => values.iter().all(|value| matches(value) != self.is_negated),
            Some(Quantifier::Any) => values.iter().any(|value| matches(value) != self.is_negated),
            None => values.iter().any(matches) != self.is_negated,
        }
    }
}

fn quantified(operator: &str) -> (&str, Option<Quantifier>) {
    match operator.split_once(':') {
        Some((prefix, name)) if prefix.eq_ignore_ascii_case("ForAllValues") => {
            (name, Some(Quantifier::All))
        }
        Some((prefix, name)) if prefix.eq_ignore_ascii_case("ForAnyValue") => {
            (name, Some(Quantifier::Any))
        }
        _ => (operator, None),
    }
}

impl Test {
    /// Whether it can say anything on values of this kind. Texts can be compared of every kind.
    fn applies_to(self, kind: ValueKind) -> bool {
        match self {
            Self::Arn => matches!(kind, ValueKind::Any | ValueKind::Arn),
            Self::Bool => matches!(kind, ValueKind::Any | ValueKind::Bool),
            Self::Date(_) => matches!(kind, ValueKind::Any | ValueKind::Date),
            Self::Ip => matches!(kind, ValueKind::Any | ValueKind::Ip),
            Self::Number(_) => matches!(kind, ValueKind::Any | ValueKind::Number),
            Self::Null | Self::Text | Self::TextAnyCase | Self::TextPattern => true,
        }
    }

    /// A value of the policy.
    fn operand(self, value: &str) -> Option<Operand> {
        match self {
            Self::Arn => {
                let is_arn = value == "*" || value.split(':').count() >= 6;
                is_arn.then(|| Operand::Text(value.to_owned()))
            }
            Self::Bool | Self::Null => boolean(value).map(Operand::Bool),
            Self::Date(_) => seconds(value).map(Operand::Number),
            Self::Ip => network(value).map(|(address, bits)| Operand::Network(address, bits)),
            Self::Number(_) => number(value).map(Operand::Number),
            Self::Text | Self::TextAnyCase | Self::TextPattern => {
                Some(Operand::Text(value.to_owned()))
            }
        }
    }

    fn matches(self, operand: &Operand, value: &str) -> bool {
        match (self, operand) {
            (Self::Arn, Operand::Text(want)) => want == "*" || pattern::matches_arn(want, value),
            (Self::Bool, Operand::Bool(want)) => boolean(value) == Some(*want),
            (Self::Date(order), Operand::Number(want)) => {
                seconds(value).is_some_and(|found| order.holds(found, *want))
            }
            (Self::Ip, Operand::Network(network, bits)) => {
                value.parse().is_ok_and(|found: IpAddr| contains((*network, *bits), found))
            }
            (Self::Number(order), Operand::Number(want)) => {
                number(value).is_some_and(|found| order.holds(found, *want))
            }
            (Self::Text, Operand::Text(want)) => want == value,
            (Self::TextAnyCase, Operand::Text(want)) => {
                want == value || want.to_lowercase() == value.to_lowercase()
            }
            (Self::TextPattern, Operand::Text(want)) => pattern::matches(want, value),
            _ => false,
        }
    }
}

impl Order {
    fn holds(self, found: f64, want: f64) -> bool {
        match found.partial_cmp(&want) {
            None => false,
            Some(order) => match self {
                Self::Equal => order.is_eq(),
                Self::Greater => order.is_gt(),
                Self::GreaterOrEqual => order.is_ge(),
                Self::Less => order.is_lt(),
                Self::LessOrEqual => order.is_le(),
            },
        }
    }
}

fn boolean(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    value.eq_ignore_ascii_case("false").then_some(false)
}

fn number(value: &str) -> Option<f64> {
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Unix seconds of `2026-11-24T10:00:00Z`, of `2026-11-24`, or of a number of seconds.
fn seconds(value: &str) -> Option<f64> {
    if let Some(seconds) = number(value) {
        return Some(seconds);
    }
    let (day, time) = value.split_once('T').unwrap_or((value, "00:00:00Z"));
    let parts = |text: &str, mark| text.split(mark).map(str::len).collect::<Vec<_>>();
    if parts(day, '-') != [4, 2, 2] || parts(time, ':') != [2, 2, 3] {
        return None;
    }
    let basic = format!("{}T{}", day.replace('-', ""), time.replace(':', ""));
    #[expect(clippy::cast_precision_loss, reason = "seconds up to the year 9999 fit 2^53")]
    AmzDate::parse_basic(&basic).map(|date| (date.unix_ms() / 1000) as f64)
}

/// An address, or a network in CIDR notation.
fn network(value: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(bits_max), |bits| bits.parse().ok())?;
    (bits <= bits_max).then_some((address, bits))
}

fn contains((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    // An IPv4 client of an IPv6 socket comes as a mapped address.
    match (network, address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32_u32.saturating_sub(u32::from(bits));
            let prefix = |address: u32| address.checked_shr(shift).unwrap_or(0);
            prefix(network.to_bits()) == prefix(address.to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128_u32.saturating_sub(u32::from(bits));
            let prefix = |address: u128| address.checked_shr(shift).unwrap_or(0);
            prefix(network.to_bits()) == prefix(address.to_bits())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
