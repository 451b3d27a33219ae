//! The handshake's JSON: what a client says of itself, and what the server answers. Both directions, both roles.

use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json_text;
use crate::packet::HEADER_BYTES;

/// How bodies that are not raw bytes are written on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Serializer {
    /// For tools and JavaScript.
    Json,
    /// Protocol buffers.
    Protobuf,
}

/// What a client says of itself. Fields that it left out, or that are not what they should be, are `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientHandshake {
    /// `sys.type`: `js-websocket`, `unity-socket`; libpitaya sends none.
    pub sys_type: Option<String>,
    /// `sys.version`, or libpitaya's `sys.libVersion`.
    pub version: Option<String>,
    /// `sys.platform`, of libpitaya.
    pub platform: Option<String>,
    /// `sys.clientVersion`, of libpitaya: the game's own.
    pub client_version: Option<String>,
    /// `sys.gs`: the client knows this server's additions.
    pub gs: Option<GsRequest>,
    /// `user`, as JSON text; `None` when absent or `null`.
    pub user: Option<String>,
    /// `dictVersion`: of the route dictionary that the client has kept.
    pub dict_version: Option<String>,
}

/// The `sys.gs` object of a client.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GsRequest {
    /// Which serializer it wants; `None`: the server's choice.
    pub serializer: Option<Serializer>,
    /// It wants the route dictionary, and messages with codes.
    pub dict: bool,
    /// It wants the schema, unless it still is the one with this digest.
    pub schema: Option<String>,
    /// It can go on with a session over another connection, and perhaps wants to.
    pub resume: Option<ResumeRequest>,
    /// It shows the replicated world: snapshots are sent to it.
    pub world: bool,
    /// Everything in the object, also what is not known here.
    pub fields: Map<String, Value>,
}

/// What a client says of the session that it wants to go on with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResumeRequest {
    /// The last token that it was given; `None`: it has none, and wants one.
    pub token: Option<String>,
    /// So many of the session's counted messages from the server it has handled.
    pub seen: u64,
}

/// Why a handshake is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// No JSON, or JSON that is no object.
    #[error("handshake is no JSON object")]
    NotAnObject,
    /// Nested over [`DEPTH_MAX`].
    #[error("handshake nested {0} deep: at most {DEPTH_MAX} allowed")]
    TooDeep(usize),
    /// A server's answer without a whole number as `code`.
    #[error("handshake answer without a code")]
    NoCode,
}

/// How deep a handshake's arrays and objects may be nested.
pub const DEPTH_MAX: usize = 32;

/// How an answer ends the handshake. The numbers are Pomelo's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// The login was rejected.
    Rejected = 400,
    /// The game's own check failed.
    Failed = 500,
    /// The client is too old.
    TooOld = 501,
}

/// The server's answer, to be filled in and then written by [`ServerHandshake::to_bytes`].
#[derive(Debug, Clone, PartialEq)]
pub struct ServerHandshake<'a> {
    /// Seconds between heartbeats: a whole number over 0, or some clients crash.
    pub heartbeat: NonZeroU32,
    /// What the client is told about bodies.
    pub serializer: Serializer,
    /// The route dictionary. Only for a client that asked: others crash on codes, or use them at once.
    pub dict: &'a [(&'a str, u16)],
    /// The `sys.gs` object, only for a client that sent one.
    pub gs: Option<GsAnswer<'a>>,
    /// The `user` object as JSON text; `{}` where the game has nothing to say.
    pub user: &'a str,
}

/// The `sys.gs` object of the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GsAnswer<'a> {
    /// The session's public id, written as a decimal string: JavaScript's numbers are too short for it.
    pub session: u64,
    /// Only for a client that asked.
    pub schema: Option<SchemaAnswer<'a>>,
    /// Only for a client that can use it.
    pub resume: Option<ResumeAnswer<'a>>,
    /// More fields.
    pub fields: Map<String, Value>,
}

