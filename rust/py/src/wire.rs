//! The codecs of `wire` for Python; `gameserver/wire.py` is their face, and says what each does.
//!
//! Items cross as plain tuples: this module is for tools and tests, and Python gives them names.

use std::hash::{BuildHasher, RandomState};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use wire::detect::{Detected, detect};
use wire::error_body;
use wire::handshake::{
    ClientHandshake, GsAnswer, GsRequest, RefusalCode, Serializer, ServerAnswer, ServerHandshake,
};
use wire::json_text;
use wire::message::{self, Message, MessageKind, Route};
use wire::packet::{self, BODY_BYTES_MAX, PacketDecoder, PacketKind};
use wire::websocket::connection::{Event, SendError, WebSocket};
use wire::websocket::frame::Role;

use crate::error::PROTOCOL_ERROR;

/// Adds all of it to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<WirePacketDecoder>()?;
    module.add_class::<WireWebSocket>()?;
    module.add_function(wrap_pyfunction!(wire_detect, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_packet, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_message, module)?)?;
    module.add_function(wrap_pyfunction!(wire_decode_message, module)?)?;
    module.add_function(wrap_pyfunction!(wire_inflate, module)?)?;
    module.add_function(wrap_pyfunction!(wire_deflate, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_error, module)?)?;
    module.add_function(wrap_pyfunction!(wire_decode_error, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_client_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(wire_decode_client_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_server_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(wire_encode_refusal, module)?)?;
    module.add_function(wrap_pyfunction!(wire_decode_server_handshake, module)?)?;
    module.add_function(wrap_pyfunction!(wire_repair_surrogates, module)?)?;
    module.add_function(wrap_pyfunction!(wire_escape_ascii, module)?)?;
    Ok(())
}

/// `gameserver.wire.PacketDecoder` keeps one.
#[pyclass(module = "gameserver._core")]
pub struct WirePacketDecoder {
    decoder: PacketDecoder,
    before_error: Vec<(u8, Py<PyBytes>)>,
}

#[pymethods]
impl WirePacketDecoder {
    #[new]
    fn new(body_bytes_max: usize) -> Self {
        Self { decoder: PacketDecoder::new(body_bytes_max.min(BODY_BYTES_MAX)), before_error: Vec::new() }
    }

    /// Complete packets as (type, body).
    fn feed(&mut self, py: Python<'_>, data: PyBackedBytes) -> PyResult<Vec<(u8, Py<PyBytes>)>> {
        let mut input = &*data;
        let mut packets = Vec::new();
        self.before_error.clear();
        loop {
            match self.decoder.next(&mut input) {
                Ok(Some(packet)) => packets.push((packet.kind as u8, PyBytes::new(py, packet.body).unbind())),
                Ok(None) => return Ok(packets),
                Err(error) => {
                    self.before_error = packets;
                    return Err(PROTOCOL_ERROR.err(py, error.to_string()));
                }
            }
        }
    }

    /// What was complete in the call of `feed` that raised.
    #[getter]
    fn before_error(&self, py: Python<'_>) -> Vec<(u8, Py<PyBytes>)> {
        self.before_error.iter().map(|(kind, body)| (*kind, body.clone_ref(py))).collect()
    }

    /// Bytes of an incomplete packet.
    #[getter]
    fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    /// Bytes of memory held for incomplete packets.
    #[getter]
    fn capacity(&self) -> usize {
        self.decoder.capacity()
    }
}

/// `gameserver.wire.WebSocket` keeps one.
#[pyclass(module = "gameserver._core")]
pub struct WireWebSocket {
    socket: WebSocket,
}

#[pymethods]
impl WireWebSocket {
    #[staticmethod]
    fn server(message_bytes_max: usize, allowed_origins: Vec<String>) -> Self {
        Self { socket: WebSocket::server(message_bytes_max, allowed_origins) }
    }

    #[staticmethod]
    fn client(host: &str, target: &str, origin: Option<&str>, message_bytes_max: usize) -> PyResult<Self> {
        let mut random = Random::new();
        let mut key = [0; 16];
        key[..8].copy_from_slice(&random.next().to_ne_bytes());
        key[8..].copy_from_slice(&random.next().to_ne_bytes());
        let masks = random.into_masks();
        let socket = WebSocket::client(message_bytes_max, host, target, origin, key, masks);
        Ok(Self { socket: socket.map_err(|error| PyValueError::new_err(error.to_string()))? })
    }

    #[staticmethod]
    fn opened(is_server: bool, message_bytes_max: usize) -> Self {
        let (role, masks) =
            if is_server { (Role::Server, None) } else { (Role::Client, Some(Random::new().into_masks())) };
        Self { socket: WebSocket::opened(role, message_bytes_max, masks) }
    }

    /// Events, each a tuple that begins with its name.
    fn feed<'py>(&mut self, py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyList>> {
        self.socket.handle_bytes(&data);
        self.events(py)
    }

    fn feed_eof<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.socket.handle_eof();
        self.events(py)
    }

    fn bytes_to_send<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.socket.poll_transmit())
    }

    fn send_text(&mut self, py: Python<'_>, text: &str) -> PyResult<()> {
        self.socket.send_text(text).map_err(|error| not_sent(py, error))
    }

    fn send_binary(&mut self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        self.socket.send_binary(&data).map_err(|error| not_sent(py, error))
    }

    fn send_ping(&mut self, py: Python<'_>, data: PyBackedBytes) -> PyResult<()> {
        self.socket.send_ping(&data).map_err(|error| not_sent(py, error))
    }

    fn send_close(&mut self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        self.socket.send_close(code, reason).map_err(|error| not_sent(py, error))
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.socket.is_open()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.socket.is_closed()
    }

    #[getter]
    fn buffered(&self) -> usize {
        self.socket.buffered()
    }
}

