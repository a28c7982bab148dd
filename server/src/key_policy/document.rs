//! Key policies: AWS's JSON, read strictly, and what they say about a question.
//!
//! Owns: the elements of a document, their checks, and the order of decisions: an explicit Deny
//! wins, then an Allow that names the caller, then one that leaves it to the account. Knows
//! nothing of: users' rights without a policy, grants, where documents are kept. Pure.
//!
//! Invariants
//! - What this file does not know is refused when a policy is written, never ignored: elements,
//!   operators, condition keys, actions, principals, members that stand twice.
//! - A document names principals of one account only, so that no policy reaches another tenant.
//! - One more Deny never allows more, one Allow less never allows more.
//!   Rules: docs/ARCHITECTURE.md, "Rights".

use super::actions;
use super::condition::{Condition, Values};
use super::json::{self, Json};
use super::pattern;
use crate::auth::AccountId;

/// AWS KMS allows a key policy of 32 KiB.
pub(super) const POLICY_BYTES_MAX: usize = 32 * 1024;
/// The namespace and name of a user, as in an ARN. AWS IAM allows names of 64 characters.
const USER_NAME_BYTES_MAX: usize = 64;
const VERSIONS: [&str; 2] = ["2008-10-17", "2012-10-17"];
/// Only in documents of this version does `${…}` stand for something.
const VERSION_WITH_VARIABLES: &str = "2012-10-17";

/// A key policy.
#[derive(Debug)]
pub(super) struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    sid: Option<String>,
    is_deny: bool,
    /// Whether `principals` are those that the statement is *not* about.
    excepts_principals: bool,
    principals: Vec<Named>,
    actions: Patterns,
    resources: Patterns,
    conditions: Vec<Condition>,
}

/// A principal that a statement names.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// The account: its root user, and by delegation its users.
    Account,
    /// Everyone.
    Everyone,
    /// One user of the account.
    User(String),
}

/// Patterns that a statement is about, or is not about.
#[derive(Debug)]
struct Patterns {
    is_except: bool,
    patterns: Vec<String>,
}

/// What is asked of a policy.
pub(super) struct Question<'a> {
    /// The caller's name; none for the account's root user.
    pub(super) user_name: Option<&'a str>,
    /// The action, namespace included.
    pub(super) action: &'a str,
    /// The key's ARN.
    pub(super) resource: &'a str,
    /// The request's values.
    pub(super) values: &'a dyn Values,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An Allow names the caller.
    Allowed,
    /// An Allow leaves it to the account: what the caller may do by itself, it may do here.
    Delegated,
    /// A Deny applies; its `Sid`, if it has one.
    Denied(Option<String>),
    /// Nothing applies.
    Silent,
}

impl Policy {
    /// Reads and checks a document for a key of `account`. The message says what is wrong.
    pub(super) fn parse(text: &str, account: AccountId, key_arn: &str) -> Result<Self, String> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(format!("the policy is longer than {POLICY_BYTES_MAX} bytes"));
        }
        let members = object(json::read(text)?, "the policy")?;
        let mut statements = None;
        let mut version = "2008-10-17".to_owned();
        for (name, value) in members {
            match name.as_str() {
                "Id" => drop(string(value, "Id")?),
                "Statement" => statements = Some(value),
                "Version" => version = string(value, "Version")?,
                _ => return Err(format!("the policy has an unknown element {name:?}")),
            }
        }
        if !VERSIONS.contains(&version.as_str()) {
            return Err(format!("Version is one of {}", VERSIONS.join(" and ")));
        }
        let has_variables = version == VERSION_WITH_VARIABLES;
        let statements = statements.ok_or("the policy has no Statement")?;
        let statements: Vec<_> = items(statements)
            .into_iter()
            .map(|statement| Statement::parse(statement, account, has_variables))
            .collect::<Result<_, _>>()?;
        if statements.is_empty() {
            return Err("the policy has no Statement".to_owned());
        }
        for statement in &statements {
            statement.check_resources(key_arn)?;
        }
        Ok(Self { statements })
    }

    /// What the policy says.
    pub(super) fn verdict(&self, question: &Question<'_>) -> Verdict {
        let action = question.action.to_ascii_lowercase();
        let applies = |statement: &&Statement| {
            statement.actions.match_any(&action)
                && statement.resources.match_any(question.resource)
                && statement.conditions.iter().all(|one| one.holds(question.values))
        };
        let denies = self.statements.iter().filter(|statement| statement.is_deny);
        let mut denies = denies.filter(|statement| statement.concerns(question.user_name));
        if let Some(deny) = denies.find(applies) {
            return Verdict::Denied(deny.sid.clone());
        }
        let mut verdict = Verdict::Silent;
        for allow in self.statements.iter().filter(|statement| !statement.is_deny) {
            let names_caller = allow.names(question.user_name);
            let is_news = names_caller || verdict == Verdict::Silent;
            if is_news && allow.concerns(question.user_name) && applies(&allow) {
                if names_caller {
                    return Verdict::Allowed;
                }
                verdict = Verdict::Delegated;
            }
        }
        verdict
    }

    /// How many statements it has.
    #[cfg(test)]
    pub(super) fn statement_count(&self) -> usize {
        self.statements.len()
    }
}