/// What a client needs to come back, and whether it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeAnswer<'a> {
    /// For the next time: a secret.
    pub token: &'a str,
    /// How long the session waits for its client, in milliseconds.
    pub grace_ms: u64,
    /// The session goes on, and so many of the client's counted messages are handled; `None`: it is a new one.
    pub seen: Option<u64>,
}

/// [`ResumeAnswer`] as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeOffer {
    /// For the next time: a secret.
    pub token: String,
    /// How long the session waits for us, in milliseconds.
    pub grace_ms: u64,
    /// The session goes on, and so many of our counted messages are handled; `None`: it is a new one.
    pub seen: Option<u64>,
}

/// What a client is told that asked for the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaAnswer<'a> {
    /// What it has is current: the digest of that.
    Current(&'a str),
    /// The document, as JSON text.
    Document(&'a str),
}

/// A server's answer, as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerAnswer {
    /// 200: welcome. Else the connection is about to be closed.
    pub code: u32,
    /// Seconds between heartbeats; `None`: no heartbeats.
    pub heartbeat: Option<NonZeroU32>,
    /// As told; `None` from servers that do not say.
    pub serializer: Option<Serializer>,
    /// The route dictionary.
    pub dict: Vec<(String, u16)>,
    /// The session's id, from a server that sent `sys.gs`.
    pub session: Option<u64>,
    /// How to go on with the session, from a server that lets us.
    pub resume: Option<ResumeOffer>,
    /// The server's `sys.gs`.
    pub gs: Option<Map<String, Value>>,
    /// `user`, as JSON text.
    pub user: Option<String>,
}

impl Serializer {
    /// As the handshake spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    /// The serializer of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

impl ClientHandshake {
    /// Reads a client's handshake: lenient toward what is missing, unknown or of another type, strict about JSON.
    pub fn parse(body: &[u8]) -> Result<Self, HandshakeError> {
        let body = json_text::repair_surrogates(body);
        let top: ClientTop<'_> = parse_object(&body)?;
        let text = |name| text(top.sys.get(name));
        Ok(Self {
            sys_type: text("type"),
            version: text("version").or_else(|| text("libVersion")),
            platform: text("platform"),
            client_version: text("clientVersion"),
            gs: top.sys.get("gs").and_then(Value::as_object).map(GsRequest::read),
            user: top.user.map(|user| user.get().to_owned()),
            dict_version: text_or_number(&top.dict_version),
        })
    }

    /// The handshake of a client that is ours: `user` is JSON text.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sys = Map::new();
        let mut put = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                sys.insert(name.to_owned(), Value::from(value.as_str()));
            }
        };
        put("type", &self.sys_type);
        put("version", &self.version);
        put("platform", &self.platform);
        put("clientVersion", &self.client_version);
        if let Some(gs) = &self.gs {
            sys.insert("gs".to_owned(), Value::Object(gs.write()));
        }
        let user = self.user.as_deref().unwrap_or("{}");
        let dict_version = match &self.dict_version {
            Some(version) => format!(",\"dictVersion\":{}", Value::from(version.as_str())),
            None => String::new(),
        };
        let json = format!("{{\"sys\":{},\"user\":{user}{dict_version}}}", Value::Object(sys));
        json_text::escape_ascii(json.as_bytes()).into_owned()
    }

    /// A JavaScript client: bodies toward it are JSON, never empty, never compressed.
    pub fn is_javascript(&self) -> bool {
        self.sys_type.as_deref().is_some_and(|name| name.starts_with("js"))
    }
}

impl GsRequest {
    fn read(fields: &Map<String, Value>) -> Self {
        Self {
            serializer: fields.get("serializer").and_then(Value::as_str).and_then(Serializer::from_name),
            dict: fields.get("dict").and_then(Value::as_bool).unwrap_or(false),
            schema: fields.get("schema").and_then(Value::as_str).map(str::to_owned),
            resume: fields.get("resume").and_then(Value::as_object).map(|resume| ResumeRequest {
                token: resume.get("token").and_then(Value::as_str).map(str::to_owned),
                seen: resume.get("seen").and_then(Value::as_u64).unwrap_or(0),
            }),
            world: fields.get("world").and_then(Value::as_bool).unwrap_or(false),
            fields: fields.clone(),
        }
    }

