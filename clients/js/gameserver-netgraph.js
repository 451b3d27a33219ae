// gameserver: how the connection does, drawn over the page.
//
//     import { netgraph } from '/gameserver-netgraph.js';
//     netgraph(client);                                      // F3 shows and hides it
//
// Round trip and jitter, what comes and goes in kB/s, and by table of the world, snapshots that came too late to be drawn, and how much is
// there to be drawn.

/**
 * @typedef {import('./gameserver.js').Client} Client
 * @typedef {{ key?: string, parent?: HTMLElement, shown?: boolean }} NetgraphOptions
 * @typedef {{ time: number, bytesIn: number, bytesOut: number, tables: ReadonlyMap<string, number>, late: number }} Reading
 * @typedef {{ rtt: number | null, jitter: number, delay: number, buffer: number, late: number, kbIn: number, kbOut: number, tables: [string, number][] }} Sample
 */

/** ms between two readings. */
const INTERVAL = 250;
/** ms between two pings. */
const PING_INTERVAL = 1000;
/** Readings that are drawn: a minute. */
const SAMPLES = 240;
/** Rates are of the last so many readings. */
const WINDOW = 4;
const WIDTH = 270;
const GRAPH_HEIGHT = 34;
const LINE_HEIGHT = 14;
const TABLES_MAX = 6;
const COLORS = { text: '#dfe7f3', rtt: '#6fd3ff', bytesIn: '#8ce99a', bytesOut: '#ffc078', buffer: '#b197fc', late: '#ff6b6b' };

/**
 * Shows and hides the overlay by a key. Costs nothing while it is hidden.
 *
 * @param {Client} client
 * @param {NetgraphOptions} [options] `key`: of KeyboardEvent; default `F3`. `parent`: default the page's body. `shown`: at once.
 * @returns {{ toggle: () => void, remove: () => void, readonly shown: boolean, readonly sample: Sample | null }}
 */
export function netgraph(client, { key = 'F3', parent = document.body, shown = false } = {}) {
  /** @type {Overlay | null} */
  let overlay = null;
  const toggle = () => {
    if (overlay) overlay.remove();
    overlay = overlay ? null : new Overlay(client, parent);
  };
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== key) return;
    event.preventDefault(); // a browser searches by F3
    if (!event.repeat) toggle();
  };
  addEventListener('keydown', pressed);
  if (shown) toggle();
  return {
    toggle,
    remove() {
      removeEventListener('keydown', pressed);
      if (overlay) toggle();
    },
    get shown() {
      return overlay !== null;
    },
    get sample() {
      return overlay?.meter.samples.at(-1) ?? null;
    },
  };
}

/** Readings of a client's counters become rates. Time is an argument, in ms. */
export class Meter {
  /** The newest last. @type {Sample[]} */
  samples = [];
  /** @type {number | null} */
  rtt = null;
  /** @type {Reading[]} */
  #readings = [];