impl Statement {
    fn parse(value: Json, account: AccountId, has_variables: bool) -> Result<Self, String> {
        let mut members = Members(object(value, "a statement")?);
        let sid = members.take("Sid").map(|value| string(value, "Sid")).transpose()?;
        let is_deny = match members.take("Effect").map(|value| string(value, "Effect")) {
            Some(Ok(effect)) if effect == "Allow" => false,
            Some(Ok(effect)) if effect == "Deny" => true,
            Some(Err(message)) => return Err(message),
            _ => return Err("Effect is Allow or Deny".to_owned()),
        };
        let (excepts_principals, principals) = members.either("Principal", "NotPrincipal")?;
        if excepts_principals && !is_deny {
            return Err("NotPrincipal goes with Deny only".to_owned());
        }
        let principals = named_principals(principals, account)?;
        if excepts_principals && principals.contains(&Named::Everyone) {
            return Err("NotPrincipal excepts everyone".to_owned());
        }
        let (is_except, patterns) = members.either("Action", "NotAction")?;
        let patterns = action_patterns(patterns)?;
        let actions = Patterns { is_except, patterns };
        let (is_except, patterns) = members.either("Resource", "NotResource")?;
        let patterns = strings(patterns, "Resource")?;
        let resources = Patterns { is_except, patterns };
        let conditions = members.take("Condition");
        let conditions =
            conditions.map_or(Ok(Vec::new()), |value| conditions_of(value, has_variables))?;
        if let Some((name, _)) = members.0.first() {
            return Err(format!("a statement has an unknown element {name:?}"));
        }
        let parsed =
            Self { sid, is_deny, excepts_principals, principals, actions, resources, conditions };
        Ok(parsed)
    }

