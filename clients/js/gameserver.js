// gameserver: the browser client. One ES module; no dependencies, no build step; types by JSDoc.
//
//     import { connect } from '/gameserver.js';
//
//     const client = await connect();                       // same host and port as the page
//     client.on('said', ({ name, text }) => show(name, text));
//     const { sum } = await client.request('add', { a: 1, b: 2 });
//     client.notify('move', { x: 1, y: 0 });
//
// Read top-down: connect, Client (what a game uses), Link (one WebSocket), the codecs of the wire (docs/wire.md).

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
 * @property {number} [bodyBytesMax] Larger packets and inflated bodies from the server close the connection. Default 16 MiB - 1.
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
 */

/** ms; what the server's deadlines are made for, see WIRE in docs/wire.md. */
const CONNECT_TIMEOUT = 8_000;
const REQUEST_TIMEOUT = 10_000;
const RETRY = { delay: 400, delayMax: 10_000, attempts: Infinity };
/** The server sends a heartbeat each interval, whatever else it sends: two and a half without a byte are no accident. */
const DEAD_AFTER_HEARTBEATS = 2.5;
/** ms to read what came while the page slept (a suspended laptop) before silence is judged. */
const WAKE_GRACE = 3_000;
/** Of a packet's body: its length is a 24-bit number. */
const BODY_BYTES_MAX = 0xff_ff_ff;
/** A kick with this reason is the server restarting; any other means that we are not wanted. */
const KICK_SHUTDOWN = 'shutdown';
/** WebSocket close codes that a client may use for its own reasons. */
const CLOSE_NORMAL = 1000;
const CLOSE_PROTOCOL = 4400;
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
 * Codes of the client: `unreachable`, `timeout`, `disconnected` (the answer may have been lost with the connection), `closed`
 * (by `close()`), `kicked`, `refused` (at login, without a code of the game), `protocol` (the server broke the rules of the
 * wire), `bad-body` (an answer that is no JSON). Codes of the server begin with `GS-`, or are the game's own.
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

  /** What the server told in its last handshake; null before. @returns {ServerHandshake | null} */
  get handshake() {
    return this.#handshake;
  }

  /**
   * Asks, and resolves with the answer.
   *
   * @param {string} route
   * @param {unknown} [body] JSON, `{}` by default; a Uint8Array goes as it is.
   * @param {{ timeout?: number, raw?: boolean }} [options] `raw`: the answer as Uint8Array; default: if the body was one.
   * @returns {Promise<any>}
   * @throws {GameServerError} (as a rejection) the server's error answer, or `timeout`, `disconnected`, `closed`, `kicked`.
   */
  async request(route, body, options = {}) {
    const link = this.#link;
    if (this.#state !== 'open' || !link) throw new GameServerError(this.#state === 'closed' ? 'closed' : 'disconnected', 'not connected');
    const { timeout = this.#options.requestTimeout ?? REQUEST_TIMEOUT, raw = body instanceof Uint8Array } = options;
    const id = this.#nextId();
    link.send(PacketType.data, encodeMessage({ type: MessageType.request, id, route: link.routeOf(route), body: encodeBody(body) }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new GameServerError('timeout', `no answer to ${route} within ${timeout} ms`));
      }, timeout);
      this.#pending.set(id, { resolve, reject, timer, raw });
    });
  }

  /**
   * Tells, without an answer.
   *
   * @param {string} route
   * @param {unknown} [body] As in `request`.
   * @returns {boolean} Whether it was sent: false while disconnected.
   */
  notify(route, body) {
    const link = this.#link;
    if (this.#state !== 'open' || !link) return false;
    return link.send(PacketType.data, encodeMessage({ type: MessageType.notify, id: 0, route: link.routeOf(route), body: encodeBody(body) }));
  }

  /**
   * Calls `listener` for each push to `route`. Routes outlive reconnects.
   *
   * @param {string} route
   * @param {(body: any, route: string) => void} listener
   * @param {{ raw?: boolean }} [options] `raw`: the body as Uint8Array; else as JSON, and what is no JSON is reported and dropped.
   * @returns {Unsubscribe}
   */
  on(route, listener, options = {}) {
    const listeners = this.#listeners.get(route) ?? [];
    this.#listeners.set(route, [...listeners, { call: listener, raw: options.raw ?? false }]);
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

  /** Calls `listener` when the connection is there again: a new session. @param {() => void} listener @returns {Unsubscribe} */
  onReconnect(listener) {
    return this.#reconnects.add(listener);
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

  /** @internal The first connection; its failure is the caller's. */
  async _start() {
    try {
      await this.#open();
    } catch (error) {
      this.#finish(asError(error));
      throw error;
    }
    this.#opened();
  }

  async #open() {
    const { user, WebSocket: given, timeout = CONNECT_TIMEOUT, bodyBytesMax = BODY_BYTES_MAX } = this.#options;
    this.#state = 'connecting';
    const Socket = given ?? globalThis.WebSocket;
    if (!Socket) throw new GameServerError('unreachable', 'no WebSocket here; give a class: connect(url, {WebSocket})');
    const began = performance.now();
    const hello = encodeHandshake(typeof user === 'function' ? await within(timeout, 'user()', user()) : (user ?? {}));
    if (this.#isClosed()) throw new GameServerError('closed', 'closed by this client');
    const left = Math.max(0, Math.ceil(timeout - (performance.now() - began)));
    const link = new Link(Socket, this.#url, hello, left, Math.min(bodyBytesMax, BODY_BYTES_MAX), {
      message: (message) => this.#handleMessage(message),
      kick: (reason) => this.#handleKick(reason),
      lost: (error) => this.#handleLost(link, error),
    });
    this.#link = link;
    const handshake = await link.ready;
    // What came in one frame with the handshake may have ended it already.
    if (link.error) throw link.error;
    this.#handshake = handshake;
  }

  async #reopen() {
    try {
      await this.#open();
    } catch (error) {
      this.#retryLater(asError(error));
      return;
    }
    this.#opened();
    this.#reconnects.emit();
  }

  #opened() {
    if (this.#isClosed()) return;
    this.#state = 'open';
    this.#attempt = 0;
  }

  /** @param {Link} link @param {GameServerError} error */
  #handleLost(link, error) {
    if (link !== this.#link || this.#state !== 'open') return;
    this.#link = null;
    this.#rejectPending(new GameServerError('disconnected', error.message));
    this.#retryLater(error);
  }

  /** @param {GameServerError} error Why the last connection or attempt failed. */
  #retryLater(error) {
    if (this.#isClosed()) return;
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
    this.#link = null;
    this.#rejectPending(error);
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

  /** @param {Message} message */
  #handleMessage(message) {
    if (message.type === MessageType.response) this.#handleResponse(message);
    else if (message.type === MessageType.push) this.#handlePush(message);
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
      pending.resolve(pending.raw ? body : decodeBody(body));
    } catch {
      pending.reject(new GameServerError('bad-body', 'the answer is no JSON; ask with {raw: true} for its bytes'));
    }
  }

  /** @param {Message} message */
  #handlePush({ route, body }) {
    const name = String(route);
    /** @type {{ value: unknown } | null} */
    let json = null;
    for (const { call, raw } of this.#listeners.get(name) ?? []) {
      guarded(() => call(raw ? body : (json ??= { value: decodeBody(body) }).value, name));
    }
  }

  /** @param {string} reason */
  #handleKick(reason) {
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