  /** @param {Client} client @param {number} time */
  read(client, time) {
    const { bytesIn, bytesOut } = client.traffic;
    const timing = client.world?.timing ?? { delay: 0, jitter: 0, buffer: 0, late: 0 };
    const tables = new Map(client.world?.bytes ?? []);
    this.#readings.push({ time, bytesIn, bytesOut, tables, late: timing.late });
    if (this.#readings.length > WINDOW + 1) this.#readings.shift();
    const [first, last] = [this.#readings[0], this.#readings[this.#readings.length - 1]];
    // Bytes in a millisecond are as many kilobytes in a second.
    const rate = (/** @type {number} */ now, /** @type {number} */ before) => (now - before) / Math.max(1, last.time - first.time);
    this.samples.push({
      rtt: this.rtt,
      ...timing,
      late: last.late - first.late,
      kbIn: rate(last.bytesIn, first.bytesIn),
      kbOut: rate(last.bytesOut, first.bytesOut),
      tables: [...last.tables].map(([name, bytes]) => /** @type {[string, number]} */ ([name || 'own, other', rate(bytes, first.tables.get(name) ?? 0)])).sort(([, a], [, b]) => b - a),
    });
    if (this.samples.length > SAMPLES) this.samples.shift();
  }
}

class Overlay {
  meter = new Meter();
  #client;
  #canvas = document.createElement('canvas');
  #isPinging = false;
  #timers;

  /** @param {Client} client @param {HTMLElement} parent */
  constructor(client, parent) {
    this.#client = client;
    const style = 'position:fixed;left:10px;bottom:10px;z-index:2147483647;pointer-events:none;border-radius:8px;background:rgba(12,16,24,.78)';
    this.#canvas.style.cssText = style;
    this.#canvas.dataset.gameserver = 'netgraph';
    parent.append(this.#canvas);
    this.#timers = [setInterval(() => this.#read(), INTERVAL), setInterval(() => void this.#ping(), PING_INTERVAL)];
    void this.#ping();
    this.#read();
  }

  remove() {
    this.#timers.forEach(clearInterval);
    this.#canvas.remove();
  }

  /** One at a time. */
  async #ping() {
    if (this.#isPinging || this.#client.state !== 'open') return;
    this.#isPinging = true;
    const began = performance.now();
    try {
      await this.#client.request('$ping', new Uint8Array(0));
      this.meter.rtt = performance.now() - began;
    } catch {
      this.meter.rtt = null; // the connection is lost
    } finally {
      this.#isPinging = false;
    }
  }

  #read() {
    this.meter.read(this.#client, performance.now());
    this.#draw();
  }

  #draw() {
    const { samples } = this.meter;
    const now = samples[samples.length - 1];
    const tables = now.tables.slice(0, TABLES_MAX);
    const height = 3 * (LINE_HEIGHT + GRAPH_HEIGHT + 4) + (tables.length + 1) * LINE_HEIGHT + 14;
    const scale = devicePixelRatio || 1;
    const canvas = this.#canvas;
    [canvas.width, canvas.height] = [WIDTH * scale, height * scale];
    [canvas.style.width, canvas.style.height] = [`${WIDTH}px`, `${height}px`];
    const paint = canvas.getContext('2d');
    if (!paint) return;
    paint.scale(scale, scale);
    paint.font = '11px ui-monospace, monospace';
    let y = 8;
    const line = (/** @type {string} */ text, color = COLORS.text) => {
      paint.fillStyle = color;
      paint.fillText(text, 10, y + 9);
      y += LINE_HEIGHT;
    };
    const graph = (/** @type {((sample: Sample) => number | null)[]} */ values, /** @type {string[]} */ colors, least = 1) => {
      const most = Math.max(least, ...samples.flatMap((sample) => values.map((value) => value(sample) ?? 0)));
      values.forEach((value, i) => this.#curve(paint, y, most, value, colors[i]));
      y += GRAPH_HEIGHT + 4;
    };
    const ms = (/** @type {number | null} */ value) => (value === null ? '–' : value < 10 ? value.toFixed(1) : value.toFixed(0));
    line(`rtt ${ms(now.rtt)} ms   jitter ${ms(now.jitter)} ms   ${this.#client.state}`, COLORS.rtt);
    graph([({ rtt }) => rtt, ({ jitter }) => jitter], [COLORS.rtt, COLORS.late], 20);
    line(`in ${now.kbIn.toFixed(1)} kB/s   out ${now.kbOut.toFixed(1)} kB/s`, COLORS.bytesIn);
    graph([({ kbIn }) => kbIn, ({ kbOut }) => kbOut], [COLORS.bytesIn, COLORS.bytesOut]);
    line(`delay ${ms(now.delay)} ms   buffer ${ms(now.buffer)} ms   late ${now.late}`, COLORS.buffer);
    graph([({ buffer }) => buffer, ({ late }) => (late ? now.buffer : 0)], [COLORS.buffer, COLORS.late], 50);
    for (const [name, rate] of tables) line(`${name.padEnd(14).slice(0, 14)} ${rate.toFixed(2).padStart(8)} kB/s`);
    line(`tick ${this.#client.world?.tick ?? '–'}   ${this.#client.world?.tickRate ?? '–'} Hz`);
  }

  /** @param {CanvasRenderingContext2D} paint @param {number} y @param {number} most @param {(sample: Sample) => number | null} value @param {string} color */
  #curve(paint, y, most, value, color) {
    const { samples } = this.meter;
    paint.strokeStyle = color;
    paint.lineWidth = 1.25;
    paint.beginPath();
    samples.forEach((sample, i) => {
      const x = 10 + ((WIDTH - 20) * (i + SAMPLES - samples.length)) / (SAMPLES - 1);
      paint.lineTo(x, y + GRAPH_HEIGHT * (1 - Math.min(Math.max(value(sample) ?? 0, 0) / most, 1)));
    });
    paint.stroke();
  }
}
