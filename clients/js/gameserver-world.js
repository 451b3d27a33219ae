// gameserver: the replicated world in the browser. `connect(url, { world: true })` loads it, and gives `client.world`.
//
//     const client = await connect('/', { world: true });
//     const { world } = client;
//     world.onAdd('Food', (food) => sparkle(food.x, food.y));
//     function frame() {
//       const drawn = world.sample();                        // between two snapshots, a little behind the server
//       for (const player of drawn.Player) circle(player.x, player.y, player.size);
//       requestAnimationFrame(frame);
//     }
//
// Read top-down: World (what a game uses), Timeline (the server's clock, and how far behind it one draws), Table and Row (what is known of an
// entity). gameserver-columns.js reads the bytes.

import { Reader, checkedColumn, isName, isObject, isPositive } from './gameserver-columns.js';
import { ProtocolError, guarded } from './gameserver.js';

/**
 * @typedef {import('./gameserver-columns.js').ColumnShape} ColumnShape
 * @typedef {import('./gameserver-columns.js').Column} Column
 * @typedef {{ name: string, position?: string[], columns: ColumnShape[] }} TableShape
 * @typedef {{ cell: number, tick_rate: number, tables: TableShape[] }} WorldShape
 * @typedef {any} Entity `{ readonly id: bigint, [column]: ... }`: `id` is `Entity.id` of the server. A column that this client is not told is null.
 * @typedef {() => void} Unsubscribe
 */

/** More entities than any server shows to one client: a bound on what bytes may become. */
const ENTITIES_MAX = 1 << 18;
/** ms; nothing is drawn further behind the server: what is later than that, no buffer helps against. */
const DELAY_MAX = 500;
/** ms beyond what jitter asks for: timers and frames are not exact either. */
const DELAY_MARGIN = 4;
/** Snapshots whose lateness is looked at. */
const LATENESS_SAMPLES = 128;
/** Of them, so many come in time. */
const IN_TIME = 0.97;
/** The least delay of a path is that of the last so many seconds: clocks drift, and routes change. */
const OFFSET_SECONDS = 10;
/** The drawn time goes at most so much faster or slower than time while it corrects itself. */
const SLEW = 0.1;
/** ms; further off, it jumps. */
const SLEW_MAX = 500;
/** Of one entity, if nobody draws them. */
const FRAMES_MAX = 64;
/** An entity that was told nothing of for more than so many ticks stood still until the last one. */
const REST_TICKS = 3;

/** What this client sees of the server's world. */
export class World {
  /** By table name, then by id: what is in view, as of the newest snapshot. @type {any} */
  entities = Object.create(null);
  /** Of the newest snapshot; 0: none yet. */
  tick = 0;
  /** Ticks per second. */
  tickRate = 30;
  /** A grid cell's edge. */
  cell = 0;
  /** @type {Table[]} */
  #tables = [];
  #shape = '';
  #timeline = new Timeline(1000 / 30);
  /** @type {Map<number, Block>} */
  #blocks = new Map();
  /** @type {Map<number, Own>} By `keyOf`, in the order in which the client got them. */
  #own = new Map();
  /** What was owned before this snapshot said anew what is. @type {Map<number, Own>} */
  #former = new Map();
  /** Rows that a snapshot said something of, with what was known of them before. @type {Map<number, Row | null>} */
  #touched = new Map();
  /** Out of view, but not yet at the time that is drawn. @type {Row[]} */
  #leaving = [];
  #count = 0;
  /** @type {{ add: Map<string, Set<Listener>>, change: Map<string, Set<Listener>>, remove: Map<string, Set<Listener>> }} */
  #listeners = { add: new Map(), change: new Map(), remove: new Map() };
  /** Bytes of snapshots, by table; '' has what belongs to none. @type {Map<string, number>} */
  #bytes = new Map();

