// gameserver: the browser client. One ES module; no dependencies, no build step; types by JSDoc.
//
//     import { connect } from '/gameserver.js';
//
//     const client = await connect();                       // same host and port as the page
//     client.on('said', ({ name, text }) => show(name, text));
//     const { sum } = await client.request('add', { a: 1, b: 2 });
//     client.notify('move', { x: 1, y: 0 });
//
// A connection that is lost comes back by itself. Where the server keeps sessions (`resume_grace`), it goes on where it was: what was asked
// and told meanwhile is sent then, nothing is lost and nothing runs twice. `onDrop` and `onResume` tell of it.
//
// Routes that the server knows a message for carry protobuf, by the schema that it sends in its handshake; others JSON or bytes.
// How a message looks in JavaScript is said at `Schema`.
//
// `connect(url, { world: true })` shows the replicated world as `client.world`: see gameserver-world.js, which lies beside this file, and is loaded then.
//
// Rooms: `await client.joinOrCreate('cards', { ... })` gives a `Room`: see gameserver-rooms.js, which lies there too.
//
// Read top-down: connect, Client (what a game uses), Resumption, Link (one WebSocket), the codecs of the wire (docs/wire.md), the schema.

export const VERSION = '0.1.0';

/**
 * @typedef {object} ReconnectOptions
 * @property {number} [delay] ms; the n-th attempt waits between 0 and `delay * 2^n` (full jitter). Default 400.
 * @property {number} [delayMax] ms; no attempt waits longer. Default 10000.
 * @property {number} [attempts] In a row, then the client closes. Default: no end.
 */

/**
 * @typedef {object} ConnectOptions
 * @property {object | (() => object | Promise<object>)} [user] What the server's `authenticate` sees. A function is asked anew
 *     at each reconnect, so that it can fetch a fresh token; within `timeout`.
 * @property {number} [timeout] ms for one attempt to connect, handshake included. Default 8000.
 * @property {number} [requestTimeout] ms for an answer. Default 10000.
 * @property {boolean | ReconnectOptions} [reconnect] Default true.
 * @property {boolean | 'reload'} [resume] Whether a lost session is to go on, where the server lets it. `reload`: also when the page is loaded again in
 *     its tab; what the page asked for and has not got is lost then, and a tab that is closed is not told from one that is loaded again: its session
 *     ends when the server's `resume_grace` is over. Default true.
 * @property {number} [outboxBytesMax] What is kept until the server has seen it. While the connection is lost, nothing that is more is
 *     taken. Default 256 KiB.
 * @property {'protobuf' | 'json'} [serializer] What bodies are to be; `json`, for the eyes: all are JSON, and 64-bit numbers in it are
 *     what the server writes. Default `protobuf`.
 * @property {number} [bodyBytesMax] Larger packets and inflated bodies from the server close the connection. Default 16 MiB - 1.
 * @property {boolean} [world] Whether `client.world` shows the replicated world. Default false.
 * @property {SocketClass} [WebSocket] Another WebSocket class, for where none is built in.
 * @property {() => number} [random] Replaces Math.random, for tests.
 */

/**
 * @typedef {{ new (url: string): WebSocket }} SocketClass
 * @typedef {{ code: number, sys: ServerSys, user: Record<string, unknown> }} ServerHandshake
 * @typedef {{ heartbeat: number, serializer: string, dict: Record<string, number>, gs: Record<string, unknown> }} ServerSys
 * @typedef {'connecting' | 'open' | 'waiting' | 'closed'} State `waiting`: for the next attempt to reconnect.
 * @typedef {{ error: GameServerError, retryIn: number | null }} Disconnect `retryIn`: ms; null if it is over for good.
 * @typedef {() => void} Unsubscribe
 * @typedef {import('./gameserver-world.js').World} World
 * @typedef {import('./gameserver-rooms.js').Room} Room
 * @typedef {import('./gameserver-rooms.js').Rooms} Rooms
 * @typedef {import('./gameserver-rooms.js').Listing} Listing
 * @typedef {{ bytesIn: number, bytesOut: number, messagesIn: number, messagesOut: number }} Traffic
 */

/** ms; what the server's deadlines are made for, see WIRE in docs/wire.md. */
const CONNECT_TIMEOUT = 8_000;
const REQUEST_TIMEOUT = 10_000;
const RETRY = { delay: 400, delayMax: 10_000, attempts: Infinity };
/** The server sends a heartbeat each interval, whatever else it sends: two and a half without a byte are no accident. */
const DEAD_AFTER_HEARTBEATS = 2.5;
/** Bytes of messages that the server may not have seen. */
const OUTBOX_BYTES_MAX = 256 * 1024;
/** So many messages from the server, or bytes of them, are seen without a word between two heartbeats. */
const SEEN_MESSAGES = 32;
const SEEN_BYTES = 16 * 1024;
/** ms to read what came while the page slept (a suspended laptop) before silence is judged. */
const WAKE_GRACE = 3_000;
/** Of a packet's body: its length is a 24-bit number. */
const BODY_BYTES_MAX = 0xff_ff_ff;
/** A kick with this reason is the server restarting; any other means that we are not wanted. */
const KICK_SHUTDOWN = 'shutdown';
/** WebSocket close codes that a client may use for its own reasons. */
const CLOSE_NORMAL = 1000;
const CLOSE_PROTOCOL = 4400;
const CLOSE_PAGE_LEFT = 4401;
const CLOSE_SILENT = 4408;

/**
 * Connects, shakes hands and resolves once requests can be sent.
 *
 * @param {string | URL} [url] `ws:`, `wss:`, `http:` or `https:`, or a path on the page's own server, which is the default.
 * @param {ConnectOptions} [options]
 * @returns {Promise<Client>}
 * @throws {GameServerError} (as a rejection) `unreachable`, `timeout`, `protocol`, or the code with which the server refused.
 */
export async function connect(url, options = {}) {
  const client = new Client(socketUrl(url), options);
  await client._start();
  return client;
}

/**
 * What went wrong: an error answer of the server, or one of the client's own.
 *
 * Codes of the client: `unreachable`, `timeout`, `disconnected` (the answer may have been lost with the connection), `outbox-full`
 * (while the connection is lost, more was asked than is kept), `closed` (by `close()`), `kicked`, `refused` (at login, without a code of the game), `protocol` (the server broke the rules of the
 * wire), `bad-body` (an answer that is no JSON, or not the message that the schema says). Codes of the server begin with `GS-`, or are the game's own.
 */
export class GameServerError extends Error {
  /**
   * @param {string} code Short and stable, for programs.
   * @param {string} [msg] For people.
   * @param {Record<string, string>} [metadata]
   */
  constructor(code, msg = '', metadata = {}) {
    super(msg ? `${code}: ${msg}` : code);
    this.name = 'GameServerError';
    this.code = code;
    this.msg = msg;
    this.metadata = metadata;
  }
}

/** One person's connection to a server; survives lost sockets. Made by `connect`. */
export class Client {
  /** @type {State} */
  #state = 'connecting';
  /** @type {Link | null} */
  #link = null;
  /** @type {ServerHandshake | null} */
  #handshake = null;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  /** @type {Map<string, Listener[]>} */
  #listeners = new Map();
  #kicks = /** @type {Signal<string>} */ (new Signal());
  #disconnects = /** @type {Signal<Disconnect>} */ (new Signal());
  #reconnects = /** @type {Signal<void>} */ (new Signal());
  #drains = /** @type {Signal<{ retryIn: number }>} */ (new Signal());
  #drops = /** @type {Signal<Disconnect>} */ (new Signal());
  #resumes = /** @type {Signal<void>} */ (new Signal());
  /** Where the session can go on. @type {Resumption | null} */
  #resumption = null;
  /** Knows how bodies are written while there is no link. @type {Link | null} */
  #lastLink = null;
  #isResumed = false;
  /** @type {World | null} */
  #world = null;
  /** Once there was a call for them. @type {Rooms | null} */
  #rooms = null;
  /** Of connections that were. @type {Traffic} */
  #traffic = { bytesIn: 0, bytesOut: 0, messagesIn: 0, messagesOut: 0 };
  /** Inputs of which the next waits for its tick. @type {Map<string, Input>} */
  #inputs = new Map();
  #lastId = 0;
  #attempt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;
  /** @type {string} */
  #url;
  /** @type {ConnectOptions} */
  #options;
  /** @type {Required<ReconnectOptions> | null} */
  #retry;

  /**
   * Use `connect` instead.
   *
   * @param {string} url
   * @param {ConnectOptions} options
   */
  constructor(url, options) {
    this.#url = url;
    this.#options = options;
    const { reconnect = true } = options;
    this.#retry = reconnect === false ? null : { ...RETRY, ...(reconnect === true ? {} : reconnect) };
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** The session's id; null from a server that does not tell. A string, since it may exceed 2^53. @returns {string | null} */
  get session() {
    const id = this.#handshake?.sys.gs.session;
    return typeof id === 'string' ? id : null;
  }

  /** The server's messages; null from one that has none, and where bodies are JSON. A new one with each connection. @returns {Schema | null} */
  get schema() {
    return this.#link?.schema ?? null;
  }

  /** Whether this connection went on with the session of one before it. */
  get isResumed() {
    return this.#isResumed;
  }

  /** What is seen of the replicated world; null unless it was asked for: `connect(url, { world: true })`. */
  get world() {
    return this.#world;
  }

  /** What went over all connections so far: bytes of packets, without what WebSocket and TCP add. @returns {Traffic} */
  get traffic() {
    const [past, now] = [this.#traffic, this.#link?.traffic];
    if (!now) return { ...past };
    return {
      bytesIn: past.bytesIn + now.bytesIn,
      bytesOut: past.bytesOut + now.bytesOut,
      messagesIn: past.messagesIn + now.messagesIn,
      messagesOut: past.messagesOut + now.messagesOut,
    };
  }

  /** What the server told in its last handshake; null before. @returns {ServerHandshake | null} */
  get handshake() {
    return this.#handshake;
  }

  /**
   * Asks, and resolves with the answer. While a session that can go on is cut, it is asked once that does; `timeout` counts all the same.
   *
   * @param {string} route
   * @param {unknown} [body] The route's message, or JSON; `{}` by default. A Uint8Array goes as it is.
   * @param {{ timeout?: number, raw?: boolean }} [options] `raw`: the answer as Uint8Array; default: if the body was one.
   * @returns {Promise<any>} What the schema says for the route, or JSON.
   * @throws {GameServerError} (as a rejection) the server's error answer, or `timeout`, `disconnected`, `outbox-full`, `closed`, `kicked`,
   *     `bad-body`.
   * @throws {TypeError} (as a rejection) the body does not fit the route's message; says where.
   */
  async request(route, body, options = {}) {
    const link = this.#writer();
    if (!link) throw new GameServerError(this.#state === 'closed' ? 'closed' : 'disconnected', 'not connected');
    const { timeout = this.#options.requestTimeout ?? REQUEST_TIMEOUT, raw = body instanceof Uint8Array } = options;
    const bytes = link.encodeBody(route, body);
    const decode = (/** @type {Uint8Array} */ answer) => (raw ? answer : link.decodeAnswer(route, answer));
    const id = this.#nextId();
    const message = encodeMessage({ type: MessageType.request, id, route: link.routeOf(route), body: bytes });
    if (!link.isOpen && !this.#resumption?.outbox.hasRoom(message)) {
      throw new GameServerError('outbox-full', 'the connection is lost, and no more is kept for when it is back');
    }
    this.#post(link, message);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new GameServerError('timeout', `no answer to ${route} within ${timeout} ms`));
      }, timeout);
      this.#pending.set(id, { resolve, reject, timer, decode });
    });
  }