    fn write(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        if let Some(serializer) = self.serializer {
            fields.insert("serializer".to_owned(), Value::from(serializer.name()));
        }
        if self.dict {
            fields.insert("dict".to_owned(), Value::from(true));
        }
        if let Some(digest) = &self.schema {
            fields.insert("schema".to_owned(), Value::from(digest.as_str()));
        }
        if let Some(resume) = &self.resume {
            let json = match &resume.token {
                Some(token) => serde_json::json!({ "token": token, "seen": resume.seen }),
                None => serde_json::json!({}),
            };
            fields.insert("resume".to_owned(), json);
        }
        if self.world {
            fields.insert("world".to_owned(), Value::from(true));
        }
        fields
    }
}

impl ServerHandshake<'_> {
    /// The answer's JSON: the body of a handshake packet that is no multiple of 1024 bytes long, header included.
    pub fn to_bytes(&self) -> Vec<u8> {
        answer(200, self.sys(), self.user)
    }

    /// The JSON of a refusal with this reason in `user`. The heartbeat is in it too: there are clients that read
    /// that, and not the code.
    pub fn refusal(heartbeat: NonZeroU32, code: RefusalCode, user_code: &str, user_msg: &str) -> Vec<u8> {
        let user = format!("{{\"code\":{},\"msg\":{}}}", Value::from(user_code), Value::from(user_msg));
        answer(code as u16, format!("{{\"heartbeat\":{heartbeat}}}"), &user)
    }

    fn sys(&self) -> String {
        let routes: Vec<String> =
            self.dict.iter().map(|(route, code)| format!("{}:{code}", Value::from(*route))).collect();
        let gs = match &self.gs {
            Some(gs) => format!(",\"gs\":{}", gs.write(self.serializer)),
            None => String::new(),
        };
        format!(
            "{{\"heartbeat\":{},\"dict\":{{{}}},\"serializer\":\"{}\"{gs}}}",
            self.heartbeat,
            routes.join(","),
            self.serializer.name(),
        )
    }
}

impl GsAnswer<'_> {
    fn write(&self, serializer: Serializer) -> String {
        let mut fields = self.fields.clone();
        fields.insert("session".to_owned(), Value::from(self.session.to_string()));
        fields.insert("serializer".to_owned(), Value::from(serializer.name()));
        if let Some(resume) = &self.resume {
            let mut json = serde_json::json!({ "token": resume.token, "grace": resume.grace_ms });
            if let Some(seen) = resume.seen {
                json["seen"] = seen.into();
            }
            fields.insert("resume".to_owned(), json);
        }
        let document = match self.schema {
            Some(SchemaAnswer::Current(digest)) => {
                fields.insert("digest".to_owned(), Value::from(digest));
                None
            }
            Some(SchemaAnswer::Document(document)) => Some(document),
            None => None,
        };
        let mut json = Value::Object(fields).to_string();
        if let Some(document) = document {
            // As it is: it may be long, and each client that is new gets it.
            json.truncate(json.len() - 1);
            json.push_str(",\"schema\":");
            json.push_str(document);
            json.push('}');
        }
        json
    }
}

impl ServerAnswer {
    /// Reads a server's answer. The Go servers may compress it: inflate it before.
    pub fn parse(body: &[u8]) -> Result<Self, HandshakeError> {
        let body = json_text::repair_surrogates(body);
        let top: ServerTop<'_> = parse_object(&body)?;
        let code =
            top.code.as_u64().and_then(|code| u32::try_from(code).ok()).ok_or(HandshakeError::NoCode)?;
        let gs = top.sys.get("gs").and_then(Value::as_object);
        Ok(Self {
            code,
            heartbeat: top.sys.get("heartbeat").and_then(seconds),
            serializer: top.sys.get("serializer").and_then(Value::as_str).and_then(Serializer::from_name),
            dict: top.sys.get("dict").and_then(Value::as_object).map(routes).unwrap_or_default(),
            session: gs.and_then(|gs| gs.get("session")?.as_str()?.parse().ok()),
            resume: gs.and_then(|gs| ResumeOffer::read(gs.get("resume")?)),
            gs: gs.cloned(),
            user: top.user.map(|user| user.get().to_owned()),
        })
    }
}

