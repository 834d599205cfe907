//! The messages and methods of `nemo.admin.v1` as the compiled descriptors tell them, with their comments: what the
//! document and the reading of query strings go by. The same descriptors serve gRPC reflection.
//!
//! Called by [`super::openapi`] and [`super::input`].

use std::{collections::BTreeMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const PACKAGE: &str = "nemo.admin.v1";
/// Numbers of the members of the descriptors, as paths to comments use them.
const FILE_MESSAGES: i32 = 4;
const FILE_SERVICES: i32 = 6;
const MEMBER: i32 = 2;

/// Everything that the package declares.
#[derive(Debug, Default)]
pub(super) struct Api {
    messages: BTreeMap<String, Message>,
    /// By the name of the operation: `create_team`.
    methods: BTreeMap<String, Method>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub comment: String,
    pub fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub comment: String,
    pub kind: Kind,
    pub repeated: bool,
    /// Can be `null`: declared `optional`, or a message.
    pub optional: bool,
}

/// What a member holds, in the terms of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    /// Bounds included.
    Integer {
        least: i64,
        most: u64,
    },
    Number,
    /// RFC 3339.
    Time,
    Message(String),
    Map(Box<Kind>),
    /// Not used by the admin API: anything goes.
    Other,
}

#[derive(Debug)]
pub(super) struct Method {
    pub service: String,
    /// `CreateTeam`.
    pub name: String,
    pub comment: String,
    #[cfg(test)]
    pub request: String,
    pub response: String,
}

/// Decoded once. The set is part of the binary, so that it can't be read is a fault of the build; a test would show it.
pub(super) static API: LazyLock<Api> = LazyLock::new(|| match Api::decode(nemo_proto::DESCRIPTORS) {
    Ok(api) => api,
    Err(error) => {
        tracing::error!(%error, "the descriptors of the admin API can't be read");
        Api::default()
    }
});

impl Api {
    fn decode(descriptors: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut api = Self::default();
        for file in FileDescriptorSet::decode(descriptors)?.file {
            if file.package() == PACKAGE {
                api.add(&file);
            }
        }
        Ok(api)
    }

    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.get(name)
    }

    pub(super) fn method(&self, operation: &str) -> Option<&Method> {
        self.methods.get(operation)
    }

    #[cfg(test)]
    pub(super) fn methods(&self) -> &BTreeMap<String, Method> {
        &self.methods
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> &BTreeMap<String, Message> {
        &self.messages
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let comments = comments(file);
        let comment = |path: &[i32]| comments.get(path).cloned().unwrap_or_default();
        for (at, message) in (0_i32..).zip(&file.message_type) {
            let fields = (0_i32..).zip(&message.field).map(|(number, field)| {
                let comment = comment(&[FILE_MESSAGES, at, MEMBER, number]);
                Field::new(field, message, comment)
            });
            let known = Message { comment: comment(&[FILE_MESSAGES, at]), fields: fields.collect() };
            self.messages.insert(message.name().to_owned(), known);
        }
        for (at, service) in (0_i32..).zip(&file.service) {
            for (number, method) in (0_i32..).zip(&service.method) {
                let known = Method {
                    service: service.name().to_owned(),
                    name: method.name().to_owned(),
                    comment: comment(&[FILE_SERVICES, at, MEMBER, number]),
                    #[cfg(test)]
                    request: short(method.input_type()).to_owned(),
                    response: short(method.output_type()).to_owned(),
                };
                self.methods.insert(snake_case(method.name()), known);
            }
        }
    }
}

impl Field {
    fn new(field: &FieldDescriptorProto, of: &DescriptorProto, comment: String) -> Self {
        let kind = Kind::new(field, of);
        let repeated = field.label() == Label::Repeated && !matches!(kind, Kind::Map(_));
        let message = field.r#type() == Type::Message && field.label() != Label::Repeated;
        let optional = field.proto3_optional() || message;
        Self { name: field.name().to_owned(), comment, kind, repeated, optional }
    }
}

impl Kind {
    fn new(field: &FieldDescriptorProto, of: &DescriptorProto) -> Self {
        let integer = |least, most| Self::Integer { least, most };
        match field.r#type() {
            Type::String => Self::Text,
            Type::Bool => Self::Bool,
            Type::Uint32 | Type::Fixed32 => integer(0, u32::MAX.into()),
            Type::Uint64 | Type::Fixed64 => integer(0, u64::MAX),
            Type::Int32 | Type::Sint32 | Type::Sfixed32 | Type::Enum => {
                integer(i32::MIN.into(), i32::MAX.unsigned_abs().into())
            }
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => integer(i64::MIN, i64::MAX.unsigned_abs()),
            Type::Double | Type::Float => Self::Number,
            Type::Message if field.type_name() == ".google.protobuf.Timestamp" => Self::Time,
            Type::Message => match map_value(field, of) {
                Some(value) => Self::Map(Box::new(Self::new(value, of))),
                None => Self::Message(short(field.type_name()).to_owned()),
            },
            Type::Bytes | Type::Group => Self::Other,
        }
    }
}

/// The value of a `map<..>`, which is declared as a nested message of pairs.
fn map_value<'d>(field: &FieldDescriptorProto, of: &'d DescriptorProto) -> Option<&'d FieldDescriptorProto> {
    let entry = of.nested_type.iter().find(|nested| nested.name() == short(field.type_name()))?;
    entry.options.as_ref().filter(|options| options.map_entry())?;
    entry.field.iter().find(|field| field.name() == "value")
}

/// The last part of a full name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Comments by the path of what they describe, as one line of prose.
fn comments(file: &FileDescriptorProto) -> BTreeMap<Vec<i32>, String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let prose = locations.filter_map(|location| {
        let text = [location.leading_comments(), location.trailing_comments()].join(" ");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then(|| (location.path.clone(), text))
    });
    prose.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_members_methods_and_comments_are_read_from_the_descriptors() {
        let team = API.method("create_team").unwrap();
        assert_eq!(
            (&*team.service, &*team.request, &*team.response),
            ("TenancyService", "CreateTeamRequest", "Team")
        );
        assert!(!API.method("issue_key").unwrap().comment.is_empty());
        let field = |message: &str, name: &str| {
            let fields = &API.message(message).unwrap().fields;
            let field = fields.iter().find(|field| field.name == name).unwrap();
            (field.kind.clone(), field.repeated, field.optional)
        };
        assert_eq!(field("Team", "created_at"), (Kind::Time, false, true));
        assert_eq!(field("Key", "allowed_models"), (Kind::Text, true, false));
        assert_eq!(field("UpdateTeamRequest", "disabled"), (Kind::Bool, false, true));
        assert_eq!(field("Link", "deployments"), (Kind::Message("LinkDeployment".into()), true, false));
        assert_eq!(
            field("Price", "input").0,
            Kind::Integer { least: i64::MIN, most: i64::MAX.unsigned_abs() }
        );
    }

    #[test]
    fn no_member_is_of_a_kind_that_json_can_not_show() {
        for (name, message) in API.messages() {
            for field in &message.fields {
                assert_ne!(field.kind, Kind::Other, "{name}.{}", field.name);
                if let Kind::Message(of) = &field.kind {
                    assert!(API.message(of).is_some(), "{name}.{}: {of}", field.name);
                }
            }
        }
    }
}