  /**
   * Tells, without an answer.
   *
   * @param {string} route
   * @param {unknown} [body] As in `request`.
   * @returns {boolean} Whether it was sent, or is kept for a session that goes on: false while disconnected without one, and when no more
   *     is kept. What the server refuses comes as a push to `$error`.
   * @throws {TypeError} As in `request`.
   */
  notify(route, body) {
    const link = this.#writer();
    if (!link) return false;
    const bytes = link.encodeBody(route, body);
    const message = encodeMessage({ type: MessageType.notify, id: 0, route: link.routeOf(route), body: bytes });
    if (!link.isOpen && !this.#resumption?.outbox.hasRoom(message)) return false;
    return this.#post(link, message);
  }

  /**
   * Tells what the player does, as a notify: at most once a tick of the server; of what comes sooner, the newest is sent when that is over.
   * While the connection is lost, nothing is sent and the newest is kept: it is old by then, but says what the player does.
   *
   * @param {string} route
   * @param {unknown} [body] As in `request`.
   */
  input(route, body) {
    const input = this.#inputs.get(route);
    if (input) {
      [input.body, input.waits] = [body, true];
      return;
    }
    this.#inputs.set(route, { body, waits: true });
    this.#sendInput(route);
  }

  /** @param {string} route */
  #sendInput(route) {
    const input = this.#inputs.get(route);
    if (!input || this.#isClosed()) return;
    if (!input.waits) {
      this.#inputs.delete(route);
      return;
    }
    const isSent = this.#link?.isOpen ?? false;
    if (isSent) input.waits = false;
    setTimeout(() => this.#sendInput(route), 1000 / (this.#world?.tickRate ?? INPUT_RATE));
    if (isSent) this.notify(route, input.body);
  }

  /**
   * Calls `listener` for each push to `route`. Routes outlive reconnects. `$error` gets a GameServerError for each notify that the
   * server refused; without a listener, it is shown on the console.
   *
   * @param {string} route
   * @param {(body: any, route: string) => void} listener
   * @param {{ raw?: boolean }} [options] `raw`: the body as Uint8Array; else as the schema says for the route, or JSON. What is not
   *     that is reported and dropped.
   * @returns {Unsubscribe}
   */
  on(route, listener, options = {}) {
    const listeners = this.#listeners.get(route) ?? [];
    this.#listeners.set(route, [...listeners, { call: listener, raw: options.raw ?? false }]);
    this.#rooms?.listened(route);
    return () => this.off(route, listener);
  }

  /**
   * Ends what `on` began; without a listener, for all of that route.
   *
   * @param {string} route
   * @param {(body: any, route: string) => void} [listener]
   */
  off(route, listener) {
    const rest = (this.#listeners.get(route) ?? []).filter((one) => listener && one.call !== listener);
    if (rest.length) this.#listeners.set(route, rest);
    else this.#listeners.delete(route);
  }

  /**
   * Takes a seat in an open room of this name, or in a new one. Of the options, the room's class says which people meet by, and gets them all.
   *
   * @param {string} name
   * @param {object} [options]
   * @returns {Promise<Room>}
   * @throws {GameServerError} (as a rejection) as `request`; `no-room`, `room-full`, `room-locked`, `rooms-full`, or what the room says.
   */
  async joinOrCreate(name, options = {}) {
    return (await this.#loadRooms()).join('$join_or_create', { name, options });
  }

  /** Takes a seat in a new room. @param {string} name @param {object} [options] @returns {Promise<Room>} @throws {GameServerError} As `joinOrCreate`. */
  async create(name, options = {}) {
    return (await this.#loadRooms()).join('$create', { name, options });
  }

  /** Takes a seat in an open room of this name. @param {string} name @param {object} [options] @returns {Promise<Room>} @throws {GameServerError} As `joinOrCreate`. */
  async join(name, options = {}) {
    return (await this.#loadRooms()).join('$join', { name, options });
  }

  /** Takes a seat in this room, or finds the one that the session has there. @param {number} number @param {object} [options] @returns {Promise<Room>} @throws {GameServerError} As `joinOrCreate`. */
  async joinById(number, options = {}) {
    return (await this.#loadRooms()).join('$join_by_id', { room: number, options });
  }

  /**
   * The rooms that can be joined, oldest first; at most 100.
   *
   * @param {{ name?: string, filter?: Record<string, unknown> }} [query] Only those of this name, and with these values in their metadata.
   * @returns {Promise<Listing[]>}
   */
  rooms(query = {}) {
    return this.request('$rooms', query);
  }

  /** Calls `listener` with the reason when the server kicks us. @param {(reason: string) => void} listener @returns {Unsubscribe} */
  onKick(listener) {
    return this.#kicks.add(listener);
  }

  /**
   * Calls `listener` whenever the connection is lost, a further attempt fails, or it is closed for good (`retryIn` is null).
   *
   * @param {(event: Disconnect) => void} listener
   * @returns {Unsubscribe}
   */
  onDisconnect(listener) {
    return this.#disconnects.add(listener);
  }

  /**
   * Calls `listener` when the connection is lost and the session may go on: requests wait, and what is told is kept.
   *
   * @param {(event: Disconnect) => void} listener
   * @returns {Unsubscribe}
   */
  onDrop(listener) {
    return this.#drops.add(listener);
  }

  /** Calls `listener` when the session goes on: nothing was lost. @param {() => void} listener @returns {Unsubscribe} */
  onResume(listener) {
    return this.#resumes.add(listener);
  }

  /** Calls `listener` when the connection is there again, with a new session: requests of the old one have failed. @param {() => void} listener @returns {Unsubscribe} */
  onReconnect(listener) {
    return this.#reconnects.add(listener);
  }

  /** Calls `listener` when the server is about to stop: in `retryIn` ms this client connects anew, as somebody new. @param {(event: { retryIn: number }) => void} listener @returns {Unsubscribe} */
  onDrain(listener) {
    return this.#drains.add(listener);
  }

  /** Says goodbye and never connects again. Requests in flight reject with `closed`. */
  close() {
    this.#finish(new GameServerError('closed', 'closed by this client'));
  }

  /** Tries now instead of waiting for the next attempt; does nothing unless `state` is `waiting`. */
  retryNow() {
    if (this.#state !== 'waiting') return;
    clearTimeout(this.#retryTimer);
    void this.#reopen();
  }

  /** The page may be loaded again: takes what it left, and leaves what there is when it goes. */
  #keepOverReload() {
    const kept = takeKept(this.#url);
    if (kept) {
      this.#resumption = Resumption.of(kept, this.#options.outboxBytesMax ?? OUTBOX_BYTES_MAX);
      this.#lastId = kept.lastId;
    }
    globalThis.addEventListener?.('pagehide', () => {
      if (this.#isClosed() || !this.#resumption) return;
      leaveKept(this.#url, { ...this.#resumption.left(), lastId: this.#lastId });
      this.#link?.leave(); // a browser would say 1001, by which one leaves for good
    });
    globalThis.addEventListener?.('pageshow', (event) => {
      if (/** @type {PageTransitionEvent} */ (event).persisted) takeKept(this.#url); // the page itself is back
    });
  }

  async #loadRooms() {
    if (this.#rooms) return this.#rooms;
    const { Rooms } = await import('./gameserver-rooms.js');
    const World = this.#world && (await import('./gameserver-world.js')).World;
    const shapeOf = (/** @type {string} */ name) => this.#handshake && roomWorldOf(this.#handshake, this.#lastLink, name);
    return (this.#rooms ??= new Rooms({ client: this, shapeOf }, World));
  }

  /** @internal @param {number} number */
  _roomEnded(number) {
    this.#rooms?.ended(number);
  }

  /** @internal The first connection; its failure is the caller's. */
  async _start() {
    try {
      if (this.#options.world) this.#world = new (await import('./gameserver-world.js')).World();
      if (this.#options.resume === 'reload') this.#keepOverReload();
      this.#isResumed = await this.#open();
    } catch (error) {
      this.#finish(asError(error));
      throw error;
    }
    this.#opened();
  }

  async #open() {
    const { user, WebSocket: given, timeout = CONNECT_TIMEOUT, bodyBytesMax = BODY_BYTES_MAX, serializer = 'protobuf' } = this.#options;
    this.#state = 'connecting';
    const Socket = given ?? globalThis.WebSocket;
    if (!Socket) throw new GameServerError('unreachable', 'no WebSocket here; give a class: connect(url, {WebSocket})');
    const began = performance.now();
    const told = typeof user === 'function' ? await withDeadline(timeout, 'user()', user()) : (user ?? {});
    if (this.#isClosed()) throw new GameServerError('closed', 'closed by this client');
    const left = Math.max(0, Math.ceil(timeout - (performance.now() - began)));
    const kept = serializer === 'protobuf' ? keptSchema(this.#url) : null;
    const gs = {
      serializer,
      ...(serializer === 'protobuf' || this.#world ? { schema: kept?.digest ?? '' } : {}),
      ...(this.#world ? { world: true } : {}),
    };
    const hello = encodeHandshake(told, this.#options.resume === false ? gs : { ...gs, resume: this.#resumption?.ask() ?? {} });
    const link = new Link(Socket, this.#url, hello, kept, left, Math.min(bodyBytesMax, BODY_BYTES_MAX), {
      shaken: (handshake) => this.#handleHandshake(link, handshake),
      message: (message) => this.#handleMessage(link, message),
      heartbeat: () => this.#tellSeen(link),
      kick: (reason) => this.#handleKick(reason),
      lost: (error) => this.#handleLost(link, error),
    });
    this.#link = link;
    const handshake = await link.ready;
    // What came in one frame with the handshake may have ended it already.
    if (link.error) throw link.error;
    if (link.schema && link.schema !== kept) keepSchema(this.#url, link.schema);
    return offerOf(handshake)?.seen !== undefined;
  }

  async #reopen() {
    let goesOn = false;
    try {
      goesOn = await this.#open();
    } catch (error) {
      this.#retryLater(asError(error));
      return;
    }
    this.#isResumed = goesOn;
    this.#opened();
    if (goesOn) this.#resumes.emit();
    else this.#reconnects.emit();
  }

  /** Through whom bodies are written: the connection, or the one before it if what is written is kept. @returns {Link | null} */
  #writer() {
    if (this.#link?.isOpen) return this.#link;
    return this.#state !== 'closed' && this.#resumption ? this.#lastLink : null;
  }

  /** @param {Link} link @param {Uint8Array} message A whole one. @returns {boolean} */
  #post(link, message) {
    this.#resumption?.outbox.keep(message);
    // What is kept before the handshake is done is sent with it, in its order.
    const isSent = link === this.#link && link.isOpen && link.send(PacketType.data, message);
    return isSent || this.#resumption !== null;
  }

  /** At once, before anything that follows the handshake. @param {Link} link @param {ServerHandshake} handshake */
  #handleHandshake(link, handshake) {
    const offer = offerOf(handshake);
    const before = this.#resumption;
    if (before && offer?.seen !== undefined) {
      if (!before.outbox.handleSeen(offer.seen)) {
        this.#giveUp(new GameServerError('disconnected', 'the server lacks more than was kept for it'));
        link.abandon(new GameServerError('disconnected', 'the session can not go on'));
        return;
      }
      before.token = offer.token;
      for (const message of before.outbox.messages) link.send(PacketType.data, message);
    } else {
      if (offer?.seen !== undefined) throw new ProtocolError('that a session goes on which is none');
      this.#giveUp(new GameServerError('disconnected', 'the session is over; this is a new one'));
      if (offer) this.#resumption = new Resumption(offer.token, this.#options.outboxBytesMax ?? OUTBOX_BYTES_MAX);
    }
    this.#lastLink = link;
    this.#handshake = handshake;
    this.#world?._begin(documentOf(handshake, link).world, offer?.seen !== undefined);
    this.#rooms?.begin(offer?.seen !== undefined);
  }

  /** The session does not go on. @param {GameServerError} error For what was asked in it. */
  #giveUp(error) {
    this.#resumption = null;
    this.#rejectPending(error);
  }

  /** @param {Link} link */
  #tellSeen(link) {
    const seen = this.#resumption?.tell();
    if (seen === undefined) return;
    const body = utf8.encode(String(seen));
    link.send(PacketType.data, encodeMessage({ type: MessageType.notify, id: 0, route: SEEN_ROUTE, body }));
  }

  #opened() {
    if (this.#isClosed()) return;
    this.#state = 'open';
    this.#attempt = 0;
  }

  /** @param {Link} link @param {GameServerError} error */
  #handleLost(link, error) {
    if (link !== this.#link || this.#state !== 'open') return;
    this.#traffic = this.traffic;
    this.#link = null;
    if (!this.#resumption) this.#rejectPending(new GameServerError('disconnected', error.message));
    this.#retryLater(error, this.#resumption !== null);
  }

  /** @param {GameServerError} error Why the last connection or attempt failed. @param {boolean} [isDrop] Of a session that may go on. */
  #retryLater(error, isDrop = false) {
    if (this.#isClosed()) return;
    if (error.code === 'protocol') this.#giveUp(error); // what broke the rules would come again
    const retry = this.#retry;
    if (!retry || hopeless.has(error) || this.#attempt >= retry.attempts) {
      this.#finish(error);
      return;
    }
    const random = this.#options.random ?? Math.random;
    const retryIn = random() * Math.min(retry.delayMax, retry.delay * 2 ** this.#attempt);
    this.#attempt += 1;
    this.#state = 'waiting';
    this.#retryTimer = setTimeout(() => this.retryNow(), retryIn);
    globalThis.addEventListener?.('online', this.#wake);
    if (isDrop && this.#resumption) this.#drops.emit({ error, retryIn });
    this.#disconnects.emit({ error, retryIn });
  }

  #wake = () => {
    globalThis.removeEventListener?.('online', this.#wake);
    this.retryNow();
  };

  /** @param {GameServerError} error */
  #finish(error) {
    if (this.#isClosed()) return;
    this.#state = 'closed';
    clearTimeout(this.#retryTimer);
    globalThis.removeEventListener?.('online', this.#wake);
    this.#link?.close(error);
    this.#traffic = this.traffic;
    this.#link = this.#lastLink = null;
    this.#giveUp(error);
    this.#rooms?.close();
    this.#disconnects.emit({ error, retryIn: null });
  }

  /** @param {GameServerError} error */
  #rejectPending(error) {
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, timer } of pending) {
      clearTimeout(timer);
      reject(error);
    }
  }

  /** @param {Link} link @param {Message} message */
  #handleMessage(link, message) {
    if (message.type === MessageType.push && message.route === SEEN_ROUTE) return this.#handleSeen(message.body);
    if (this.#resumption?.count(message)) this.#tellSeen(link);
    if (message.type === MessageType.response) this.#handleResponse(message);
    else if (message.type === MessageType.push) this.#handlePush(link, message);
    // A request or notify is nothing that a server sends: ignored, as other clients do.
  }

  /** @param {Message} message */
  #handleResponse({ id, body, error }) {
    const pending = this.#pending.get(id);
    if (!pending) return; // answered after its timeout
    this.#pending.delete(id);
    clearTimeout(pending.timer);
    if (error) {
      pending.reject(decodeError(body));
      return;
    }
    try {
      pending.resolve(pending.decode(body));
    } catch (error) {
      const why = error instanceof ProtocolError ? error.message : 'no JSON';
      pending.reject(new GameServerError('bad-body', `the answer is ${why}; ask with {raw: true} for its bytes`));
    }
  }

  /** @param {Uint8Array} body @throws {ProtocolError} */
  #handleSeen(body) {
    const seen = decodeBody(body);
    if (this.#resumption && !(isCount(seen) && this.#resumption.outbox.handleSeen(seen))) {
      throw new ProtocolError('that it has seen what was never sent');
    }
  }

  /** @param {Link} link @param {Message} message */
  #handlePush(link, message) {
    const { body } = message;
    const text = String(message.route);
    if (text === RECONNECT_ROUTE) return this.#moveLater(link, body);
    if (text === WORLD_ROUTE) return void this.#world?._apply(body, performance.now());
    if (text.startsWith(ROOM_WORLD_PREFIX)) return this.#rooms?.snapshot(text, body, () => this.#handlePush(link, message));
    const name = text.startsWith(UNCOUNTED_PREFIX) ? text.slice(UNCOUNTED_PREFIX.length) : text;
    const listeners = this.#listeners.get(name) ?? [];
    if (listeners.length === 0) this.#rooms?.early(name, () => this.#handlePush(link, message));
    if (name === ERROR_ROUTE && listeners.length === 0) console.warn(`gameserver: a notify was refused: ${decodeError(body).message}`);
    /** @type {{ value: unknown } | null} */
    let decoded = null;
    for (const { call, raw } of listeners) {
      guarded(() => call(raw ? body : (decoded ??= { value: link.decodePush(name, body) }).value, name));
    }
  }

  /** The server is about to stop: in a while it is left for another one. @param {Link} link @param {Uint8Array} body */
  #moveLater(link, body) {
    const { delay } = /** @type {{ delay: number }} */ (decodeBody(body));
    const retryIn = Number.isFinite(delay) ? Math.max(0, delay * 1000) : 0;
    this.#drains.emit({ retryIn });
    setTimeout(() => this.#move(link, MOVE_LOOKS_MAX), retryIn);
  }

  /** @param {Link} link @param {number} looks How often to wait for what is not answered yet. */
  #move(link, looks) {
    if (link !== this.#link || !link.isOpen) return;
    if (looks > 0 && this.#pending.size > 0) {
      setTimeout(() => this.#move(link, looks - 1), MOVE_LOOK_EVERY);
      return;
    }
    const error = new GameServerError('disconnected', 'the server is about to stop; connecting anew');
    this.#traffic = this.traffic;
    this.#link = null;
    link.close(error);
    this.#giveUp(error);
    this.#retryLater(error);
  }

  /** @param {string} reason */
  #handleKick(reason) {
    this.#giveUp(new GameServerError('kicked', reason)); // the session is over
    this.#kicks.emit(reason);
    if (reason !== KICK_SHUTDOWN) this.#finish(new GameServerError('kicked', reason));
  }

  /** A function, so that a type checker does not think that the state stands still over an await. */
  #isClosed() {
    return this.#state === 'closed';
  }

  /** Ids of one connection differ while in flight; 0 is legal, but no client that we know sends it. */
  #nextId() {
    do this.#lastId = this.#lastId >= 0xff_ff_ff_ff ? 1 : this.#lastId + 1;
    while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }
}

/** What a client has of a session that can go on over another connection. */
class Resumption {
  /** Counted messages from the server. */
  #seen = 0;
  #told = 0;
  #bytes = 0;

  /** @param {string} token For the next connection. @param {number} outboxBytesMax */
  constructor(token, outboxBytesMax) {
    this.token = token;
    this.outbox = new Outbox(outboxBytesMax);
  }

  /** @param {Kept} kept @param {number} outboxBytesMax */
  static of({ token, seen, gone, messages }, outboxBytesMax) {
    const resumption = new Resumption(token, outboxBytesMax);
    resumption.#seen = resumption.#told = seen;
    resumption.outbox.restore(gone, messages.map(fromBase64));
    return resumption;
  }

  /** What another page needs to go on. */
  left() {
    return { token: this.token, seen: this.#seen, gone: this.outbox.gone, messages: this.outbox.messages.map(toBase64) };
  }

  /** For the handshake. */
  ask() {
    return { token: this.token, seen: this.#seen };
  }

  /** @param {Message} message @returns {boolean} Whether the server should be told now. */
  count({ type, route, body }) {
    const isCounted = type === MessageType.response || (type === MessageType.push && (!String(route).startsWith('$') || route === ERROR_ROUTE));
    if (!isCounted) return false;
    this.#seen += 1;
    this.#bytes += body.length;
    return this.#seen - this.#told >= SEEN_MESSAGES || this.#bytes >= SEEN_BYTES;
  }

  /** @returns {number | undefined} What the server is to be told, unless it knows. */
  tell() {
    if (this.#seen === this.#told) return undefined;
    this.#told = this.#seen;
    this.#bytes = 0;
    return this.#seen;
  }
}

/** Messages that were sent, or are to be, and that the server may not have seen; counted from the session's first. */
export class Outbox {
  /** @type {Uint8Array[]} */
  #kept = [];
  /** So many were sent before those that are kept. */
  #gone = 0;
  #bytes = 0;
  #bytesMax;

  /** @param {number} bytesMax */
  constructor(bytesMax) {
    this.#bytesMax = bytesMax;
  }

  /** In order. @returns {readonly Uint8Array[]} */
  get messages() {
    return this.#kept;
  }

  /** So many were sent before those that are kept. */
  get gone() {
    return this.#gone;
  }

  /** @param {number} gone @param {Uint8Array[]} messages */
  restore(gone, messages) {
    this.#gone = gone;
    for (const message of messages) this.keep(message);
  }

  /** @param {Uint8Array} message */
  hasRoom(message) {
    return this.#bytes + message.length <= this.#bytesMax;
  }

  /** Beyond the bound the oldest go, and with them the chance to go on, unless the server has seen them. @param {Uint8Array} message */
  keep(message) {
    this.#kept.push(message);
    this.#bytes += message.length;
    let count = 0;
    for (let bytes = this.#bytes; bytes > this.#bytesMax; count += 1) bytes -= this.#kept[count].length;
    this.#letGo(count);
  }

  /** @param {number} seen So many of all. @returns {boolean} False if that can't be, or if not all of the others are kept. */
  handleSeen(seen) {
    if (seen > this.#gone + this.#kept.length) return false;
    this.#letGo(Math.max(0, seen - this.#gone));
    return seen >= this.#gone;
  }

  /** @param {number} count */
  #letGo(count) {
    for (const message of this.#kept.splice(0, count)) this.#bytes -= message.length;
    this.#gone += count;
  }
}

/**
 * @typedef {{ resolve: (body: any) => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>, decode: (body: Uint8Array) => unknown }} Pending
 * @typedef {{ call: (body: any, route: string) => void, raw: boolean }} Listener
 * @typedef {{ body: unknown, waits: boolean }} Input `waits`: it was not sent yet.
 * @typedef {{ shaken: (handshake: ServerHandshake) => void, message: (message: Message) => void, heartbeat: () => void, kick: (reason: string) => void, lost: (error: GameServerError) => void }} LinkEvents
 */

/** One WebSocket: handshake, heartbeats, packets. Ends once, by `lost`, and nothing that arrives throws out of it. */
class Link {
  /** @type {Promise<ServerHandshake>} Settles once, with the handshake or the first error. */
  ready;
  /** @type {(handshake: ServerHandshake) => void} */
  #succeed = () => {};
  /** @type {(error: GameServerError) => void} */
  #fail = () => {};
  /** @type {GameServerError | null} Why it ended; null before. */
  error = null;
  /** @type {Schema | null} Of this connection: the next one's may be another. */
  schema = null;
  /** @type {Schema | null} */
  #kept;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {'shaking' | 'open' | 'ended'} */
  #state = 'shaking';
  #decoder;
  #bodyBytesMax;
  #events;
  /** @type {Map<string, number>} */
  #codes = new Map();
  /** @type {Map<number, string>} */
  #names = new Map();
  /** @type {Traffic} */
  traffic = { bytesIn: 0, bytesOut: 0, messagesIn: 0, messagesOut: 0 };
  #lastHeard = 0;
  #lastSent = 0;
  #heartbeat = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #errorTimer;
  /** Messages behind one that is still being inflated; null while none is. @type {Message[] | null} */
  #behind = null;

  /**
   * @param {SocketClass} Socket
   * @param {string} url
   * @param {Uint8Array} hello The body of our handshake.
   * @param {Schema | null} kept Whose digest is in `hello`.
   * @param {number} timeout ms until the server's.
   * @param {number} bodyBytesMax
   * @param {LinkEvents} events
   */
  constructor(Socket, url, hello, kept, timeout, bodyBytesMax, events) {
    this.#kept = kept;
    this.#bodyBytesMax = bodyBytesMax;
    this.#decoder = new PacketDecoder(bodyBytesMax);
    this.#events = events;
    this.ready = new Promise((resolve, reject) => {
      this.#succeed = resolve;
      this.#fail = reject;
    });
    this.#timer = setTimeout(() => this.#end(new GameServerError('timeout', `no handshake within ${timeout} ms`), CLOSE_SILENT), timeout);
    try {
      this.#socket = new Socket(url);
    } catch (error) {
      this.#end(final(new GameServerError('unreachable', String(error))));
      return;
    }
    const socket = this.#socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => this.send(PacketType.handshake, hello);
    socket.onmessage = (event) => this.#handleFrame(event.data);
    socket.onclose = (event) => this.#end(closeError(this.#state, event));
    // A close event follows in the same task, and says more; but not in Node.js 20, where nothing does.
    socket.onerror = () => {
      this.#errorTimer ??= setTimeout(() => this.#end(new GameServerError('unreachable', 'the socket failed')), 0);
    };
  }

  /** @param {number} type @param {Uint8Array} body @returns {boolean} False once the socket is closing. */
  send(type, body) {
    const packet = encodePacket(type, body);
    if (this.#socket?.readyState !== 1) return false;
    this.#lastSent = performance.now();
    this.traffic.bytesOut += packet.length;
    this.traffic.messagesOut += type === PacketType.data ? 1 : 0;
    this.#socket.send(packet);
    return true;
  }

  /** Whether messages may be sent. */
  get isOpen() {
    return this.#state === 'open';
  }

  /** The code that the server gave to a route, or the route. @param {string} route @returns {string | number} */
  routeOf(route) {
    return this.#codes.get(route) ?? route;
  }

  /** @param {string} route @param {unknown} body @returns {Uint8Array} @throws {TypeError} It does not fit. */
  encodeBody(route, body) {
    const codec = isBytes(body) ? undefined : this.schema?.requestOf(route);
    return codec ? codec.encode(body ?? {}) : encodeBody(body);
  }

  /** @param {string} route @param {Uint8Array} body @returns {unknown} @throws {ProtocolError | SyntaxError} */
  decodeAnswer(route, body) {
    const codec = this.schema?.responseOf(route);
    return codec ? codec.decode(body) : decodeBody(body);
  }

  /** @param {string} route @param {Uint8Array} body @returns {unknown} @throws {ProtocolError | SyntaxError} */
  decodePush(route, body) {
    if (route === ERROR_ROUTE) return decodeError(body);
    const codec = this.schema?.pushOf(route);
    if (codec) return codec.decode(body);
    return body.length === 0 ? {} : decodeBody(body); // what a JSON connection gets for a push without a body
  }

  /** For good. @param {GameServerError} error Why. */
  close(error) {
    this.#end(error, CLOSE_NORMAL);
  }

  /** The page goes, and perhaps comes back. */
  leave() {
    this.#end(new GameServerError('disconnected', 'the page was left'), CLOSE_PAGE_LEFT);
  }

  /** Another one follows. @param {GameServerError} error Why. */
  abandon(error) {
    this.#end(error, CLOSE_PROTOCOL);
  }

  /** @param {GameServerError} error @param {number} [closeCode] Of our own doing; none if the socket is gone already. */
  #end(error, closeCode) {
    if (this.#state === 'ended') return;
    const wasOpen = this.#state === 'open';
    this.#state = 'ended';
    this.error = error;
    clearTimeout(this.#timer);
    clearTimeout(this.#errorTimer);
    const socket = this.#socket;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
      if (closeCode !== undefined) guarded(() => socket.close(closeCode));
    }
    if (wasOpen) this.#events.lost(error);
    else this.#fail(error);
  }

  /** @param {unknown} data */
  #handleFrame(data) {
    this.#lastHeard = performance.now();
    try {
      if (!(data instanceof ArrayBuffer)) throw new ProtocolError('a text frame');
      this.traffic.bytesIn += data.byteLength;
      this.#decoder.feed(new Uint8Array(data));
      for (let packet = this.#decoder.next(); packet && this.#state !== 'ended'; packet = this.#decoder.next()) {
        this.#handlePacket(packet);
      }
    } catch (error) {
      this.#breach(error);
    }
  }

  /** A function, so that a type checker does not think that the state stands still over an await. */
  #isEnded() {
    return this.#state === 'ended';
  }

  /** @param {unknown} error */
  #breach(error) {
    const what = error instanceof Error ? error.message : String(error);
    this.#end(new GameServerError('protocol', `the server sent ${what}`), CLOSE_PROTOCOL);
  }

  /** @param {Packet} packet */
  #handlePacket({ type, body }) {
    const open = this.#state === 'open';
    if (type === PacketType.handshake && !open) this.#handleHandshake(body);
    else if (type === PacketType.kick) this.#handleKick(body);
    else if (!open) throw new ProtocolError(`packet type ${type} before its handshake`);
    else if (type === PacketType.data) this.#handleData(body);
    // Answered at once, not by a timer: browsers slow timers of hidden pages down to one a minute.
    else if (type === PacketType.heartbeat) {
      this.send(PacketType.heartbeat, NOTHING);
      this.#events.heartbeat();
    }
    else throw new ProtocolError(`packet type ${type} after its handshake`);
  }

  /** @param {Uint8Array} body */
  #handleHandshake(body) {
    const handshake = decodeHandshake(body);
    if (handshake.code !== 200) {
      this.#end(refusal(handshake), CLOSE_NORMAL);
      return;
    }
    if (handshake.sys.serializer === 'protobuf') this.schema = agreedSchema(handshake.sys.gs, this.#kept);
    for (const [name, code] of Object.entries(handshake.sys.dict)) {
      this.#codes.set(name, code);
      this.#names.set(code, name);
    }
    this.#state = 'open';
    clearTimeout(this.#timer);
    this.send(PacketType.handshakeAck, NOTHING);
    this.#heartbeat = handshake.sys.heartbeat * 1000;
    if (this.#heartbeat > 0) this.#watch(this.#heartbeat);
    this.#events.shaken(handshake);
    this.#succeed(handshake);
  }

  /** Sends a heartbeat where nothing else was sent, and finds out that the server is gone. @param {number} wait ms */
  #watch(wait) {
    const due = performance.now() + wait;
    this.#timer = setTimeout(() => {
      const now = performance.now();
      if (now - this.#lastSent >= this.#heartbeat * 0.9) this.send(PacketType.heartbeat, NOTHING);
      const silence = now - this.#lastHeard;
      if (silence < DEAD_AFTER_HEARTBEATS * this.#heartbeat) this.#watch(this.#heartbeat / 2);
      else if (now - due > this.#heartbeat / 2) this.#watch(Math.min(WAKE_GRACE, this.#heartbeat / 4));
      else this.#end(new GameServerError('disconnected', `nothing heard for ${Math.round(silence / 1000)} s`), CLOSE_SILENT);
    }, wait);
  }

  /** @param {Uint8Array} body */
  #handleKick(body) {
    let reason = '';
    try {
      const kick = decodeBody(body);
      if (isObject(kick) && typeof kick.reason === 'string') reason = kick.reason;
    } catch {
      // A kick without a readable reason is still one.
    }
    if (this.#state !== 'open') {
      const error = new GameServerError('kicked', reason);
      this.#end(reason === KICK_SHUTDOWN ? error : final(error), CLOSE_NORMAL);
      return;
    }
    this.#events.kick(reason);
    this.#end(new GameServerError('kicked', reason), CLOSE_NORMAL);
  }

  /** @param {Uint8Array} body */
  #handleData(body) {
    const message = decodeMessage(body);
    this.traffic.messagesIn += 1;
    if (typeof message.route === 'number') {
      const name = this.#names.get(message.route);
      if (name === undefined) throw new ProtocolError(`route code ${message.route}, which is in no dictionary`);
      message.route = name;
    }
    if (this.#behind) this.#behind.push(message);
    else if (message.compressed) void this.#inflateThenHandle(message);
    else this.#events.message(message);
  }

  /** Inflating takes turns of the event loop: what comes meanwhile waits, so that the order stays. @param {Message} first */
  async #inflateThenHandle(first) {
    const queue = (this.#behind = [first]);
    try {
      for (let message = queue.shift(); message && this.#state !== 'ended'; message = queue.shift()) {
        if (message.compressed) message.body = await inflate(message.body, this.#bodyBytesMax);
        if (!this.#isEnded()) this.#events.message(message);
      }
      this.#behind = null;
    } catch (error) {
      this.#breach(error);
    }
  }
}

/** Listeners of one event. @template T */
class Signal {
  /** @type {Set<(value: T) => void>} */
  #listeners = new Set();

  /** @param {(value: T) => void} listener @returns {Unsubscribe} */
  add(listener) {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** @param {T} value */
  emit(value) {
    for (const listener of [...this.#listeners]) guarded(() => listener(value));
  }
}

/** @internal Runs the game's code: its exception is shown, and harms neither the connection nor the other listeners. @param {() => void} call */
export function guarded(call) {
  try {
    call();
  } catch (error) {
    if (typeof globalThis.reportError === 'function') globalThis.reportError(error);
    else console.error(error);
  }
}

/** @param {string | URL | undefined} url @returns {string} */
function socketUrl(url) {
  const page = /** @type {{ href?: string } | undefined} */ (globalThis.location)?.href;
  if (url === undefined && page === undefined) throw new GameServerError('unreachable', 'give a url: there is no page to take it from');
  const full = new URL(url ?? '/', page);
  full.protocol = full.protocol.replace(/^http/, 'ws');
  full.hash = '';
  return full.href;
}

/** @param {'shaking' | 'open' | 'ended'} state @param {CloseEvent} event */
function closeError(state, event) {
  const why = event.reason ? `${event.code} ${event.reason}` : `${event.code}`;
  return state === 'open'
    ? new GameServerError('disconnected', `the connection was closed (${why})`)
    : new GameServerError('unreachable', `no connection (${why})`);
}

/**
 * What `promise` gives, or the error that it did not in time.
 * @template T
 * @param {number} timeout ms
 * @param {string} what
 * @param {T | Promise<T>} promise
 * @returns {Promise<T>}
 */
async function withDeadline(timeout, what, promise) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new GameServerError('timeout', `no answer from ${what} within ${timeout} ms`)), timeout);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {ServerHandshake} handshake */
function refusal({ code, user }) {
  const why = typeof user.code === 'string' && user.code ? user.code : 'refused';
  const msg = typeof user.msg === 'string' ? user.msg : `the server refused the handshake (${code})`;
  const error = new GameServerError(why, msg, { status: String(code) });
  return why === CODE_DRAINING ? error : final(error); // the next attempt may reach another server
}

/** @param {Record<string, unknown>} gs Of the server's handshake. @param {Schema | null} kept @returns {Schema | null} @throws {ProtocolError} */
function agreedSchema(gs, kept) {
  if (gs.schema !== undefined) return new Schema(gs.schema);
  if (gs.digest === undefined) return null;
  if (kept?.digest !== gs.digest) throw new ProtocolError('the digest of a schema that it never sent');
  return kept;
}

/** JSON of the last schema of each server, for where no storage is. @type {Map<string, string>} */
const schemas = new Map();

/** @param {string} url @returns {Schema | null} What this server sent last. */
function keptSchema(url) {
  try {
    const key = schemaKey(url);
    const json = schemas.get(key) ?? globalThis.localStorage?.getItem(key);
    return json ? new Schema(JSON.parse(json)) : null;
  } catch {
    return null; // no storage is allowed here, or what is in it is no schema: the server sends it again
  }
}

/** @param {string} url @param {Schema} schema */
function keepSchema(url, schema) {
  const key = schemaKey(url);
  const json = JSON.stringify(schema.document);
  schemas.set(key, json);
  try {
    globalThis.localStorage?.setItem(key, json);
  } catch {
    // Storage is full or not allowed: kept until the page is left.
  }
}

/** One entry for a server, whatever the query says. @param {string} url */
function schemaKey(url) {
  const { host, pathname } = new URL(url);
  return `gameserver.schema ${host}${pathname}`;
}

/** @typedef {{ token: string, seen: number, gone: number, messages: string[], lastId: number }} Kept What a page leaves for the next one in its tab. */

/** Once: two pages can't go on with one session. @param {string} url @returns {Kept | null} */
function takeKept(url) {
  try {
    const key = `${schemaKey(url)} session`;
    const json = globalThis.sessionStorage?.getItem(key);
    globalThis.sessionStorage?.removeItem(key);
    const kept = json ? JSON.parse(json) : null;
    const isKept = typeof kept?.token === 'string' && isCount(kept.seen) && isCount(kept.gone) && isCount(kept.lastId) && Array.isArray(kept.messages);
    return isKept ? kept : null;
  } catch {
    return null; // no storage is allowed here
  }
}

/** @param {string} url @param {Kept} kept */
function leaveKept(url, kept) {
  try {
    globalThis.sessionStorage?.setItem(`${schemaKey(url)} session`, JSON.stringify(kept));
  } catch {
    // Storage is full or not allowed: the next page begins anew.
  }
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}

/** @param {string} text @returns {Uint8Array} */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** @param {unknown} error @returns {GameServerError} */
function asError(error) {
  return error instanceof GameServerError ? error : new GameServerError('unreachable', String(error));
}

/** Errors after which another attempt would end the same way. @type {WeakSet<GameServerError>} */
const hopeless = new WeakSet();

/** @param {GameServerError} error @returns {GameServerError} */
function final(error) {
  hopeless.add(error);
  return error;
}

const NOTHING = new Uint8Array(0);
/** A push to it is what answers a notify that was refused. */
const ERROR_ROUTE = '$error';
/** A push to it, and a notify, says how many messages were seen. */
const SEEN_ROUTE = '$seen';
/** A push to it asks for a new connection: the server is about to stop. */
const RECONNECT_ROUTE = '$reconnect';
const CODE_DRAINING = 'GS-503';
/** In ms, how often it is looked whether all that was asked for is answered, and how often at most. */
const MOVE_LOOK_EVERY = 100;
const MOVE_LOOKS_MAX = 20;
/** A push to it is a snapshot of the world. */
const WORLD_ROUTE = '$w';
const ROOM_WORLD_PREFIX = '$w@';
/** Inputs per second to a server that does not tell its ticks. */
const INPUT_RATE = 30;
/** Before the route of a push that is not counted, because it may be dropped on its way. */
const UNCOUNTED_PREFIX = '$~';

/** @param {unknown} value @returns {value is number} */
function isCount(value) {
  return Number.isSafeInteger(value) && /** @type {number} */ (value) >= 0;
}

/** What the server tells of its messages and worlds. @param {ServerHandshake} handshake @param {Link | null} link @returns {Record<string, any>} */
function documentOf({ sys }, link) {
  const document = link?.schema?.document ?? sys.gs.schema;
  return isObject(document) ? document : {};
}

/** The shape of the worlds of rooms of this name. @param {ServerHandshake} handshake @param {Link | null} link @param {string} name @returns {unknown} */
function roomWorldOf(handshake, link, name) {
  const { rooms } = documentOf(handshake, link);
  return isObject(rooms) && Object.hasOwn(rooms, name) ? rooms[name] : undefined;
}

/** How to go on with the session, if the server lets us. @param {ServerHandshake} handshake @returns {{ token: string, seen: number | undefined } | null} */
function offerOf(handshake) {
  const offer = handshake.sys.gs.resume;
  if (!isObject(offer) || typeof offer.token !== 'string') return null;
  return { token: offer.token, seen: isCount(offer.seen) ? offer.seen : undefined };
}

// ---- the wire: packets, messages, bodies. Pure functions over bytes; docs/wire.md has the layout -------------------------------

/** @typedef {{ type: number, body: Uint8Array }} Packet */

export const PacketType = Object.freeze({ handshake: 1, handshakeAck: 2, heartbeat: 3, data: 4, kick: 5 });
export const MessageType = Object.freeze({ request: 0, notify: 1, response: 2, push: 3 });

/** Bytes that break the rules of the wire. */
export class ProtocolError extends Error {
  name = 'ProtocolError';
}

/** @param {number} type @param {Uint8Array} body @returns {Uint8Array} */
export function encodePacket(type, body) {
  if (body.length > BODY_BYTES_MAX) throw new RangeError(`body of ${body.length} bytes: at most ${BODY_BYTES_MAX}`);
  const packet = new Uint8Array(HEADER_BYTES + body.length);
  packet[0] = type;
  packet[1] = body.length >> 16;
  packet[2] = body.length >> 8;
  packet[3] = body.length;
  packet.set(body, HEADER_BYTES);
  return packet;
}

/** Packets out of a stream, however it is cut. Keeps at most one incomplete packet. */
export class PacketDecoder {
  #bodyBytesMax;
  /** @type {Uint8Array} What was fed and is not taken yet. */
  #input = NOTHING;
  /** @type {Uint8Array[]} Fed behind `#input`, not joined yet: a packet in many pieces is copied once. */
  #more = [];
  #bytes = 0;
  #needed = HEADER_BYTES;

  /** @param {number} [bodyBytesMax] */
  constructor(bodyBytesMax = BODY_BYTES_MAX) {
    this.#bodyBytesMax = bodyBytesMax;
  }

  /** @param {Uint8Array} bytes */
  feed(bytes) {
    if (this.#bytes === 0) this.#input = bytes;
    else this.#more.push(bytes);
    this.#bytes += bytes.length;
  }

  /** @returns {Packet | null} The next one; null: feed more. @throws {ProtocolError} */
  next() {
    if (this.#bytes < this.#needed) {
      if (this.#bytes > 0) this.#judge();
      return null;
    }
    if (this.#more.length) this.#join();
    this.#judge();
    const length = this.#length();
    if (this.#bytes < HEADER_BYTES + length) {
      this.#needed = HEADER_BYTES + length;
      return null;
    }
    const packet = { type: this.#input[0], body: this.#input.subarray(HEADER_BYTES, HEADER_BYTES + length) };
    this.#input = this.#input.subarray(HEADER_BYTES + length);
    this.#bytes = this.#input.length;
    this.#needed = HEADER_BYTES;
    return packet;
  }

  /** Declared, by the header at the front. */
  #length() {
    return (this.#input[1] << 16) | (this.#input[2] << 8) | this.#input[3];
  }

  /** The type on its first byte, the length on its header: before the body is there. */
  #judge() {
    const type = this.#input[0];
    if (type < PacketType.handshake || type > PacketType.kick) throw new ProtocolError(`packet type ${type}`);
    if (this.#input.length >= HEADER_BYTES && this.#length() > this.#bodyBytesMax) {
      throw new ProtocolError(`a body of ${this.#length()} bytes: at most ${this.#bodyBytesMax} (bodyBytesMax)`);
    }
  }

  #join() {
    const joined = new Uint8Array(this.#bytes);
    joined.set(this.#input);
    let at = this.#input.length;
    for (const piece of this.#more) {
      joined.set(piece, at);
      at += piece.length;
    }
    this.#input = joined;
    this.#more = [];
  }
}

/**
 * @typedef {object} Message
 * @property {number} type One of `MessageType`.
 * @property {number} id Of a request or response; else 0.
 * @property {string | number} route A name or a code of the dictionary; '' for a response.
 * @property {Uint8Array} body
 * @property {boolean} [error] A response: the body is an error.
 * @property {boolean} [compressed] The body is zlib.
 */

/** @param {Message} message @returns {Uint8Array} @throws {RangeError} the route or the id does not fit. */
export function encodeMessage({ type, id, route, body, error = false, compressed = false }) {
  const hasId = type === MessageType.request || type === MessageType.response;
  const hasRoute = type !== MessageType.response;
  const isCode = hasRoute && typeof route === 'number';
  const head = [(error ? FLAG_ERROR : 0) | (compressed ? FLAG_ZLIB : 0) | (type << 1) | (isCode ? FLAG_CODE : 0)];
  if (hasId) {
    if (!(Number.isInteger(id) && id >= 0 && id <= 0xff_ff_ff_ff)) throw new RangeError(`message id ${id}: 0 to 2^32-1`);
    let rest = id;
    for (; rest > 0x7f; rest = Math.floor(rest / 128)) head.push((rest & 0x7f) | 0x80);
    head.push(rest);
  }
  let name = NOTHING;
  if (isCode) {
    head.push(route >> 8, route & 0xff);
  } else if (hasRoute) {
    name = utf8.encode(String(route));
    if (name.length > 255) throw new RangeError(`route of ${name.length} bytes: at most 255`);
    head.push(name.length);
  }
  const bytes = new Uint8Array(head.length + name.length + body.length);
  bytes.set(head);
  bytes.set(name, head.length);
  bytes.set(body, head.length + name.length);
  return bytes;
}

/** @param {Uint8Array} bytes The body of a data packet. @returns {Message} Its body borrows from `bytes`. @throws {ProtocolError} */
export function decodeMessage(bytes) {
  if (bytes.length === 0) throw new ProtocolError('an empty message');
  const flag = bytes[0];
  const type = (flag >> 1) & 7;
  if (type > MessageType.push) throw new ProtocolError(`message type ${type}`);
  if (flag & 0xc0) throw new ProtocolError(`message flags 0x${flag.toString(16)}`);
  let at = 1;
  let id = 0;
  if (type === MessageType.request || type === MessageType.response) {
    let byte = 0x80;
    for (let shift = 0; byte & 0x80; shift += 7) {
      if (at >= bytes.length) throw new ProtocolError('a message id that runs over its message');
      byte = bytes[at++];
      id += (byte & 0x7f) * 2 ** shift; // not <<, which has 31 bits
      if (shift > 28 || id > 0xff_ff_ff_ff) throw new ProtocolError('a message id above 2^32-1');
    }
  }
  /** @type {string | number} */
  let route = '';
  if (type !== MessageType.response) {
    const size = flag & FLAG_CODE ? 2 : 1 + (bytes[at] ?? 0);
    if (at + size > bytes.length) throw new ProtocolError('a route that runs over its message');
    route = flag & FLAG_CODE ? (bytes[at] << 8) | bytes[at + 1] : decodeUtf8(bytes.subarray(at + 1, at + size), 'a route');
    at += size;
  }
  return { type, id, route, error: (flag & FLAG_ERROR) !== 0, compressed: (flag & FLAG_ZLIB) !== 0, body: bytes.subarray(at) };
}

/** @param {unknown} body @returns {Uint8Array} */
export function encodeBody(body) {
  if (isBytes(body)) return body instanceof Uint8Array ? body : new Uint8Array(body);
  const json = JSON.stringify(body === undefined ? {} : body, (_, value) => (typeof value === 'bigint' ? String(value) : value));
  if (json === undefined) throw new TypeError(`a body of type ${typeof body}: give JSON or a Uint8Array`);
  return utf8.encode(json);
}

/** @param {Uint8Array} body @returns {unknown} JSON; null for an empty body. @throws {SyntaxError} */
export function decodeBody(body) {
  return body.length === 0 ? null : JSON.parse(fromUtf8.decode(body));
}

/**
 * An error answer's body: JSON, or protobuf `Error{1: code, 2: msg, 3: map<string, string> metadata}`; a server of another make
 * may send either. What is neither still becomes an error.
 *
 * @param {Uint8Array} body
 * @returns {GameServerError}
 */
export function decodeError(body) {
  try {
    // No protobuf of this message begins with a brace: it would be a group.
    const { code, msg, metadata } = body[0] === 0x7b ? errorFromJson(body) : ERROR.decode('Error', body);
    return new GameServerError(code || 'unknown', msg, { ...metadata });
  } catch {
    return new GameServerError('unknown', 'an error that can not be read');
  }
}

/** @typedef {{ code: string, msg: string, metadata: Record<string, string> }} ErrorBody */

/** @param {Uint8Array} body @returns {ErrorBody} */
function errorFromJson(body) {
  const error = /** @type {Record<string, unknown>} */ (decodeBody(body));
  const metadata = isObject(error.metadata) ? error.metadata : {};
  return {
    code: typeof error.code === 'string' || typeof error.code === 'number' ? String(error.code) : '',
    msg: typeof error.msg === 'string' ? error.msg : '',
    metadata: Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, String(value)])),
  };
}

/**
 * @param {object} user
 * @param {{ serializer: string, schema?: string, world?: boolean, resume?: unknown }} gs `schema`: the digest of the one that is kept; '' for none.
 * @returns {Uint8Array}
 */
export function encodeHandshake(user, gs) {
  return utf8.encode(JSON.stringify({ sys: { type: 'gameserver-js', version: VERSION, gs }, user }));
}

/** @param {Uint8Array} body @returns {ServerHandshake} With what is missing or of a wrong type filled in. @throws {ProtocolError} */
export function decodeHandshake(body) {
  let json;
  try {
    json = decodeBody(body);
  } catch {
    throw new ProtocolError('a handshake that is no JSON');
  }
  if (!isObject(json) || typeof json.code !== 'number') throw new ProtocolError('a handshake without a code');
  const sys = isObject(json.sys) ? json.sys : {};
  const dict = isObject(sys.dict) ? sys.dict : {};
  return {
    code: json.code,
    sys: {
      heartbeat: typeof sys.heartbeat === 'number' && sys.heartbeat > 0 ? Math.min(sys.heartbeat, 86_400) : 0,
      serializer: typeof sys.serializer === 'string' ? sys.serializer : 'json',
      dict: /** @type {Record<string, number>} */ (Object.fromEntries(Object.entries(dict).filter(([, code]) => isCode(code)))),
      gs: isObject(sys.gs) ? sys.gs : {},
    },
    user: isObject(json.user) ? json.user : {},
  };
}

/** @param {Uint8Array} body zlib. @param {number} bytesMax @returns {Promise<Uint8Array>} @throws {ProtocolError} (as a rejection) */
export async function inflate(body, bytesMax) {
  if (typeof DecompressionStream !== 'function') throw new ProtocolError('a compressed body, and this browser can not inflate');
  const stream = new DecompressionStream('deflate');
  const writer = stream.writable.getWriter();
  // Both settle with the reads below; their own rejections say nothing more.
  writer.write(/** @type {BufferSource} */ (body)).catch(() => {});
  writer.close().catch(() => {});
  const reader = stream.readable.getReader();
  /** @type {Uint8Array[]} */
  const pieces = [];
  let bytes = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new ProtocolError('a compressed body that does not inflate');
    });
    if (done) break;
    pieces.push(value);
    bytes += value.length;
    if (bytes > bytesMax) {
      void reader.cancel().catch(() => {});
      throw new ProtocolError(`a body that inflates beyond ${bytesMax} bytes (bodyBytesMax)`);
    }
  }
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** @param {Uint8Array} bytes @param {string} what @returns {string} */
function decodeUtf8(bytes, what) {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    throw new ProtocolError(`${what} that is no UTF-8`);
  }
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @param {unknown} value @returns {value is Uint8Array | ArrayBuffer} */
function isBytes(value) {
  return value instanceof Uint8Array || value instanceof ArrayBuffer;
}

/** @param {unknown} value @returns {value is number} */
function isCode(value) {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 0xff_ff;
}

const HEADER_BYTES = 4;
const FLAG_CODE = 0x01;
const FLAG_ZLIB = 0x10;
const FLAG_ERROR = 0x20;
const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder('utf-8');
// A BOM is part of a route's name: routes are opaque.
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

// ---- the schema: protobuf without generated code. docs/wire.md has the document that a server sends --------------------------

/**
 * @typedef {[number: number, name: string, type: string, label?: string, more?: string]} FieldEntry
 * @typedef {object} SchemaDocument
 * @property {string} digest
 * @property {Record<string, FieldEntry[]>} [messages]
 * @property {Record<string, Record<string, number>>} [enums]
 * @property {Record<string, { request?: string, response?: string }>} [routes]
 * @property {Record<string, string>} [pushes]
 */

/**
 * The messages of a server. In JavaScript a message is a plain object:
 *
 * | protobuf | JavaScript |
 * |---|---|
 * | numbers up to 32 bits, floats, bool, string | number, boolean, string |
 * | 64-bit numbers | BigInt; a number is taken too where it is a safe integer |
 * | bytes | Uint8Array |
 * | enum | its name; a number where it has none, and numbers are taken |
 * | repeated | array; typed arrays are taken |
 * | map | object without a prototype; a `Map` is taken |
 * | optional, oneof, message | not there unless it is set |
 * | anything else that was not sent | its default |
 */
export class Schema {
  /** @type {string} */
  digest;
  /** @type {SchemaDocument} As the server sent it. */
  document;
  /** @type {Map<string, MessageCodec>} */
  #messages = new Map();
  /** @type {Map<string, { request: MessageCodec | undefined, response: MessageCodec | undefined }>} */
  #routes = new Map();
  /** @type {Map<string, MessageCodec>} */
  #pushes = new Map();

  /** @param {unknown} document @throws {ProtocolError} It is none. */
  constructor(document) {
    if (!isObject(document)) throw new ProtocolError('a schema that is no object');
    const { digest, messages, enums, routes, pushes } = document;
    if (typeof digest !== 'string' || !digest || digest.length > 128) throw new ProtocolError('a schema without a digest');
    this.digest = digest;
    this.document = /** @type {SchemaDocument} */ (/** @type {unknown} */ (document));
    /** @type {Map<string, Kind>} */
    const kinds = new Map(SCALARS);
    for (const [name, numbers] of entries(enums, 'enums')) kinds.set(`.${name}`, enumKind(name, entries(numbers, `enum ${name}`)));
    for (const [name] of entries(messages, 'messages')) {
      const codec = new MessageCodec(name);
      this.#messages.set(name, codec);
      kinds.set(`.${name}`, messageKind(codec));
    }
    for (const [name, fields] of entries(messages, 'messages')) this.#codec(name).define(fields, kinds);
    for (const [route, given] of entries(routes, 'routes')) {
      const { request, response } = isObject(given) ? given : {};
      this.#routes.set(route, {
        request: request === undefined ? undefined : this.#codec(request),
        response: response === undefined ? undefined : this.#codec(response),
      });
    }
    for (const [route, name] of entries(pushes, 'pushes')) this.#pushes.set(route, this.#codec(name));
  }

  /**
   * @param {string} name A message's full name.
   * @param {object} value
   * @returns {Uint8Array}
   * @throws {TypeError} The value does not fit; says where.
   */
  encode(name, value) {
    return this.#codec(name).encode(value);
  }

  /**
   * @param {string} name A message's full name.
   * @param {Uint8Array} bytes
   * @returns {any}
   * @throws {ProtocolError} The bytes are no such message.
   */
  decode(name, bytes) {
    return this.#codec(name).decode(bytes);
  }

  /** @internal What a request or notify to `route` carries. @param {string} route */
  requestOf(route) {
    return ofRoute(this.#routes, route)?.request;
  }

  /** @internal What answers it. @param {string} route */
  responseOf(route) {
    return ofRoute(this.#routes, route)?.response;
  }

  /** @internal What a push carries. @param {string} route */
  pushOf(route) {
    return ofRoute(this.#pushes, route);
  }

  /** @param {unknown} name */
  #codec(name) {
    const codec = this.#messages.get(/** @type {string} */ (name));
    if (!codec) throw new ProtocolError(`a schema without a message ${shown(name)}`);
    return codec;
  }
}

/** A room's route ends in `@` and the room's number. @template T @param {Map<string, T>} map @param {string} route */
function ofRoute(map, route) {
  return map.get(route) ?? map.get(route.replace(/@\d+$/, ''));
}

/** @param {unknown} object @param {string} what @returns {[string, unknown][]} */
function entries(object, what) {
  if (object === undefined) return [];
  if (!isObject(object)) throw new ProtocolError(`a schema whose ${what} are no object`);
  return Object.entries(object);
}

/**
 * How the values of one type are checked, written and read.
 *
 * @typedef {object} Kind
 * @property {string} name For people.
 * @property {number} wire One of `Wire`.
 * @property {boolean} [isMessage] Merged when it comes twice; never implicit.
 * @property {boolean} [isKey] May be the key of a map.
 * @property {(reader: Reader) => any} blank What stands for a value that was not sent.
 * @property {(value: any) => any} check What is written for a value of the game's. Throws `Misfit`.
 * @property {(checked: any) => boolean} isZero
 * @property {(writer: Writer, checked: any) => void} write
 * @property {(reader: Reader, before?: any) => any} read `before`: the message that it is merged into.
 */

/** A value that does not fit its field; becomes a TypeError with the way to it. */
class Misfit extends Error {
  path = '';
}

/** @param {unknown} error @param {string} step @returns {unknown} The same, further out. */
function within(error, step) {
  if (error instanceof Misfit) error.path = step + error.path;
  return error;
}

/** One message's fields, in both directions. */
class MessageCodec {
  /** @type {string} */
  name;
  /** @type {Field[]} By number, which is their order on the wire. */
  #fields = [];
  /** @type {Set<string>} */
  #names = new Set();
  /** @type {Map<number, Read>} By tag: a field that comes with another wire type is an unknown one. */
  #reads = new Map();
  /** @type {Record<string, unknown>} What every new message begins as: one hidden class for all. */
  #blank = {};
  /** @type {[string, () => unknown][]} What every new message needs of its own. */
  #collections = [];
  #hasOneofs = false;
  #hasWarned = false;

  /** @param {string} name */
  constructor(name) {
    this.name = name;
  }

  /** @param {unknown} entries Of the document. @param {Map<string, Kind>} kinds */
  define(entries, kinds) {
    if (!Array.isArray(entries)) throw new ProtocolError(`a schema whose ${this.name} is no list of fields`);
    /** @type {Map<string, string[]>} */
    const oneofs = new Map();
    const numbers = new Set();
    for (const entry of entries) {
      const field = fieldOf(entry, kinds, oneofs, this.name);
      if (numbers.has(field.number) || this.#names.has(field.name)) {
        throw new ProtocolError(`a schema with two fields ${this.name}.${field.name} = ${field.number}`);
      }
      numbers.add(field.number);
      this.#names.add(field.name);
      this.#fields.push(field);
    }
    this.#hasOneofs = oneofs.size > 0;
    this.#fields.sort((a, b) => a.number - b.number);
    for (const { name, reads, blank, collection } of this.#fields) {
      for (const [tag, read] of reads) this.#reads.set(tag, read);
      if (collection) this.#collections.push([name, collection]);
      if (blank !== undefined || collection) this.#blank[name] = blank;
    }
  }

  /** @param {unknown} value @returns {Uint8Array} @throws {TypeError} */
  encode(value) {
    const writer = new Writer();
    try {
      this.write(writer, checkObject(value, this.name));
    } catch (error) {
      throw error instanceof Misfit ? new TypeError(`${this.name}${error.path}: ${error.message}`) : error;
    }
    return writer.finish();
  }

  /** @param {Uint8Array} bytes @returns {Record<string, any>} @throws {ProtocolError} */
  decode(bytes) {
    const reader = new Reader(bytes);
    const message = this.blank(reader);
    this.read(reader, message);
    return message;
  }

  /** @param {Reader} reader @returns {Record<string, any>} A message that was not sent. */
  blank(reader) {
    reader.charge(1 + this.#fields.length + COLLECTION_CHARGE * this.#collections.length);
    const message = { ...this.#blank };
    for (const [name, make] of this.#collections) message[name] = make();
    return message;
  }

  /** @param {Reader} reader @param {Record<string, any>} message */
  read(reader, message) {
    while (reader.hasMore()) {
      const tag = reader.tag();
      const read = this.#reads.get(tag);
      if (read) read(reader, message);
      else reader.skip(tag);
    }
  }

  /** @param {Writer} writer @param {Record<string, any>} message */
  write(writer, message) {
    /** @type {Map<string, string> | null} */
    const chosen = this.#hasOneofs ? new Map() : null;
    for (const field of this.#fields) {
      const given = message[field.name];
      if (given === undefined || given === null || given === field.inherited) continue;
      try {
        if (chosen && field.oneof !== undefined) choose(chosen, field.oneof, field.name);
        field.write(writer, given);
      } catch (error) {
        throw within(error, `.${field.name}`);
      }
    }
    if (!this.#hasWarned) this.#warn(message);
  }

  /** A misspelt name is found; a page that knows more fields than the server goes on working. @param {object} message */
  #warn(message) {
    for (const name in message) {
      if (this.#names.has(name)) continue;
      this.#hasWarned = true;
      const names = [...this.#names].join(', ') || 'none';
      console.warn(`gameserver: ${this.name} has no field ${JSON.stringify(name)}, which is not sent; its fields: ${names}`);
      return;
    }
  }
}

/** @param {Map<string, string>} chosen By oneof. @param {string} oneof @param {string} name */
function choose(chosen, oneof, name) {
  const other = chosen.get(oneof);
  if (other !== undefined) throw new Misfit(`${oneof} is a oneof, and ${other} is given too`);
  chosen.set(oneof, name);
}

/**
 * @typedef {(reader: Reader, message: any) => void} Read Reads a field's value into its message.
 * @typedef {object} Field
 * @property {number} number
 * @property {string} name
 * @property {string} [oneof]
 * @property {unknown} inherited What every object answers to this name: `constructor` is not given because there is one.
 * @property {unknown} [blank] What stands for it when it was not sent; undefined: nothing does.
 * @property {() => unknown} [collection] The same, where each message needs one of its own.
 * @property {[tag: number, read: Read][]} reads
 * @property {(writer: Writer, given: any) => void} write
 */

/**
 * @param {unknown} entry Of the document.
 * @param {Map<string, Kind>} kinds
 * @param {Map<string, string[]>} oneofs Their members, so far.
 * @param {string} owner
 * @returns {Field}
 */
function fieldOf(entry, kinds, oneofs, owner) {
  const [number, name, type, label, more] = Array.isArray(entry) ? entry : [];
  const kind = kinds.get(type);
  const isNumber = Number.isInteger(number) && number >= 1 && number <= FIELD_NUMBER_MAX;
  // `message.__proto__ = …` would set another thing than a field.
  if (!isNumber || typeof name !== 'string' || !name || name === '__proto__' || !kind) {
    throw new ProtocolError(`a schema with a field ${owner}.${shown(name)} = ${shown(number)} of type ${shown(type)}`);
  }
  const base = { number, name, inherited: /** @type {any} */ (Object.prototype)[name] };
  if (label === undefined) return { ...base, ...single(base, kind, !kind.isMessage) };
  if (label === 'optional') return { ...base, ...single(base, kind, false) };
  if (label === 'repeated' || label === 'unpacked') return { ...base, ...list(base, kind, label === 'repeated' && kind.wire !== Wire.bytes) };
  if (label === 'map' && kinds.get(more)?.isKey) return { ...base, ...map(base, kind, /** @type {Kind} */ (kinds.get(more))) };
  if (label === 'oneof' && typeof more === 'string') {
    const members = oneofs.get(more) ?? [];
    oneofs.set(more, members);
    members.push(name);
    return { ...base, oneof: more, ...single(base, kind, false, members) };
  }
  throw new ProtocolError(`a schema with a label of ${owner}.${name}: ${shown(label)} ${shown(more)}`);
}

/**
 * @typedef {{ number: number, name: string }} FieldName
 * @typedef {Pick<Field, 'blank' | 'collection' | 'reads' | 'write'>} FieldCodec
 */

/**
 * @param {FieldName} field
 * @param {Kind} kind
 * @param {boolean} isImplicit A default is not sent.
 * @param {string[]} [members] Of its oneof: the last that comes is the only one.
 * @returns {FieldCodec}
 */
function single({ number, name }, kind, isImplicit, members = []) {
  const tag = tagOf(number, kind.wire);
  return {
    blank: isImplicit ? kind.blank(FREE) : undefined,
    reads: [
      [
        tag,
        (reader, message) => {
          const before = kind.isMessage && Object.hasOwn(message, name) ? message[name] : undefined;
          for (const other of members) if (other !== name && Object.hasOwn(message, other)) delete message[other];
          message[name] = kind.read(reader, before);
        },
      ],
    ],
    write(writer, given) {
      const checked = kind.check(given);
      if (isImplicit && kind.isZero(checked)) return;
      writer.varint(tag);
      kind.write(writer, checked);
    },
  };
}

/** @param {FieldName} field @param {Kind} kind @param {boolean} isPacked @returns {FieldCodec} */
function list({ number, name }, kind, isPacked) {
  const tag = tagOf(number, kind.wire);
  const packedTag = tagOf(number, Wire.bytes);
  /** @type {[number, Read][]} */
  const reads = [
    [
      tag,
      (reader, message) => {
        reader.charge(1);
        message[name].push(kind.read(reader));
      },
    ],
  ];
  if (kind.wire !== Wire.bytes) {
    reads.push([
      packedTag,
      (reader, message) => {
        const outer = reader.enter();
        while (reader.hasMore()) {
          reader.charge(1);
          message[name].push(kind.read(reader));
        }
        reader.leave(outer);
      },
    ]);
  }
  return {
    collection: () => [],
    reads,
    write(writer, given) {
      if (!Array.isArray(given) && !(ArrayBuffer.isView(given) && !(given instanceof DataView))) throw new Misfit(`${shown(given)} is no array`);
      const items = /** @type {any[]} */ (given);
      if (items.length === 0) return;
      let start = 0;
      if (isPacked) {
        writer.varint(packedTag);
        start = writer.open();
      }
      let index = 0;
      try {
        for (; index < items.length; index++) {
          const checked = kind.check(items[index]);
          if (!isPacked) writer.varint(tag);
          kind.write(writer, checked);
        }
      } catch (error) {
        throw within(error, `[${index}]`);
      }
      if (isPacked) writer.close(start);
    },
  };
}

/** @param {FieldName} field @param {Kind} kind @param {Kind} keyKind @returns {FieldCodec} */
function map({ number, name }, kind, keyKind) {
  const tag = tagOf(number, Wire.bytes);
  const keyTag = tagOf(1, keyKind.wire);
  const valueTag = tagOf(2, kind.wire);
  return {
    // Keys are the sender's choice: with a prototype, `__proto__` would be none.
    collection: () => Object.create(null),
    reads: [
      [
        tag,
        (reader, message) => {
          reader.charge(ENTRY_CHARGE);
          const outer = reader.enter();
          let key = keyKind.blank(reader);
          let value;
          while (reader.hasMore()) {
            const inner = reader.tag();
            if (inner === keyTag) key = keyKind.read(reader);
            else if (inner === valueTag) value = kind.read(reader, value);
            else reader.skip(inner);
          }
          reader.leave(outer);
          message[name][String(key)] = value ?? kind.blank(reader);
        },
      ],
    ],
    write(writer, given) {
      for (const [key, value] of given instanceof Map ? given : Object.entries(checkObject(given, 'map'))) {
        try {
          const checkedKey = keyKind.check(typeof key === 'string' ? keyOf(key, keyKind) : key);
          const checked = kind.check(value);
          writer.varint(tag);
          const start = writer.open();
          writer.varint(keyTag);
          keyKind.write(writer, checkedKey);
          writer.varint(valueTag);
          kind.write(writer, checked);
          writer.close(start);
        } catch (error) {
          throw within(error, `[${shown(key)}]`);
        }
      }
    },
  };
}

/** The key of a map from the property that it is. @param {string} key @param {Kind} kind */
function keyOf(key, kind) {
  if (kind.name === 'str') return key;
  if (kind.name === 'bool') return key === 'true' || (key === 'false' ? false : key);
  return /^-?\d{1,20}$/.test(key) ? BigInt(key) : key;
}

/** @param {MessageCodec} codec @returns {Kind} */
function messageKind(codec) {
  return {
    name: codec.name,
    wire: Wire.bytes,
    isMessage: true,
    blank: (reader) => codec.blank(reader),
    check: (value) => checkObject(value, codec.name),
    isZero: () => false,
    write(writer, value) {
      const start = writer.open();
      writer.deeper();
      codec.write(writer, value);
      writer.higher();
      writer.close(start);
    },
    read(reader, before = codec.blank(reader)) {
      const outer = reader.enter();
      reader.deeper();
      codec.read(reader, before);
      reader.higher();
      reader.leave(outer);
      return before;
    },
  };
}

/** @param {unknown} value @param {string} name @returns {Record<string, any>} */
function checkObject(value, name) {
  if (!isObject(value) || ArrayBuffer.isView(value)) throw new Misfit(`${shown(value)} is no ${name}`);
  return value;
}

/** Open, as in proto3: numbers without a name come and go as numbers. @param {string} name @param {[string, unknown][]} numbers @returns {Kind} */
function enumKind(name, numbers) {
  const numberOf = new Map(numbers);
  const nameOf = /** @type {Map<unknown, string>} */ (new Map());
  for (const [key, number] of numbers) {
    if (!isInt32(number)) throw new ProtocolError(`a schema with an enum ${name}: ${key} = ${shown(number)}`);
    if (!nameOf.has(number)) nameOf.set(number, key);
  }
  return {
    name,
    wire: Wire.varint,
    blank: () => nameOf.get(0) ?? 0,
    check(value) {
      const number = typeof value === 'string' ? numberOf.get(value) : value;
      if (!isInt32(number)) throw new Misfit(`${shown(value)} is no ${name}: ${[...numberOf.keys()].slice(0, 20).join(', ')}`);
      return number + 0;
    },
    isZero: (number) => number === 0,
    write: (writer, number) => writer.int32(number),
    read(reader) {
      const number = reader.low();
      return nameOf.get(number) ?? number;
    },
  };
}

/** @param {unknown} value @returns {value is number} */
function isInt32(value) {
  return typeof value === 'number' && (value | 0) === value;
}

/**
 * @param {string} name
 * @param {number} wire
 * @param {readonly [number, number]} range
 * @param {(reader: Reader) => number} read
 * @param {(writer: Writer, number: number) => void} write
 * @returns {[string, Kind]}
 */
function int(name, wire, [min, max], read, write) {
  /** @param {unknown} value */
  const check = (value) => {
    const number = typeof value === 'bigint' ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isInteger(number) || number < min || number > max) {
      throw new Misfit(`${shown(value)} is no ${name}: a whole number from ${min} to ${max}`);
    }
    return number + 0; // -0 is 0
  };
  return scalar({ name, wire, isKey: true, blank: () => 0, check, isZero: (number) => number === 0, read, write });
}

/**
 * @param {string} name
 * @param {number} wire
 * @param {readonly [bigint, bigint]} range
 * @param {(reader: Reader) => bigint} read
 * @param {(writer: Writer, number: bigint) => void} write
 * @returns {[string, Kind]}
 */
function long(name, wire, [min, max], read, write) {
  /** @param {unknown} value */
  const check = (value) => {
    const number = Number.isSafeInteger(value) ? BigInt(/** @type {number} */ (value)) : value;
    if (typeof number !== 'bigint' || number < min || number > max) {
      throw new Misfit(`${shown(value)} is no ${name}: a BigInt from ${min} to ${max}`);
    }
    return number;
  };
  return scalar({ name, wire, isKey: true, blank: () => 0n, check, isZero: (number) => number === 0n, read, write });
}

/**
 * @param {string} name
 * @param {number} wire
 * @param {(number: number) => number} round
 * @param {(reader: Reader) => number} read
 * @param {(writer: Writer, number: number) => void} write
 * @returns {[string, Kind]}
 */
function float(name, wire, round, read, write) {
  /** @param {unknown} value */
  const check = (value) => {
    if (typeof value !== 'number') throw new Misfit(`${shown(value)} is no ${name}: a number`);
    if (Number.isFinite(value) && !Number.isFinite(round(value))) throw new Misfit(`${value} is beyond ${name}`);
    return value;
  };
  // -0 is sent, as protobuf wants it.
  return scalar({ name, wire, blank: () => 0, check, isZero: (number) => Object.is(number, 0), read, write });
}

/** @param {Kind} kind @returns {[string, Kind]} */
function scalar(kind) {
  return [kind.name, kind];
}

/**
 * Bytes of one message, and where in them we are. What it makes is bounded by `VALUES_MAX`, not by what the bytes say: two
 * bytes are enough for a nested message, which may have a hundred fields.
 */
class Reader {
  #bytes;
  #view;
  #at = 0;
  /** Of the message that is being read; never beyond its outer one. */
  #end;
  #depth = 1;
  #values = 0;
  /** The upper 32 bits of the last varint. */
  #high = 0;

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = bytes.length;
  }

  hasMore() {
    return this.#at < this.#end;
  }

  /** @param {number} values */
  charge(values) {
    this.#values += values;
    if (this.#values > VALUES_MAX) throw new ProtocolError(`a message of more than ${VALUES_MAX} values`);
  }

  deeper() {
    this.#depth += 1;
    if (this.#depth > DEPTH_MAX) throw new ProtocolError(`a message nested more than ${DEPTH_MAX} deep`);
  }

  higher() {
    this.#depth -= 1;
  }

  /** Goes into what its length stands in front of. @returns {number} For `leave`. */
  enter() {
    const length = this.#length();
    const outer = this.#end;
    this.#end = this.#at + length;
    return outer;
  }

  /** @param {number} outer */
  leave(outer) {
    this.#end = outer;
  }

  tag() {
    const start = this.#at;
    const tag = this.low() >>> 0;
    if (tag < 8 || this.#high !== 0 || this.#at - start > 5) throw new ProtocolError('a field without a number');
    return tag;
  }

  /** A varint's lower 32 bits, signed. */
  low() {
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.#at >= this.#end) throw new ProtocolError('a number that runs over its message');
      const byte = this.#bytes[this.#at++];
      if (shift < 28) low |= (byte & 0x7f) << shift;
      else if (shift > 28) high |= (byte & 0x7f) << (shift - 32);
      else {
        low |= byte << 28;
        high = (byte & 0x7f) >> 4;
      }
      if (byte < 0x80) {
        this.#high = high;
        return low;
      }
    }
    throw new ProtocolError('a number of more than ten bytes');
  }

  /** A varint, unsigned. */
  long() {
    const low = this.low();
    return this.#high === 0 && low >= 0 ? BigInt(low) : (BigInt(this.#high >>> 0) << 32n) | BigInt(low >>> 0);
  }

  zigzag32() {
    const low = this.low();
    return (low >>> 1) ^ -(low & 1);
  }

  zigzag64() {
    const long = this.long();
    return (long >> 1n) ^ -(long & 1n);
  }

  bool() {
    const low = this.low();
    return low !== 0 || this.#high !== 0;
  }

  fixed32() {
    return this.#view.getUint32(this.#take(4), true);
  }

  fixed64() {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  float() {
    return this.#view.getFloat32(this.#take(4), true);
  }

  double() {
    return this.#view.getFloat64(this.#take(8), true);
  }

  /** A copy: a message that is kept does not keep the frame that it came in. */
  bytes() {
    const length = this.#length();
    const at = this.#take(length);
    return length === 0 ? NOTHING : this.#bytes.slice(at, at + length);
  }

  text() {
    const length = this.#length();
    const at = this.#take(length);
    return length === 0 ? '' : decodeUtf8(this.#bytes.subarray(at, at + length), 'a text');
  }

  /** Goes past a field that the schema does not have. @param {number} tag */
  skip(tag) {
    const wire = tag & 7;
    if (wire === Wire.varint) this.low();
    else if (wire === Wire.fixed64) this.#take(8);
    else if (wire === Wire.bytes) this.#take(this.#length());
    else if (wire === Wire.fixed32) this.#take(4);
    else if (wire === Wire.group) this.#skipGroup(tag);
    else throw new ProtocolError(`a field of wire type ${wire}`);
  }

  /** @param {number} tag Of its beginning; its end has the wire type above. */
  #skipGroup(tag) {
    this.deeper();
    for (let inner = this.tag(); inner !== tag + 1; inner = this.tag()) this.skip(inner);
    this.higher();
  }

  #length() {
    const length = this.low();
    if (this.#high !== 0 || length < 0 || length > this.#end - this.#at) throw new ProtocolError('a field that runs over its message');
    return length;
  }

  /** @param {number} length @returns {number} Where they begin. */
  #take(length) {
    const at = this.#at;
    if (length > this.#end - at) throw new ProtocolError('a field that runs over its message');
    this.#at = at + length;
    return at;
  }
}

/** Bytes of a message as it is written; grows. */
class Writer {
  #bytes = new Uint8Array(64);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;
  #depth = 1;

  finish() {
    return this.#bytes.slice(0, this.#at);
  }

  /** Also what ends an object that holds itself. */
  deeper() {
    this.#depth += 1;
    if (this.#depth > DEPTH_MAX) throw new Misfit(`nested more than ${DEPTH_MAX} deep`);
  }

  higher() {
    this.#depth -= 1;
  }

  /** Begins what its length stands in front of: one byte is kept for it. @returns {number} For `close`. */
  open() {
    this.#reserve(1);
    this.#at += 1;
    return this.#at;
  }

  /** @param {number} start */
  close(start) {
    const length = this.#at - start;
    let more = 0;
    for (let rest = length >>> 7; rest; rest >>>= 7) more += 1;
    if (more) {
      this.#reserve(more);
      this.#bytes.copyWithin(start + more, start, this.#at);
    }
    this.#at = start - 1;
    this.#varint(length, 0);
    this.#at = start + more + length;
  }

  /** @param {number} low Unsigned. @param {number} [high] */
  varint(low, high = 0) {
    this.#reserve(10);
    this.#varint(low, high);
  }

  /** Negative numbers are ten bytes long. @param {number} number */
  int32(number) {
    this.varint(number >>> 0, number < 0 ? 0xff_ff_ff_ff : 0);
  }

  /** @param {bigint} number Its lowest 64 bits. */
  long(number) {
    this.varint(Number(BigInt.asUintN(32, number)), Number(BigInt.asUintN(32, number >> 32n)));
  }

  /** @param {number} number */
  zigzag32(number) {
    this.varint(((number << 1) ^ (number >> 31)) >>> 0);
  }

  /** @param {bigint} number */
  zigzag64(number) {
    this.long((number << 1n) ^ (number >> 63n));
  }

  /** @param {number} number Its lowest 32 bits. */
  fixed32(number) {
    const at = this.#take(4);
    this.#view.setUint32(at, number, true);
  }

  /** @param {bigint} number Its lowest 64 bits. */
  fixed64(number) {
    const at = this.#take(8);
    this.#view.setBigUint64(at, number, true);
  }

  /** @param {number} number */
  float(number) {
    const at = this.#take(4);
    this.#view.setFloat32(at, number, true);
  }

  /** @param {number} number */
  double(number) {
    const at = this.#take(8);
    this.#view.setFloat64(at, number, true);
  }

  /** @param {Uint8Array} bytes */
  bytes(bytes) {
    this.varint(bytes.length);
    const at = this.#take(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** @param {string} text */
  text(text) {
    const start = this.open();
    this.#reserve(text.length * 3);
    this.#at += utf8.encodeInto(text, this.#bytes.subarray(this.#at)).written;
    this.close(start);
  }

  /** Within what is reserved. @param {number} low @param {number} high */
  #varint(low, high) {
    while (high !== 0 || low > 0x7f) {
      this.#bytes[this.#at++] = (low & 0x7f) | 0x80;
      low = ((low >>> 7) | (high << 25)) >>> 0;
      high >>>= 7;
    }
    this.#bytes[this.#at++] = low;
  }

  /** May replace `#bytes` and `#view`. @param {number} length @returns {number} Where they begin. */
  #take(length) {
    this.#reserve(length);
    const at = this.#at;
    this.#at += length;
    return at;
  }

  /** @param {number} length */
  #reserve(length) {
    const needed = this.#at + length;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** @param {number} number @param {number} wire */
function tagOf(number, wire) {
  return number * 8 + wire;
}

/** For messages to people, and short: it may be the game's own data, or a stranger's. @param {unknown} value @returns {string} */
function shown(value) {
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return 'an object';
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

const Wire = Object.freeze({ varint: 0, fixed64: 1, bytes: 2, group: 3, fixed32: 5 });
/** 29 bits. */
const FIELD_NUMBER_MAX = 0x1f_ff_ff_ff;
/** Messages within one another, the outermost counted: as the server has it. */
const DEPTH_MAX = 32;
/** What one body may become: items, and each message with its fields. Beyond that, some 200 MB, it is no message of a game. */
const VALUES_MAX = 1 << 22;
/** More than a field: an empty array or object. */
const COLLECTION_CHARGE = 3;
/** A key, its text, a value, and their place in a hash table. */
const ENTRY_CHARGE = 4;
/** For what is made once with the schema. */
const FREE = new Reader(NOTHING);
const INT32 = /** @type {const} */ ([-(2 ** 31), 2 ** 31 - 1]);
const UINT32 = /** @type {const} */ ([0, 2 ** 32 - 1]);
const INT64 = /** @type {const} */ ([-(2n ** 63n), 2n ** 63n - 1n]);
const UINT64 = /** @type {const} */ ([0n, 2n ** 64n - 1n]);

/** @type {Map<string, Kind>} By their names in the document. */
const SCALARS = new Map([
  float('f64', Wire.fixed64, Number, (reader) => reader.double(), (writer, number) => writer.double(number)),
  float('f32', Wire.fixed32, Math.fround, (reader) => reader.float(), (writer, number) => writer.float(number)),
  int('i32', Wire.varint, INT32, (reader) => reader.low(), (writer, number) => writer.int32(number)),
  int('u32', Wire.varint, UINT32, (reader) => reader.low() >>> 0, (writer, number) => writer.varint(number)),
  int('s32', Wire.varint, INT32, (reader) => reader.zigzag32(), (writer, number) => writer.zigzag32(number)),
  int('fixed32', Wire.fixed32, UINT32, (reader) => reader.fixed32(), (writer, number) => writer.fixed32(number)),
  int('sfixed32', Wire.fixed32, INT32, (reader) => reader.fixed32() | 0, (writer, number) => writer.fixed32(number)),
  long('i64', Wire.varint, INT64, (reader) => BigInt.asIntN(64, reader.long()), (writer, number) => writer.long(number)),
  long('u64', Wire.varint, UINT64, (reader) => reader.long(), (writer, number) => writer.long(number)),
  long('s64', Wire.varint, INT64, (reader) => reader.zigzag64(), (writer, number) => writer.zigzag64(number)),
  long('fixed64', Wire.fixed64, UINT64, (reader) => reader.fixed64(), (writer, number) => writer.fixed64(number)),
  long('sfixed64', Wire.fixed64, INT64, (reader) => BigInt.asIntN(64, reader.fixed64()), (writer, number) => writer.fixed64(number)),
  scalar({
    name: 'bool',
    wire: Wire.varint,
    isKey: true,
    blank: () => false,
    check(value) {
      if (typeof value !== 'boolean') throw new Misfit(`${shown(value)} is no bool`);
      return value;
    },
    isZero: (value) => !value,
    write: (writer, value) => writer.varint(value ? 1 : 0),
    read: (reader) => reader.bool(),
  }),
  scalar({
    name: 'str',
    wire: Wire.bytes,
    isKey: true,
    blank: () => '',
    check(value) {
      if (typeof value !== 'string') throw new Misfit(`${shown(value)} is no str`);
      return value;
    },
    isZero: (value) => value === '',
    write: (writer, value) => writer.text(value),
    read: (reader) => reader.text(),
  }),
  scalar({
    name: 'bytes',
    wire: Wire.bytes,
    blank: () => NOTHING,
    check(value) {
      if (value instanceof ArrayBuffer) return new Uint8Array(value);
      if (!(value instanceof Uint8Array)) throw new Misfit(`${shown(value)} is no bytes: a Uint8Array`);
      return value;
    },
    isZero: (value) => value.length === 0,
    write: (writer, value) => writer.bytes(value),
    read: (reader) => reader.bytes(),
  }),
]);

/** What the body of an error is in protobuf. */
const ERROR = new Schema({ digest: '-', messages: { Error: [[1, 'code', 'str'], [2, 'msg', 'str'], [3, 'metadata', 'str', 'map', 'str']] } });