    /// A statement about another key would never apply, and its author believes that it does.
    fn check_resources(&self, key_arn: &str) -> Result<(), String> {
        let resources = &self.resources;
        let is_foreign = |pattern: &&String| !pattern::matches(pattern, key_arn);
        match resources.patterns.iter().find(is_foreign) {
            Some(other) if !resources.is_except => {
                Err(format!("the resource {other:?} is not this key; `*` names it"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the caller is among those the statement is about.
    fn concerns(&self, user_name: Option<&str>) -> bool {
        if self.excepts_principals {
            return !self.names(user_name);
        }
        self.principals.contains(&Named::Account) || self.names(user_name)
    }

    /// Whether the caller itself is named, not only its account.
    fn names(&self, user_name: Option<&str>) -> bool {
        self.principals.iter().any(|named| match named {
            Named::Account => user_name.is_none(),
            Named::Everyone => true,
            Named::User(name) => user_name == Some(name.as_str()),
        })
    }
}

impl Patterns {
    fn match_any(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern::matches(pattern, text)) != self.is_except
    }
}

/// A statement's members that were not read yet.
struct Members(Vec<(String, Json)>);

impl Members {
    fn take(&mut self, name: &str) -> Option<Json> {
        let index = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(index).1)
    }

    /// Exactly one of an element and its `Not…`; tells whether it is the latter.
    fn either(&mut self, name: &str, not_name: &str) -> Result<(bool, Json), String> {
        match (self.take(name), self.take(not_name)) {
            (Some(value), None) => Ok((false, value)),
            (None, Some(value)) => Ok((true, value)),
            _ => Err(format!("a statement has one of {name} and {not_name}")),
        }
    }
}

fn object(value: Json, what: &str) -> Result<Vec<(String, Json)>, String> {
    match value {
        Json::Object(members) => Ok(members),
        other => Err(format!("{what} is {}, not an object", other.kind())),
    }
}

fn string(value: Json, what: &str) -> Result<String, String> {
    match value {
        Json::Text(text) => Ok(text),
        other => Err(format!("{what} is {}, not a string", other.kind())),
    }
}

/// One or more.
fn items(value: Json) -> Vec<Json> {
    match value {
        Json::List(items) => items,
        one => vec![one],
    }
}

fn strings(value: Json, what: &str) -> Result<Vec<String>, String> {
    let texts: Vec<_> =
        items(value).into_iter().map(|item| string(item, what)).collect::<Result<_, _>>()?;
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(format!("{what} names nothing"));
    }
    Ok(texts)
}

fn action_patterns(value: Json) -> Result<Vec<String>, String> {
    let mut patterns = strings(value, "Action")?;
    for action in &mut patterns {
        let pattern = action.to_ascii_lowercase();
        if !actions::names_an_action(&pattern) {
            return Err(format!("the action {action:?} names no action of a key"));
        }
        *action = pattern;
    }
    Ok(patterns)
}

fn named_principals(value: Json, account: AccountId) -> Result<Vec<Named>, String> {
    let value = match value {
        Json::Text(text) if text == "*" => return Ok(vec![Named::Everyone]),
        other => object(other, "Principal")?,
    };
    let mut named = Vec::new();
    for (name, value) in value {
        if name != "AWS" {
            return Err(format!("principals of the kind {name:?} are not known"));
        }
        for text in strings(value, "Principal")? {
            named.push(principal(&text, account)?);
        }
    }
    if named.is_empty() {
        return Err("Principal names nobody".to_owned());
    }
    Ok(named)
}

/// A principal as policies and grants name it.
fn principal(text: &str, account: AccountId) -> Result<Named, String> {
    if text == "*" {
        return Ok(Named::Everyone);
    }
    match user_of_arn(text, account) {
        Some(None) => Ok(Named::Account),
        Some(Some(name)) => Ok(Named::User(name.to_owned())),
        None => Err(format!("the principal {text:?} is not valid in this account")),
    }
}

/// The user that an ARN of this account names: none for its root user. Nothing, if it is another
/// account's, or no principal at all.
#[expect(clippy::option_option, reason = "no principal, root, or a user: read in one step")]
pub(super) fn user_of_arn(text: &str, account: AccountId) -> Option<Option<&str>> {
    let account = account.to_string();
    if text == account {
        return Some(None);
    }
    let inside = text.strip_prefix("arn:aws:iam::")?.strip_prefix(&account)?.strip_prefix(':')?;
    if inside == "root" {
        return Some(None);
    }
    let name = inside.strip_prefix("user/")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    let is_name = !name.is_empty() && name.len() <= USER_NAME_BYTES_MAX && name.bytes().all(plain);
    is_name.then_some(Some(name))
}

fn conditions_of(value: Json, has_variables: bool) -> Result<Vec<Condition>, String> {
    let mut conditions = Vec::new();
    for (operator, keys) in object(value, "Condition")? {
        for (key, values) in object(keys, &operator)? {
            let values: Vec<_> = items(values)
                .into_iter()
                .map(|value| match value {
                    Json::Bool(value) => Ok(value.to_string()),
                    Json::Number(text) | Json::Text(text) => Ok(text),
                    other => Err(format!("{operator} on {key} has {} as a value", other.kind())),
                })
                .collect::<Result<_, _>>()?;
            if has_variables && values.iter().any(|value| value.contains("${")) {
                return Err("policy variables (`${…}`) are not supported".to_owned());
            }
            conditions.push(Condition::parse(&operator, &key, &values)?);
        }
    }
    Ok(conditions)
}

#[cfg(test)]
mod tests;