impl WireWebSocket {
    fn events<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = PyList::empty(py);
        while let Some(event) = self.socket.poll_event() {
            events.append(match event {
                Event::Opened { target } => ("opened", target).into_bound_py_any(py)?,
                Event::Refused { status, reason } => ("refused", status, reason).into_bound_py_any(py)?,
                Event::Text(text) => ("text", text).into_bound_py_any(py)?,
                Event::Binary(bytes) => ("binary", PyBytes::new(py, &bytes)).into_bound_py_any(py)?,
                Event::Ping(bytes) => ("ping", PyBytes::new(py, &bytes)).into_bound_py_any(py)?,
                Event::Pong(bytes) => ("pong", PyBytes::new(py, &bytes)).into_bound_py_any(py)?,
                Event::Closed { code, reason, error } => {
                    ("closed", code, reason, error).into_bound_py_any(py)?
                }
            })?;
        }
        Ok(events)
    }
}

/// Masks and keys: a keyed hash, its keys drawn by the system, over a counter.
struct Random {
    keys: RandomState,
    count: u64,
}

impl Random {
    fn new() -> Self {
        Self { keys: RandomState::new(), count: 0 }
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.keys.hash_one(self.count)
    }

    fn into_masks(mut self) -> Box<dyn FnMut() -> [u8; 4] + Send + Sync> {
        Box::new(move || (self.next() as u32).to_ne_bytes())
    }
}

#[pyfunction]
fn wire_detect(data: PyBackedBytes) -> &'static str {
    match detect(&data) {
        Detected::Incomplete => "incomplete",
        Detected::Packets => "packets",
        Detected::Http => "http",
        Detected::Tls => "tls",
        Detected::Unknown => "unknown",
    }
}

#[pyfunction]
fn wire_encode_packet(py: Python<'_>, kind: u8, body: PyBackedBytes) -> PyResult<Bound<'_, PyBytes>> {
    let kind = PacketKind::from_byte(kind)
        .ok_or_else(|| PyValueError::new_err(format!("packet type {kind}: must be 1 to 5")))?;
    if body.len() > BODY_BYTES_MAX {
        let text = format!("packet body of {} bytes: at most {BODY_BYTES_MAX} allowed", body.len());
        return Err(PyValueError::new_err(text));
    }
    let mut out = Vec::new();
    packet::encode(kind, &body, &mut out);
    Ok(PyBytes::new(py, &out))
}

#[pyfunction]
fn wire_encode_message<'py>(
    py: Python<'py>,
    kind: u8,
    id: u32,
    route: Option<Bound<'py, PyAny>>,
    error: bool,
    compressed: bool,
    body: PyBackedBytes,
) -> PyResult<Bound<'py, PyBytes>> {
    let kind = match kind {
        0 => MessageKind::Request,
        1 => MessageKind::Notify,
        2 => MessageKind::Response,
        3 => MessageKind::Push,
        _ => return Err(PyValueError::new_err(format!("message type {kind}: must be 0 to 3"))),
    };
    let route = match &route {
        None => Route::None,
        Some(route) => match route.cast::<PyString>() {
            Ok(name) => Route::Name(name.to_str()?),
            Err(_) => Route::Code(route.extract()?),
        },
    };
    let mut out = Vec::new();
    message::encode(&Message { kind, id, route, error, compressed, body: &body }, &mut out)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &out))
}