  /**
   * The newest entity of this class that this session owns, in view or not; null: none. What only its owner is told is in it.
   *
   * @param {string} table
   * @returns {Entity | null}
   */
  mine(table) {
    let found = null;
    for (const own of this.#own.values()) if (own.table.name === table) found = own.entity;
    return found;
  }

  /**
   * Calls `listener` for each entity of a class that comes into view, once the whole snapshot is applied; at once for those that are.
   *
   * @param {string} table
   * @param {(entity: Entity) => void} listener
   * @returns {Unsubscribe}
   */
  onAdd(table, listener) {
    for (const entity of this.entities[table]?.values() ?? []) guarded(() => listener(entity));
    return this.#listen('add', table, listener);
  }

  /**
   * Calls `listener` for each entity of a class that a snapshot told something new of.
   *
   * @param {string} table
   * @param {(entity: Entity) => void} listener
   * @returns {Unsubscribe}
   */
  onChange(table, listener) {
    return this.#listen('change', table, listener);
  }

  /**
   * Calls `listener` for each entity of a class that goes out of view, or is no more. `sample` has it until the time that is drawn gets there.
   *
   * @param {string} table
   * @param {(entity: Entity) => void} listener
   * @returns {Unsubscribe}
   */
  onRemove(table, listener) {
    return this.#listen('remove', table, listener);
  }

  /**
   * What is to be drawn now, by table: an object for each entity, with its `id` and columns; those that the server declares with `interpolate` lie between
   * two snapshots. How far behind the server that is, follows from the jitter of the connection. The arrays and their objects are used again by the next call.
   *
   * @param {number} [now] ms, of the clock of `performance.now()`.
   * @returns {any} Arrays, by table.
   */
  sample(now = performance.now()) {
    const tick = this.#timeline.draw(now);
    /** @type {Record<string, Entity[]>} */
    const drawn = Object.create(null);
    for (const table of this.#tables) {
      const { sampled } = table;
      sampled.length = 0;
      for (const row of table.rows.values()) if (row.since <= tick) sampled.push(row.drawAt(tick));
      drawn[table.name] = sampled;
    }
    this.#leaving = this.#leaving.filter((row) => row.until > tick);
    for (const row of this.#leaving) if (row.since <= tick) row.table.sampled.push(row.drawAt(tick));
    return drawn;
  }

  /**
   * The tick that the server is at, as far as one can tell from here: when it happens there, its snapshot is on its way. With a fraction.
   *
   * @param {number} [now] ms
   */
  serverTick(now = performance.now()) {
    return this.#timeline.serverTick(now);
  }

  /** How the connection does, in ms: `delay` of what is drawn behind the server, `jitter` of snapshots, `buffer` of what is there to be drawn; `late`: so many snapshots came when they should have been drawn. */
  get timing() {
    return this.#timeline.timing();
  }

  /** Bytes of all snapshots so far, by table. @returns {ReadonlyMap<string, number>} */
  get bytes() {
    return this.#bytes;
  }

  /**
   * @internal A connection is there.
   *
   * @param {unknown} shape `world` of the server's schema.
   * @param {boolean} goesOn With the session that was.
   * @throws {ProtocolError} It is no such shape.
   */
  _begin(shape, goesOn) {
    const text = JSON.stringify(shape ?? null);
    if (!goesOn || text !== this.#shape) {
      const { tables, tickRate, cell } = checkedShape(shape);
      this.#forgetAll();
      this.#settle();
      this.#tables = tables;
      this.#shape = text;
      this.#leaving = [];
      this.entities = Object.create(null);
      for (const table of tables) this.entities[table.name] = table.entities;
      this.tickRate = tickRate;
      this.cell = cell;
      this.#timeline = new Timeline(1000 / tickRate);
    }
    this.tick = 0;
  }

  /**
   * @internal A snapshot has come.
   *
   * @param {Uint8Array} bytes
   * @param {number} now ms
   * @returns {boolean} False: it is not newer than the last.
   * @throws {ProtocolError} It is none, or none that follows the last: of no use any more until a snapshot that begins anew.
   */
  _apply(bytes, now) {
    const reader = new Reader(bytes);
    const head = reader.small(0x1_ff_ff_ff_ff);
    const tick = Math.floor(head / 2);
    if (this.tick !== 0 && ((tick - this.tick) | 0) <= 0) return false;
    if (head % 2) this.#forgetAll();
    while (!reader.isEmpty) {
      const start = reader.at;
      const table = this.#record(reader, tick);
      this.#bytes.set(table, (this.#bytes.get(table) ?? 0) + reader.at - start);
    }
    this.tick = tick;
    this.#timeline.arrived(tick, now);
    this.#settle();
    return true;
  }

  /** @param {Reader} reader @param {number} tick @returns {string} The table that it was about. */
  #record(reader, tick) {
    const head = reader.small(0x3_ff_ff_ff_ff);
    const number = Math.floor(head / 4);
    const kind = head % 4;
    if (kind === Kind.changes || kind === Kind.moves) return this.#takeChanges(reader, number, kind === Kind.moves, tick);
    if (kind === Kind.whole) return this.#takeWhole(reader, number, tick);
    if (number === Special.others) return this.#takeOthers(reader);
    if (number === Special.forget) this.#dropBlock(reader.small());
    else if (number === Special.ownAll) this.#takeOwn(reader);
    else if (number === Special.ownChanges) this.#takeOwnChanges(reader);
    else throw reader.error('a record of no known kind');
    return '';
  }

  /** @param {Reader} reader @param {number} number @param {number} tick */
  #takeWhole(reader, number, tick) {
    const table = this.#table(reader);
    this.#dropBlock(number);
    const block = new Block(table);
    const count = reader.count();
    for (let i = 0; i < count; i += 1) block.members.push(this.#takeEntity(reader, block, tick).index);
    this.#blocks.set(number, block);
    return table.name;
  }

  /** @param {Reader} reader @param {Block} block @param {number} tick @returns {Row} */
  #takeEntity(reader, block, tick) {
    const { table } = block;
    const index = reader.small();
    const generation = reader.small();
    const key = keyOf(table, index);
    let row = table.rows.get(index);
    this.#touch(key, row);
    if (row?.generation !== generation) {
      if (row) this.#dropRow(row);
      const before = this.#touched.get(key);
      row = before?.generation === generation ? before : new Row(table, index, generation, this.#entityOf(key, table, index, generation), tick);
      if (this.#count >= ENTITIES_MAX) throw reader.error('more entities than may be');
      this.#count += 1;
      table.rows.set(index, row);
    }
    row.block = block;
    for (const column of table.toAll) row.set(column, column.read(reader, column.blank));
    for (const column of table.toOthers) row.hide(column);
    return row;
  }

  /** Of an entity that is ours, the object that the game has already. @param {number} key @param {Table} table @param {number} index @param {number} generation */
  #entityOf(key, table, index, generation) {
    const own = this.#own.get(key);
    return own?.generation === generation ? own.entity : table.makeEntity(index, generation);
  }

  /** @param {Reader} reader @param {number} number @param {boolean} isMoved @param {number} tick */
  #takeChanges(reader, number, isMoved, tick) {
    const block = this.#blocks.get(number);
    if (!block) throw reader.error('changes of a block that is not known');
    const { table, members } = block;
    if (isMoved) {
      for (let left = reader.count(); left > 0; left -= 1) {
        const at = reader.small();
        if (at >= members.length) throw reader.error('a member leaves that there is not');
        const index = members[at];
        const last = /** @type {number} */ (members.pop());
        if (at < members.length) members[at] = last;
        this.#dropFrom(index, block);
      }
      for (let left = reader.count(); left > 0; left -= 1) members.push(this.#takeEntity(reader, block, tick).index);
    }
    this.#takeRows(reader, block, table.toAll, true);
    return table.name;
  }

  /** @param {Reader} reader */
  #takeOthers(reader) {
    const block = this.#blocks.get(reader.small());
    if (!block) throw reader.error('a block that is not known');
    this.#takeRows(reader, block, block.table.toOthers, false);
    return block.table.name;
  }

