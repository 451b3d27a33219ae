//! What a link says: the realm's wishes as packets, framed for its transport.

use wire::message::{self, MessageKind, ResponseHead, deflate_if_smaller};
use wire::packet::{self, HEADER_BYTES, PacketKind};
use wire::websocket::deflate::deflate_message;
use wire::websocket::frame::{
    CLOSE_GOING_AWAY, CLOSE_NORMAL, FrameHead, OpCode, apply_mask, encode_close, encode_frame, frame_header,
};

use super::{Ending, Fault, Full, Link, Outbox, Phase, SharedPush};
use crate::event::{Class, Close, Down, DownLog, Nanos, SNAPSHOT_KEY, Up, UpLog, charge, charge_answers};
use crate::outbox::{push_head, uncounted_prefix};
use crate::room::RoomNumber;

impl Link {
    /// Answers to requests: whole packets, one behind the other.
    #[inline]
    pub(super) fn answer(
        &mut self,
        now: Nanos,
        packets: &[u8],
        count: u32,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Fault> {
        if !self.is_up() {
            return Ok(());
        }
        self.charged = self.charged.saturating_add(charge_answers(packets.len(), count));
        if self.websocket.is_none() && !self.compresses {
            self.bytes_out += packets.len() as u64;
            out.packets(packets)?;
        } else {
            self.answer_framed(packets, out)?;
        }
        self.owed = self.owed.saturating_sub(count);
        if self.phase == Phase::Ended && self.owed == 0 {
            self.begin_closing(now, Close::Left, ups);
        }
        Ok(())
    }

    fn answer_framed(&mut self, packets: &[u8], out: &mut impl Outbox) -> Result<(), Full> {
        let mut rest = packets;
        while let Some((packet, others)) = packet::first(rest) {
            rest = others;
            let message = &packet[HEADER_BYTES..];
            if let Some((head, packed)) = self.compress_answer(message) {
                self.send(Class::Reliable, 0, PacketKind::Data, [head.as_slice(), &packed], out)?;
            } else {
                self.send(Class::Reliable, 0, PacketKind::Data, [message], out)?;
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn send_shared(
        &mut self,
        push: &SharedPush,
        class: Class,
        key: u64,
        out: &mut impl Outbox,
    ) -> Result<(), Full> {
        if !self.is_up() {
            return Ok(());
        }
        let bytes = push.block(self.websocket.is_some(), self.counts);
        if class == Class::Reliable {
            self.charged = self.charged.saturating_add(push.charge);
        }
        self.bytes_out += bytes.len() as u64;
        out.block(class, key, bytes)
    }

    /// Everything that is no response.
    pub(super) fn obey(
        &mut self,
        now: Nanos,
        down: &Down,
        log: &DownLog,
        ups: &mut UpLog,
        out: &mut impl Outbox,
    ) -> Result<(), Fault> {
        match *down {
            Down::Push { class, key, route, body, .. } if self.is_up() => {
                let (route, body) = (log.bytes(route), log.bytes(body));
                if class == Class::Reliable {
                    self.charged = self.charged.saturating_add(charge(route.len(), body.len()));
                }
                let packed = self.compress(body);
                let prefix = if self.counts { uncounted_prefix(class, route) } else { b"" };
                let head = push_head(prefix.len() + route.len(), packed.is_some());
                let body = packed.as_deref().unwrap_or(body);
                self.send(class, key, PacketKind::Data, [&head, prefix, route, body], out)?;
            }
            Down::Again { packets, count, .. } if self.is_up() => {
                let mut rest = log.bytes(packets);
                self.charged = self.charged.saturating_add(charge_answers(rest.len(), count));
                while let Some((packet, others)) = packet::first(rest) {
                    rest = others;
                    self.send(Class::Reliable, 0, PacketKind::Data, [&packet[HEADER_BYTES..]], out)?;
                }
            }
            Down::Snapshot { number, room, route, parts, .. } if self.is_up() => {
                self.send_snapshot(room, log.bytes(route), log.parts(parts), out)?;
                (self.snapshot_waits, self.snapshot) = (true, number);
            }
            Down::Accept { body, codes, counts, .. } if self.phase == Phase::Waiting => {
                self.send(Class::Reliable, 0, PacketKind::Handshake, [log.bytes(body)], out)?;
                (self.codes, self.counts, self.waits) = (codes, counts, false);
                self.enter(Phase::Answered, now.saturating_add(self.config.handshake_timeout));
            }
            Down::Refuse { why, body, .. } if self.phase == Phase::Waiting => {
                self.send(Class::Reliable, 0, PacketKind::Handshake, [log.bytes(body)], out)?;
                self.close(now, why, ups, out);
            }
            Down::Kick { why, body, .. } => {
                // Before the handshake's answer no other packet may come.
                if self.phase == Phase::Answered || self.is_up() {
                    self.send(Class::Reliable, 0, PacketKind::Kick, [log.bytes(body)], out)?;
                }
                self.close(now, why, ups, out);
            }
            Down::Close { why, .. } => self.close(now, why, ups, out),
            Down::Abort { why, .. } => self.handle_end(now, why, ups),
            Down::Pause { .. } if self.ending() == Ending::No => self.is_paused = true,
            Down::Resume { .. } if self.is_paused => (self.is_paused, self.last_heard) = (false, now),
            Down::HttpBytes { body, .. } if self.phase == Phase::Http => {
                self.send_plain(log.bytes(body), out)?;
                self.rare_half().http_owes = true;
            }
            Down::Request { id, route, body, .. } if self.is_ready_client() => {
                self.ask(MessageKind::Request, Some(id), log.bytes(route), log.bytes(body), out)?;
            }
            Down::Notify { route, body, .. } if self.is_ready_client() => {
                self.ask(MessageKind::Notify, None, log.bytes(route), log.bytes(body), out)?;
            }
            // What comes too late, or is none of this link's: nothing happens.
            _ => {}
        }
        Ok(())
    }

    /// A heartbeat, if it is due, and the meter's readings with it.
    pub(super) fn beat(&mut self, now: Nanos, ups: &mut UpLog, out: &mut impl Outbox) -> Result<(), Fault> {
        if now < self.due {
            return Ok(());
        }
        self.send_heartbeat(now, out)?;
        self.tells_charge = true;
        ups.push(Up::Meter {
            link: self.id,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            rtt_us: out.rtt_us(),
            quiet: now.saturating_sub(self.last_heard),
        });
        Ok(())
    }

    /// A heartbeat now, and the next one an interval after its due time; one that is late is not made up for.
    pub(super) fn send_heartbeat(&mut self, now: Nanos, out: &mut impl Outbox) -> Result<(), Full> {
        let next = self.due.saturating_add(self.heartbeat());
        self.due = if next > now { next } else { now.saturating_add(self.heartbeat()) };
        self.send(Class::Reliable, 0, PacketKind::Heartbeat, [], out)
    }

    /// Client role: our handshake.
    pub(super) fn greet(&mut self, out: &mut impl Outbox) -> Result<(), Full> {
        let Some(client) = self.client_half_mut() else { return Ok(()) };
        let handshake = std::mem::take(&mut client.greeting.handshake);
        self.send(Class::Reliable, 0, PacketKind::Handshake, [&handshake], out)
    }

    /// One packet, in a frame of its own where frames are spoken.
    #[inline]
    pub(super) fn send<const PARTS: usize>(
        &mut self,
        class: Class,
        key: u64,
        kind: PacketKind,
        parts: [&[u8]; PARTS],
        out: &mut impl Outbox,
    ) -> Result<(), Full> {
        let body_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let header = packet::header(kind, body_bytes);
        if self.websocket.is_none() {
            self.bytes_out += (HEADER_BYTES + body_bytes) as u64;
            return out.packet(class, key, |bytes| {
                bytes.extend_from_slice(&header);
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
            });
        }
        if body_bytes >= DEFLATE_BYTES_MIN && self.deflates() {
            let mut packed = Vec::new();
            let mut all = [&[][..]; MESSAGE_PARTS_MAX];
            all[0] = &header;
            all[1..=PARTS].copy_from_slice(&parts);
            if deflate_message(&all[..=PARTS], &mut packed) {
                let frame = FrameHead {
                    fin: true,
                    compressed: true,
                    opcode: OpCode::Binary,
                    mask: None,
                    payload_bytes: packed.len(),
                }
                .encode();
                self.bytes_out += (frame.as_slice().len() + packed.len()) as u64;
                return out.packet(class, key, |bytes| {
                    bytes.extend_from_slice(frame.as_slice());
                    bytes.extend_from_slice(&packed);
                });
            }
        }
        let mut frame = FrameHead {
            fin: true,
            compressed: false,
            opcode: OpCode::Binary,
            mask: None,
            payload_bytes: HEADER_BYTES + body_bytes,
        };
        frame.mask = self.next_mask();
        let frame_head = frame.encode();
        self.bytes_out += (frame_head.as_slice().len() + HEADER_BYTES + body_bytes) as u64;
        out.packet(class, key, |bytes| {
            bytes.extend_from_slice(frame_head.as_slice());
            let start = bytes.len();
            bytes.extend_from_slice(&header);
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
            if let Some(mask) = frame.mask {
                apply_mask(&mut bytes[start..], mask);
            }
        })
    }

    /// A push whose body is in pieces. It is never compressed: it is small numbers already, and many share the pieces.
    fn send_snapshot<'a>(
        &mut self,
        room: RoomNumber,
        route: &[u8],
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        out: &mut impl Outbox,
    ) -> Result<(), Full> {
        let head = push_head(route.len(), false);
        let body_bytes = head.len() + route.len() + parts.clone().map(<[u8]>::len).sum::<usize>();
        if body_bytes > packet::BODY_BYTES_MAX {
            return Ok(()); // of a log that no realm of ours has written
        }
        let header = packet::header(PacketKind::Data, body_bytes);
        let frame =
            (self.websocket.is_some()).then(|| frame_header(OpCode::Binary, HEADER_BYTES + body_bytes));
        let frame = frame.as_ref().map_or(&[][..], |frame| frame.as_slice());
        self.bytes_out += (frame.len() + HEADER_BYTES + body_bytes) as u64;
        out.packet(Class::Latest, SNAPSHOT_KEY | u64::from(room), |bytes| {
            bytes.reserve(frame.len() + HEADER_BYTES + body_bytes);
            for part in [frame, &header, &head, route] {
                bytes.extend_from_slice(part);
            }
            parts.for_each(|part| bytes.extend_from_slice(part));
        })
    }

    /// Bytes as they are: HTTP.
    pub(super) fn send_plain(&mut self, plain: &[u8], out: &mut impl Outbox) -> Result<(), Full> {
        self.bytes_out += plain.len() as u64;
        out.packet(Class::Reliable, 0, |bytes| bytes.extend_from_slice(plain))
    }

    /// A control frame of at most 125 bytes.
    pub(super) fn send_control(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        out: &mut impl Outbox,
    ) -> Result<(), Full> {
        let mask = self.next_mask();
        self.bytes_out += (frame_header(opcode, payload.len()).as_slice().len() + payload.len()) as u64;
        out.packet(Class::Reliable, 0, |bytes| encode_frame(opcode, true, mask, payload, bytes))
    }

    /// A close frame, where frames are spoken.
    pub(super) fn send_close_frame(&mut self, code: u16, out: &mut impl Outbox) {
        if self.websocket.is_some() {
            let mut payload = Vec::new();
            encode_close(code, "", &mut payload);
            let _ = self.send_control(OpCode::Close, &payload, out); // no room for a last word: it goes without
        }
    }

    /// Client role: a message to the server.
    fn ask(
        &mut self,
        kind: MessageKind,
        id: Option<u32>,
        route: &[u8],
        body: &[u8],
        out: &mut impl Outbox,
    ) -> Result<(), Full> {
        let [_, length] = push_head(route.len(), false);
        let flag = [message::flag(kind, false, false)];
        // The id stands in a response's head as it does in a request's.
        let head = id.map(|id| ResponseHead::new(id, false, false));
        let id = head.as_ref().map_or(&[][..], |head| &head.as_slice()[1..]);
        self.send(Class::Reliable, 0, PacketKind::Data, [&flag, id, &[length], route, body], out)
    }

    fn close(&mut self, now: Nanos, why: Close, ups: &mut UpLog, out: &mut impl Outbox) {
        if self.ending() != Ending::No {
            return; // behind a close frame stands nothing
        }
        let code = if why == Close::Shutdown { CLOSE_GOING_AWAY } else { CLOSE_NORMAL };
        self.send_close_frame(code, out);
        self.begin_closing(now, why, ups);
    }

    /// The body as a zlib stream: toward a client that compresses, when it is long enough and gets smaller.
    #[inline]
    fn compress(&self, body: &[u8]) -> Option<Vec<u8>> {
        if !self.compresses || self.config.compress_bytes_min.is_none_or(|min| body.len() < min) {
            return None;
        }
        let mut packed = Vec::new();
        deflate_if_smaller(body, &mut packed).then_some(packed)
    }

    #[inline]
    fn compress_answer(&self, message: &[u8]) -> Option<(ResponseHead, Vec<u8>)> {
        if !self.compresses {
            return None;
        }
        let answer = message::decode(message).ok()?;
        Some((ResponseHead::new(answer.id, answer.error, true), self.compress(answer.body)?))
    }

    /// Whether the peer takes messages.
    #[inline]
    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Ended)
    }

    fn is_ready_client(&self) -> bool {
        self.phase == Phase::Ready && self.client_half().is_some()
    }

    /// A client masks each frame with another number (splitmix64 of its seed).
    #[inline]
    fn next_mask(&mut self) -> Option<[u8; 4]> {
        let client = self.client_half_mut()?;
        client.masks = client.masks.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = client.masks;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(((mixed ^ mixed >> 31) as u32).to_ne_bytes())
    }
}

/// A client that compresses is sent packed messages from this size on.
const DEFLATE_BYTES_MIN: usize = 1024;
/// More pieces has no packet, its header included.
const MESSAGE_PARTS_MAX: usize = 8;
