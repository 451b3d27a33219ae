// A clock that stands still and a WebSocket without a network: tests of the client need neither ports nor sleeps.

/** Replaces the timers and performance.now of this process; `advance` moves time. */
export class FakeClock {
  constructor() {
    this.now = 1000;
    this.timers = new Map();
    this.lastKey = 0;
    this.real = { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout, now: performance.now };
  }

  install() {
    globalThis.setTimeout = (call, wait = 0) => {
      this.timers.set(++this.lastKey, { due: this.now + wait, call });
      return this.lastKey;
    };
    globalThis.clearTimeout = (key) => void this.timers.delete(key);
    performance.now = () => this.now;
    return this;
  }

  uninstall() {
    Object.assign(globalThis, { setTimeout: this.real.setTimeout, clearTimeout: this.real.clearTimeout });
    performance.now = this.real.now;
  }

  /** Runs what falls due on the way, each at its own time. */
  async advance(ms) {
    const end = this.now + ms;
    await settle();
    for (;;) {
      const next = [...this.timers].filter(([, timer]) => timer.due <= end).sort((a, b) => a[1].due - b[1].due)[0];
      if (!next) break;
      this.timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].due);
      next[1].call();
      await settle();
    }
    this.now = end;
  }

  /** The machine was suspended: time passes, and no timer fires on the way. */
  sleep(ms) {
    this.now += ms;
  }
}

/** Lets everything that waits on promises go on. */
export function settle() {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A WebSocket class whose sockets the test answers by hand; `Socket.made` has them all. */
export function fakeWebSocket() {
  return class Socket {
    static made = [];
    readyState = 0;
    sent = [];
    closedWith = null;

    constructor(url) {
      if (url.includes('forbidden')) throw new SyntaxError('forbidden by the page');
      this.url = url;
      Socket.made.push(this);
    }

    send(bytes) {
      this.sent.push(hex(bytes));
    }

    close(code) {
      this.readyState = 3;
      this.closedWith = code;
    }

    /** The server's side. */
    accept() {
      this.readyState = 1;
      this.onopen?.({});
    }

    receive(...pieces) {
      for (const piece of pieces) this.onmessage?.({ data: typeof piece === 'string' ? unhex(piece).buffer : piece });
    }

    cut(code = 1006, reason = '') {
      this.readyState = 3;
      this.onerror?.({});
      this.onclose?.({ code, reason });
    }

    shakeHands(answer = { code: 200, sys: { heartbeat: 10, dict: {}, serializer: 'json' }, user: {} }) {
      this.accept();
      this.receive(packet(1, JSON.stringify(answer)));
    }
  };
}

/** Spaced hex of a packet, written here once more so that the module is not tested against itself. */
export function packet(type, body) {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(body);
  return hex(Buffer.concat([Buffer.from([type, bytes.length >> 16, (bytes.length >> 8) & 255, bytes.length & 255]), bytes]));
}

export function hex(bytes) {
  return Buffer.from(bytes).toString('hex').replace(/..(?=.)/g, '$& ');
}

export function unhex(text) {
  return Uint8Array.from(Buffer.from(text.replace(/ /g, ''), 'hex'));
}