  /** @param {Reader} reader @param {Block} block @param {Column[]} group @param {boolean} isBuilt On the last values. */
  #takeRows(reader, block, group, isBuilt) {
    const { table, members } = block;
    let next = 0;
    for (let left = reader.count(); left > 0; left -= 1) {
      const at = next + reader.rowHead(group.length);
      if (at >= members.length) throw reader.error("a row beyond the block's last");
      next = at + 1;
      const row = table.rows.get(members[at]);
      if (!row || (isBuilt && row.block !== block)) throw reader.error('a member that another block has');
      this.#touch(keyOf(table, row.index), row);
      for (let bit = 0; bit < group.length; bit += 1) {
        if (reader.isInMask(bit)) row.set(group[bit], group[bit].read(reader, isBuilt ? row.raw[group[bit].place] : group[bit].blank));
      }
    }
  }

  /** @param {Reader} reader */
  #takeOwn(reader) {
    this.#disown();
    for (let left = reader.count(); left > 0; left -= 1) {
      const table = this.#table(reader);
      const index = reader.small();
      const generation = reader.small();
      const key = keyOf(table, index);
      if (this.#own.has(key)) throw reader.error('an own entity twice');
      if (this.#own.size >= ENTITIES_MAX) throw reader.error('more entities than may be');
      const row = table.rows.get(index);
      const known = [row, this.#former.get(key), this.#touched.get(key)].find((one) => one?.generation === generation);
      const own = new Own(table, index, generation, known?.entity ?? table.makeEntity(index, generation));
      this.#own.set(key, own);
      for (const column of table.toOwner) own.set(column, column.read(reader, column.blank));
      this.#touch(key, row);
      // What others see of it is not for its owner.
      if (row?.generation === generation) for (const column of table.toOthers) row.hide(column);
    }
  }

  /** Until it is told anew, nothing is ours. */
  #disown() {
    for (const [key, own] of this.#own) {
      this.#touch(key, own.table.rows.get(own.index));
      this.#former.get(key)?.yieldTo(own);
      this.#former.set(key, own);
    }
    this.#own = new Map();
  }

  /** @param {Reader} reader */
  #takeOwnChanges(reader) {
    for (let left = reader.count(); left > 0; left -= 1) {
      const table = this.#table(reader);
      const index = reader.small();
      const key = keyOf(table, index);
      const own = this.#own.get(key);
      if (!own) throw reader.error('an own entity that is not known');
      reader.rowHead(table.toOwner.length);
      for (let bit = 0; bit < table.toOwner.length; bit += 1) {
        if (reader.isInMask(bit)) own.set(table.toOwner[bit], table.toOwner[bit].read(reader, table.toOwner[bit].blank));
      }
      this.#touch(key, table.rows.get(index));
    }
  }

  /** @param {Reader} reader @returns {Table} */
  #table(reader) {
    const table = this.#tables[reader.small()];
    if (!table) throw reader.error('a table that there is not');
    return table;
  }

  /** @param {number} key @param {Row | undefined} row */
  #touch(key, row) {
    if (!this.#touched.has(key)) this.#touched.set(key, row ?? null);
  }

  /** @param {number} number */
  #dropBlock(number) {
    const block = this.#blocks.get(number); // which may never have arrived
    if (!block) return;
    this.#blocks.delete(number);
    for (const index of block.members) this.#dropFrom(index, block);
  }

  /** A block has an entity no more; another may have told of it since. @param {number} index @param {Block} block */
  #dropFrom(index, block) {
    const row = block.table.rows.get(index);
    if (row?.block !== block) return;
    this.#touch(keyOf(row.table, index), row);
    this.#dropRow(row);
  }

  /** @param {Row} row */
  #dropRow(row) {
    row.table.rows.delete(row.index);
    row.block = null;
    this.#count -= 1;
  }

  #forgetAll() {
    for (const table of this.#tables) {
      for (const row of [...table.rows.values()]) {
        this.#touch(keyOf(table, row.index), row);
        this.#dropRow(row);
      }
    }
    this.#blocks.clear();
    this.#disown();
  }

  /** Tells the game what the snapshot did, once all of it is done. */
  #settle() {
    /** @type {[Map<string, Set<Listener>>, Table, Entity][]} */
    const told = [];
    for (const [key, own] of this.#former) own.yieldTo(this.#own.get(key));
    this.#former.clear();
    for (const [key, before] of this.#touched) {
      const table = before?.table ?? this.#tables[Math.floor(key / 2 ** 32)];
      const row = table.rows.get(key % 2 ** 32);
      if (before && before !== row && before.isTold) {
        [before.isTold, before.until] = [false, this.tick];
        table.entities.delete(before.entity.id);
        this.#leaving.push(before);
        told.push([this.#listeners.remove, table, before.entity]);
      }
      if (row && !row.isTold) {
        [row.isTold, row.until] = [true, Infinity];
        table.entities.set(row.entity.id, row.entity);
        told.push([this.#listeners.add, table, row.entity]);
      } else if (row) {
        told.push([this.#listeners.change, table, row.entity]);
      } else if (!before) {
        const own = this.#own.get(key);
        if (own) told.push([this.#listeners.change, table, own.entity]);
      }
      if (!row) continue;
      for (const { name } of table.toOwner) row.shown[name] = row.entity[name];
      row.keep(this.tick);
    }
    this.#touched.clear();
    for (const [listeners, table, entity] of told) {
      for (const listener of listeners.get(table.name) ?? []) guarded(() => listener(entity));
    }
  }

  /** @param {'add' | 'change' | 'remove'} event @param {string} table @param {Listener} listener @returns {Unsubscribe} */
  #listen(event, table, listener) {
    const listeners = this.#listeners[event].get(table) ?? new Set();
    this.#listeners[event].set(table, listeners.add(listener));
    return () => void listeners.delete(listener);
  }
}

/** @typedef {(entity: Entity) => void} Listener */

/**
 * The server's clock as it is seen from here, and the time that is drawn: so far behind it that the snapshot after that time is nearly always there.
 * Time is an argument, in ms. After Valve's entity interpolation and the adaptive playout of audio over networks.
 */
export class Timeline {
  #tickMs;
  /** The least of (arrival - tick) in each of the last seconds. @type {{ second: number, least: number }[]} */
  #offsets = [];
  #offset = Infinity;
  /** @type {number[]} A ring. */
  #lateness = [];
  #samples = 0;
  #arrivals = 0;
  #newest = 0;
  /** What is drawn: a tick at a time. @type {{ tick: number, now: number } | null} */
  #drawn = null;
  #late = 0;
  #delay;

  /** @param {number} tickMs */
  constructor(tickMs) {
    this.#tickMs = tickMs;
    this.#delay = tickMs + DELAY_MARGIN;
  }

  /** @param {number} tick @param {number} now */
  arrived(tick, now) {
    const offset = now - tick * this.#tickMs;
    const second = Math.floor(now / 1000);
    const last = this.#offsets.at(-1);
    if (last?.second === second) last.least = Math.min(last.least, offset);
    else this.#offsets.push({ second, least: offset });
    while (this.#offsets[0].second <= second - OFFSET_SECONDS) this.#offsets.shift();
    this.#offset = Math.min(...this.#offsets.map(({ least }) => least));
    this.#arrivals += 1;
    const lateness = offset - this.#offset;
    if (lateness < DELAY_MAX) this.#lateness[this.#samples++ % LATENESS_SAMPLES] = lateness;
    if (this.#drawn && this.#at(now) > tick) this.#late += 1;
    this.#newest = tick;
    this.#delay = Math.min(DELAY_MAX, this.#tickMs + this.#jitter() + DELAY_MARGIN);
  }

  /** @param {number} now */
  serverTick(now) {
    return this.#arrivals ? (now - this.#offset) / this.#tickMs : 0;
  }

  /** The tick to draw. Never goes back but when it jumps. @param {number} now */
  draw(now) {
    if (!this.#arrivals) return 0;
    this.#drawn = { tick: this.#at(now), now };
    return this.#drawn.tick;
  }

  timing() {
    const shown = this.#drawn ? (this.#newest - this.#drawn.tick) * this.#tickMs : 0;
    return { delay: this.#delay, jitter: this.#jitter(), buffer: shown, late: this.#late };
  }

  /** @param {number} now */
  #at(now) {
    const target = this.serverTick(now) - this.#delay / this.#tickMs;
    if (!this.#drawn) return target;
    const passed = Math.max(0, now - this.#drawn.now) / this.#tickMs;
    const error = target - (this.#drawn.tick + passed);
    if (Math.abs(error) * this.#tickMs > SLEW_MAX) return target;
    return this.#drawn.tick + passed + Math.min(Math.max(error, -SLEW * passed), SLEW * passed);
  }

  /** ms by which nearly all snapshots are late at most. */
  #jitter() {
    if (!this.#lateness.length) return 0;
    const sorted = [...this.#lateness].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * IN_TIME))];
  }
}

// ---- what is known -------------------------------------------------------------------------------------------------------------

/** The entities of one table in one cell, in the server's order. */
class Block {
  /** Their indices. @type {number[]} */
  members = [];

  /** @param {Table} table */
  constructor(table) {
    this.table = table;
  }
}

/** One class of entities. */
class Table {
  /** @type {Map<number, Row>} By index. */
  rows = new Map();
  /** @type {Map<bigint, Entity>} What the game sees of it. */
  entities = new Map();
  /** @type {Entity[]} Of `sample`. */
  sampled = [];

  /** @param {number} number @param {string} name @param {Column[]} columns */
  constructor(number, name, columns) {
    this.number = number;
    this.name = name;
    this.columns = columns;
    const to = (/** @type {string | undefined} */ audience) => columns.filter((column) => column.to === audience);
    this.toAll = to(undefined);
    this.toOwner = to('owner');
    this.toOthers = to('others');
    this.drawn = columns.filter((column) => column.isDrawn);
    /** Ticks between two values of the slowest column that is drawn between snapshots. */
    this.every = Math.max(1, ...this.drawn.map((column) => column.every));
  }

  /** All of one shape, for the engine's sake. @param {number} index @param {number} generation @returns {Entity} */
  makeEntity(index, generation) {
    /** @type {Record<string, any>} */
    const entity = { id: (BigInt(generation) << 32n) + BigInt(index) + 1n };
    for (const column of this.columns) entity[column.name] = null;
    return /** @type {Entity} */ (entity);
  }
}

/** One entity in view. */
class Row {
  /** @type {Block | null} The block that told of it last. */
  block = null;
  isTold = false;
  until = Infinity;
  /** What deltas build on. @type {any[]} */
  raw;
  /** What `sample` gives. @type {Entity} */
  shown;
  /** What is drawn between snapshots, at which tick, oldest first; at least the last one before the time that is drawn. @type {{ tick: number, values: number[] }[]} */
  #frames = [];
  #isAtRest = false;

  /** @param {Table} table @param {number} index @param {number} generation @param {Entity} entity @param {number} since */
  constructor(table, index, generation, entity, since) {
    this.table = table;
    this.index = index;
    this.generation = generation;
    this.entity = entity;
    this.since = since;
    this.raw = table.columns.map((column) => column.blank);
    this.shown = { ...entity };
  }

  /** @param {Column} column @param {any} raw */
  set(column, raw) {
    this.raw[column.place] = raw;
    const value = column.show(raw);
    this.entity[column.name] = value;
    if (!column.isDrawn) this.shown[column.name] = value;
  }

  /** What this client is not told. @param {Column} column */
  hide(column) {
    this.entity[column.name] = null;
    if (!column.isDrawn) this.shown[column.name] = null;
  }

  /** What is drawn between snapshots gets its place in time. @param {number} tick */
  keep(tick) {
    const { drawn, every } = this.table;
    if (!drawn.length) return;
    const values = [];
    for (const { name, width } of drawn) {
      const value = this.entity[name];
      if (width === 1) values.push(value ?? 0);
      else for (let i = 0; i < width; i += 1) values.push(value?.[i] ?? 0);
    }
    const frames = this.#frames;
    const last = frames.at(-1);
    if (last?.tick === tick) last.values = values;
    else {
      if (last && tick - last.tick > REST_TICKS * every) frames.push({ tick: tick - every, values: last.values });
      frames.push({ tick, values });
      if (frames.length > FRAMES_MAX) frames.shift(); // nothing is drawn
    }
    this.#isAtRest = false;
  }

  /** @param {number} tick @returns {Entity} */
  drawAt(tick) {
    const { drawn, every } = this.table;
    if (this.#isAtRest || !drawn.length) return this.shown;
    const time = tick - (every - 1);
    const frames = this.#frames;
    while (frames.length > 1 && frames[1].tick <= time) frames.shift();
    const [from, to = from] = frames;
    const part = to === from ? 0 : Math.max(0, (time - from.tick) / (to.tick - from.tick));
    let slot = 0;
    for (const { name, width } of drawn) {
      if (width === 1) {
        this.shown[name] = from.values[slot] + (to.values[slot] - from.values[slot]) * part;
        slot += 1;
        continue;
      }
      const vector = (this.shown[name] ??= []);
      for (let i = 0; i < width; i += 1, slot += 1) vector[i] = from.values[slot] + (to.values[slot] - from.values[slot]) * part;
    }
    this.#isAtRest = to === from && from.tick <= time;
    return this.shown;
  }
}

/** One entity that this session owns, in view or not. */
class Own {
  /** @param {Table} table @param {number} index @param {number} generation @param {Entity} entity */
  constructor(table, index, generation, entity) {
    this.table = table;
    this.index = index;
    this.generation = generation;
    this.entity = entity;
  }

  /** @param {Column} column @param {any} raw */
  set(column, raw) {
    this.entity[column.name] = column.show(raw);
  }

  /** Unless that is the same entity, this one is not ours any more. @param {Own | undefined} next */
  yieldTo(next) {
    if (next?.entity !== this.entity) for (const { name } of this.table.toOwner) this.entity[name] = null;
  }
}

/** An entity's name while its generation is known. @param {Table} table @param {number} index */
function keyOf(table, index) {
  return table.number * 2 ** 32 + index;
}

/** @param {unknown} shape What the server told; undefined: its game has no world. @throws {ProtocolError} */
function checkedShape(shape) {
  if (shape === undefined) return { tables: [], tickRate: 30, cell: 0 };
  if (!isObject(shape) || !Array.isArray(shape.tables)) throw new ProtocolError('a schema without a world');
  /** @type {Set<string>} */
  const names = new Set();
  const tables = shape.tables.map((table, number) => {
    if (!isObject(table) || !isName(table.name) || names.has(table.name) || !Array.isArray(table.columns)) {
      throw new ProtocolError(`a world whose table ${number} is none`);
    }
    const { name } = table;
    names.add(name);
    const taken = new Set(['id']);
    const columns = table.columns.map((column, place) => {
      if (!isObject(column) || !isName(column.name) || taken.has(column.name)) throw new ProtocolError(`a world whose ${name} has a column ${place} that is none`);
      taken.add(column.name);
      return checkedColumn(name, /** @type {ColumnShape} */ (/** @type {unknown} */ (column)), place);
    });
    return new Table(number, name, columns);
  });
  const tickRate = isPositive(shape.tick_rate) ? shape.tick_rate : 30;
  return { tables, tickRate, cell: isPositive(shape.cell) ? shape.cell : 0 };
}

const Kind = Object.freeze({ changes: 0, moves: 1, whole: 2, special: 3 });
const Special = Object.freeze({ forget: 0, ownAll: 1, ownChanges: 2, others: 3 });