impl ResumeOffer {
    fn read(resume: &Value) -> Option<Self> {
        Some(Self {
            token: resume.get("token")?.as_str()?.to_owned(),
            grace_ms: resume.get("grace")?.as_u64()?,
            seen: resume.get("seen").and_then(Value::as_u64),
        })
    }
}

#[derive(Deserialize)]
struct ClientTop<'a> {
    #[serde(default)]
    sys: Value,
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
    #[serde(default, rename = "dictVersion")]
    dict_version: Value,
}

#[derive(Deserialize)]
struct ServerTop<'a> {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    sys: Value,
    #[serde(default, borrow)]
    user: Option<&'a RawValue>,
}

/// The depth is judged first: parsers, also those that `user` meets later, descend.
fn parse_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, HandshakeError> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(HandshakeError::NotAnObject);
    }
    let deep = json_text::depth(body);
    if deep > DEPTH_MAX {
        return Err(HandshakeError::TooDeep(deep));
    }
    // The parser alone would pass over broken text in fields that nobody reads.
    let body = std::str::from_utf8(body).map_err(|_| HandshakeError::NotAnObject)?;
    serde_json::from_str(body).map_err(|_| HandshakeError::NotAnObject)
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().map(str::to_owned)
}

fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Some servers write seconds as `1.0`.
fn seconds(value: &Value) -> Option<NonZeroU32> {
    let seconds = value.as_f64().filter(|seconds| (1.0..=f64::from(u32::MAX)).contains(seconds))?;
    NonZeroU32::new(seconds as u32)
}

fn routes(dict: &Map<String, Value>) -> Vec<(String, u16)> {
    dict.iter()
        .filter_map(|(route, code)| Some((route.clone(), u16::try_from(code.as_u64()?).ok()?)))
        .collect()
}

fn answer(code: u16, sys: String, user: &str) -> Vec<u8> {
    let json = format!("{{\"code\":{code},\"sys\":{sys},\"user\":{user}}}");
    let mut body = json_text::escape_ascii(json.as_bytes()).into_owned();
    if (HEADER_BYTES + body.len()).is_multiple_of(GO_READ_BYTES) {
        body.push(b' ');
    }
    body
}