#[pyfunction]
fn wire_decode_message(py: Python<'_>, data: PyBackedBytes) -> PyResult<Bound<'_, PyTuple>> {
    let message = message::decode(&data).map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
    let route = match message.route {
        Route::None => py.None().into_bound(py),
        Route::Name(name) => name.into_bound_py_any(py)?,
        Route::Code(code) => code.into_bound_py_any(py)?,
    };
    (message.kind as u8, message.id, route, message.error, message.compressed, PyBytes::new(py, message.body))
        .into_pyobject(py)
}

#[pyfunction]
fn wire_inflate(py: Python<'_>, body: PyBackedBytes, bytes_max: usize) -> PyResult<Bound<'_, PyBytes>> {
    let mut out = Vec::new();
    message::inflate(&body, bytes_max, &mut out)
        .map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
    Ok(PyBytes::new(py, &out))
}

#[pyfunction]
fn wire_deflate(py: Python<'_>, body: PyBackedBytes) -> Option<Bound<'_, PyBytes>> {
    let mut out = Vec::new();
    message::deflate_if_smaller(&body, &mut out).then(|| PyBytes::new(py, &out))
}

#[pyfunction]
fn wire_encode_error<'py>(
    py: Python<'py>,
    serializer: &str,
    code: &str,
    msg: &str,
    metadata: Vec<(String, String)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    error_body::encode(serializer_of(serializer)?, code, msg, &metadata, &mut out);
    Ok(PyBytes::new(py, &out))
}

/// Code, text and metadata of an error body.
type ErrorParts = (String, String, Vec<(String, String)>);

#[pyfunction]
fn wire_decode_error(py: Python<'_>, serializer: &str, body: PyBackedBytes) -> PyResult<ErrorParts> {
    let error = error_body::decode(serializer_of(serializer)?, &body)
        .map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
    Ok((error.code, error.msg, error.metadata))
}

#[pyfunction]
fn wire_encode_client_handshake<'py>(
    py: Python<'py>,
    sys_type: String,
    version: String,
    gs_serializer: Option<&str>,
    gs_dict: Option<bool>,
    user: String,
) -> PyResult<Bound<'py, PyBytes>> {
    // `sys.gs` is there when either of its fields was given.
    let gs = match (gs_serializer, gs_dict) {
        (None, None) => None,
        (serializer, dict) => Some(GsRequest {
            serializer: serializer.map(serializer_of).transpose()?,
            dict: dict.unwrap_or(false),
            ..GsRequest::default()
        }),
    };
    let client = ClientHandshake {
        sys_type: Some(sys_type),
        version: Some(version),
        platform: None,
        client_version: None,
        gs,
        user: Some(user),
        dict_version: None,
    };
    Ok(PyBytes::new(py, &client.to_bytes()))
}

#[pyfunction]
fn wire_decode_client_handshake(py: Python<'_>, body: PyBackedBytes) -> PyResult<Bound<'_, PyTuple>> {
    let client = ClientHandshake::parse(&body).map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
    let gs = client.gs.map(|gs| (gs.serializer.map(Serializer::name), gs.dict));
    (client.sys_type, client.version, client.platform, client.client_version, gs, client.user)
        .into_pyobject(py)
}

#[pyfunction]
fn wire_encode_server_handshake<'py>(
    py: Python<'py>,
    heartbeat: u32,
    serializer: &str,
    dict: Vec<(String, u16)>,
    session: Option<u64>,
    user: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let dict: Vec<(&str, u16)> = dict.iter().map(|(route, code)| (route.as_str(), *code)).collect();
    let answer = ServerHandshake {
        heartbeat: seconds(heartbeat)?,
        serializer: serializer_of(serializer)?,
        dict: &dict,
        gs: session.map(|session| GsAnswer { session, ..GsAnswer::default() }),
        user,
    };
    Ok(PyBytes::new(py, &answer.to_bytes()))
}

#[pyfunction]
fn wire_encode_refusal<'py>(
    py: Python<'py>,
    heartbeat: u32,
    code: u16,
    user_code: &str,
    user_msg: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let code = match code {
        400 => RefusalCode::Rejected,
        500 => RefusalCode::Failed,
        501 => RefusalCode::TooOld,
        _ => return Err(PyValueError::new_err(format!("a refusal's code is 400, 500 or 501, not {code}"))),
    };
    Ok(PyBytes::new(py, &ServerHandshake::refusal(seconds(heartbeat)?, code, user_code, user_msg)))
}

#[pyfunction]
fn wire_decode_server_handshake(py: Python<'_>, body: PyBackedBytes) -> PyResult<Bound<'_, PyTuple>> {
    let answer = ServerAnswer::parse(&body).map_err(|error| PROTOCOL_ERROR.err(py, error.to_string()))?;
    (
        answer.code,
        answer.heartbeat.map(|seconds| seconds.get()),
        answer.serializer.map(Serializer::name),
        answer.dict,
        answer.session,
        answer.user,
    )
        .into_pyobject(py)
}

#[pyfunction]
fn wire_repair_surrogates(py: Python<'_>, text: PyBackedBytes) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &json_text::repair_surrogates(&text))
}

#[pyfunction]
fn wire_escape_ascii(py: Python<'_>, json: PyBackedBytes) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &json_text::escape_ascii(&json))
}

fn serializer_of(name: &str) -> PyResult<Serializer> {
    Serializer::from_name(name).ok_or_else(|| {
        PyValueError::new_err(format!("serializer {name:?}: must be \"json\" or \"protobuf\""))
    })
}

fn seconds(heartbeat: u32) -> PyResult<std::num::NonZeroU32> {
    heartbeat.try_into().map_err(|_| PyValueError::new_err("heartbeat: must be 1 or more, in seconds"))
}

fn not_sent(py: Python<'_>, error: SendError) -> PyErr {
    match error {
        SendError::NotOpen | SendError::Closed => PROTOCOL_ERROR.err(py, error.to_string()),
        SendError::TooLong(_) | SendError::Code(_) => PyValueError::new_err(error.to_string()),
    }
}