/**
 * @typedef {{ resolve: (body: any) => void, reject: (error: Error) => void, timer: ReturnType<typeof setTimeout>, raw: boolean }} Pending
 * @typedef {{ call: (body: any, route: string) => void, raw: boolean }} Listener
 * @typedef {{ message: (message: Message) => void, kick: (reason: string) => void, lost: (error: GameServerError) => void }} LinkEvents
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
   * @param {number} timeout ms until the server's.
   * @param {number} bodyBytesMax
   * @param {LinkEvents} events
   */
  constructor(Socket, url, hello, timeout, bodyBytesMax, events) {
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
    this.#socket.send(packet);
    return true;
  }

  /** The code that the server gave to a route, or the route. @param {string} route @returns {string | number} */
  routeOf(route) {
    return this.#codes.get(route) ?? route;
  }

  /** @param {GameServerError} error Why. */
  close(error) {
    this.#end(error, CLOSE_NORMAL);
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
    else if (type === PacketType.heartbeat) this.send(PacketType.heartbeat, NOTHING);
    else throw new ProtocolError(`packet type ${type} after its handshake`);
  }

  /** @param {Uint8Array} body */
  #handleHandshake(body) {
    const handshake = decodeHandshake(body);
    if (handshake.code !== 200) {
      this.#end(refusal(handshake), CLOSE_NORMAL);
      return;
    }
    for (const [name, code] of Object.entries(handshake.sys.dict)) {
      this.#codes.set(name, code);
      this.#names.set(code, name);
    }
    this.#state = 'open';
    clearTimeout(this.#timer);
    this.send(PacketType.handshakeAck, NOTHING);
    this.#heartbeat = handshake.sys.heartbeat * 1000;
    if (this.#heartbeat > 0) this.#watch(this.#heartbeat);
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

/** Runs the game's code: its exception is shown, and harms neither the connection nor the other listeners. @param {() => void} call */
function guarded(call) {
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
async function within(timeout, what, promise) {
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
  return final(new GameServerError(why, msg, { status: String(code) }));
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
  if (body instanceof Uint8Array) return body;
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  const json = JSON.stringify(body === undefined ? {} : body);
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
    const { code, msg, metadata } = body[0] === 0x7b ? errorFromJson(body) : errorFromProtobuf(body);
    return new GameServerError(code || 'unknown', msg, metadata);
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

/** @param {Uint8Array} body @returns {ErrorBody} */
function errorFromProtobuf(body) {
  const fields = protobufStrings(body);
  const text = (/** @type {Uint8Array | undefined} */ bytes) => (bytes ? fromUtf8.decode(bytes) : '');
  const metadata = fields.filter(([number]) => number === 3).map(([, entry]) => new Map(protobufStrings(entry)));
  const last = new Map(fields);
  return {
    code: text(last.get(1)),
    msg: text(last.get(2)),
    metadata: Object.fromEntries(metadata.map((entry) => [text(entry.get(1)), text(entry.get(2))])),
  };
}

/** @param {Uint8Array} bytes Length-delimited fields only, with numbers below 16. @returns {[number, Uint8Array][]} */
function protobufStrings(bytes) {
  /** @type {[number, Uint8Array][]} */
  const fields = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at++];
    if ((tag & 0x87) !== 2) throw new ProtocolError(`field tag ${tag}`);
    let length = 0;
    for (let shift = 0, byte = 0x80; byte & 0x80; shift += 7) {
      byte = bytes[at++] ?? 0;
      length += (byte & 0x7f) * 2 ** shift;
      if (at > bytes.length || shift > 28) throw new ProtocolError('a length that runs over');
    }
    if (at + length > bytes.length) throw new ProtocolError('a field that runs over');
    fields.push([tag >> 3, bytes.subarray(at, (at += length))]);
  }
  return fields;
}

/** @param {object} user @returns {Uint8Array} */
export function encodeHandshake(user) {
  return utf8.encode(JSON.stringify({ sys: { type: 'gameserver-js', version: VERSION, gs: { serializer: 'json' } }, user }));
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