/// Pitaya's Go client reads this much at a time, and waits for more when it got exactly that.
const GO_READ_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: NonZeroU32 = NonZeroU32::new(15).unwrap();

    const WELCOME: ServerHandshake<'static> = ServerHandshake {
        heartbeat: HEARTBEAT,
        serializer: Serializer::Json,
        dict: &[],
        gs: None,
        user: "{}",
    };

    #[test]
    fn starx_and_pomelo_js() {
        let body = br#"{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}},"user":{"name":"a"},"dictVersion":7}"#;
        let client = ClientHandshake::parse(body).unwrap();
        assert_eq!(client.sys_type.as_deref(), Some("js-websocket"));
        assert_eq!(client.version.as_deref(), Some("0.0.1"));
        assert_eq!(client.user.as_deref(), Some(r#"{"name":"a"}"#));
        assert_eq!(client.dict_version.as_deref(), Some("7"));
        assert_eq!(client.gs, None);
        assert!(client.is_javascript());
    }

    #[test]
    fn libpitaya() {
        let body = br#"{"sys":{"platform":"mac","libVersion":"0.3.5-release","clientBuildNumber":"20","clientVersion":"2.1"},"user":{}}"#;
        let client = ClientHandshake::parse(body).unwrap();
        assert_eq!(client.version.as_deref(), Some("0.3.5-release"));
        assert_eq!(client.platform.as_deref(), Some("mac"));
        assert_eq!(client.client_version.as_deref(), Some("2.1"));
        assert!(!client.is_javascript());
    }

    #[test]
    fn lenient_toward_fields() {
        for body in [
            "{}",
            " {\"sys\":1,\"user\":null}",
            r#"{"sys":{"type":5,"gs":[]},"x":{"y":[]},"dictVersion":{}}"#,
        ] {
            let client = ClientHandshake::parse(body.as_bytes()).unwrap();
            assert_eq!((client.sys_type, client.gs, client.user), (None, None, None));
        }
    }

    #[test]
    fn strict_about_json() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"[{},{},1]",
            b"{",
            b"{} {}",
            b"{\"user\":{]}",
            b"{\"a\":\"\xff\"}",
            b"\x78\x9c",
        ] {
            assert_eq!(ClientHandshake::parse(body), Err(HandshakeError::NotAnObject), "{body:?}");
        }
        let deep = format!("{{\"user\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(ClientHandshake::parse(deep.as_bytes()), Err(HandshakeError::TooDeep(100_001)));
    }

    #[test]
    fn surrogate_bytes_in_the_user() {
        let client = ClientHandshake::parse(b"{\"user\":{\"n\":\"\xed\xa0\xbd\xed\xb8\x80\"}}").unwrap();
        assert_eq!(client.user.as_deref(), Some("{\"n\":\"😀\"}"));
    }

    #[test]
    fn what_a_client_of_ours_asks_for() {
        let mut client = ClientHandshake::parse(b"{}").unwrap();
        client.gs = Some(GsRequest {
            serializer: Some(Serializer::Protobuf),
            dict: true,
            world: true,
            ..GsRequest::default()
        });
        client.user = Some(r#"{"é":"😀"}"#.to_owned());
        let bytes = client.to_bytes();
        assert!(bytes.is_ascii());
        let read = ClientHandshake::parse(&bytes).unwrap();
        let gs = read.gs.unwrap();
        assert_eq!((gs.serializer, gs.dict, gs.world), (Some(Serializer::Protobuf), true, true));
        let user: Value = serde_json::from_str(&read.user.unwrap()).unwrap();
        assert_eq!(user["é"], "😀");
    }

    #[test]
    fn the_plain_answer() {
        assert_eq!(
            WELCOME.to_bytes(),
            br#"{"code":200,"sys":{"heartbeat":15,"dict":{},"serializer":"json"},"user":{}}"#
        );
    }

    #[test]
    fn the_answer_to_one_of_ours() {
        let gs = GsAnswer { session: u64::MAX, ..GsAnswer::default() };
        let bytes = ServerHandshake {
            serializer: Serializer::Protobuf,
            dict: &[("room.join", 1), ("é", 65_535)],
            gs: Some(gs),
            user: r#"{"rank":"日"}"#,
            ..WELCOME
        }
        .to_bytes();
        assert!(bytes.is_ascii());
        let answer = ServerAnswer::parse(&bytes).unwrap();
        assert_eq!((answer.code, answer.heartbeat), (200, Some(HEARTBEAT)));
        assert_eq!(answer.serializer, Some(Serializer::Protobuf));
        assert_eq!(answer.session, Some(u64::MAX));
        assert_eq!(answer.dict, [("room.join".to_owned(), 1), ("é".to_owned(), 65_535)]);
        assert_eq!(answer.user.as_deref(), Some(r#"{"rank":"\u65e5"}"#));
    }

    #[test]
    fn the_schema_is_sent_as_it_is_or_as_its_digest() {
        let gs_of = |schema| {
            let gs = GsAnswer { schema, ..GsAnswer::default() };
            ServerAnswer::parse(&ServerHandshake { gs: Some(gs), ..WELCOME }.to_bytes()).unwrap().gs.unwrap()
        };
        let document = r#"{"digest":"d","messages":{"Mövé":[]}}"#;
        let sent = gs_of(Some(SchemaAnswer::Document(document)));
        assert_eq!(sent["schema"], serde_json::from_str::<Value>(document).unwrap());
        assert_eq!((sent.get("digest"), &sent["session"]), (None, &Value::from("0")));
        let current = gs_of(Some(SchemaAnswer::Current("d\"")));
        assert_eq!((&current["digest"], current.get("schema")), (&Value::from("d\""), None));
        let none = gs_of(None);
        assert_eq!((none.get("digest"), none.get("schema")), (None, None));
    }

    #[test]
    fn how_to_come_back() {
        let ask = |gs: &str| {
            let body = format!("{{\"sys\":{{\"gs\":{gs}}}}}");
            ClientHandshake::parse(body.as_bytes()).unwrap().gs.unwrap().resume
        };
        for none in ["{}", r#"{"resume":true}"#, r#"{"resume":null}"#, r#"{"resume":[]}"#] {
            assert_eq!(ask(none), None, "{none}");
        }
        assert_eq!(ask(r#"{"resume":{}}"#), Some(ResumeRequest::default()));
        // What is no count is none, as what is no token.
        assert_eq!(ask(r#"{"resume":{"token":7,"seen":-1}}"#), Some(ResumeRequest::default()));
        let asked = ResumeRequest { token: Some("dG9rZW4".to_owned()), seen: 1 << 60 };
        let gs = GsRequest { resume: Some(asked.clone()), ..GsRequest::default() };
        let bytes = ClientHandshake { gs: Some(gs), ..ClientHandshake::parse(b"{}").unwrap() }.to_bytes();
        assert_eq!(ClientHandshake::parse(&bytes).unwrap().gs.unwrap().resume, Some(asked));
        for seen in [None, Some(0), Some(u64::MAX)] {
            let resume = Some(ResumeAnswer { token: "dG9rZW4", grace_ms: 60_000, seen });
            let gs = GsAnswer { resume, ..GsAnswer::default() };
            let answer = ServerHandshake { gs: Some(gs), ..WELCOME }.to_bytes();
            let offer = ResumeOffer { token: "dG9rZW4".to_owned(), grace_ms: 60_000, seen };
            assert_eq!(ServerAnswer::parse(&answer).unwrap().resume, Some(offer));
        }
    }

    #[test]
    fn no_answer_is_a_multiple_of_1024() {
        for len in 900..2200 {
            let user = format!("\"{}\"", "u".repeat(len));
            let body = ServerHandshake { user: &user, ..WELCOME }.to_bytes();
            assert_ne!((HEADER_BYTES + body.len()) % 1024, 0);
            assert_eq!(ServerAnswer::parse(&body).unwrap().code, 200);
            let refusal = ServerHandshake::refusal(HEARTBEAT, RefusalCode::Rejected, "no", &user);
            assert_ne!((HEADER_BYTES + refusal.len()) % 1024, 0);
        }
    }

    #[test]
    fn refusals_carry_the_heartbeat_and_the_reason() {
        let body = ServerHandshake::refusal(HEARTBEAT, RefusalCode::TooOld, "old", "get \"1.2\"");
        assert_eq!(body, br#"{"code":501,"sys":{"heartbeat":15},"user":{"code":"old","msg":"get \"1.2\""}}"#);
        assert_eq!(ServerAnswer::parse(&body).unwrap().code, 501);
    }

    #[test]
    fn answers_of_other_servers() {
        let nano = ServerAnswer::parse(br#"{"code":200,"sys":{"heartbeat":30.0,"servertime":1}}"#).unwrap();
        assert_eq!((nano.heartbeat.unwrap().get(), nano.serializer, nano.user), (30, None, None));
        assert_eq!(ServerAnswer::parse(b"{\"code\":200}").unwrap().heartbeat, None);
        assert_eq!(ServerAnswer::parse(b"{}"), Err(HandshakeError::NoCode));
    }
}
