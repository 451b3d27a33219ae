// gameserver: rooms in the browser. The first call of a client's `joinOrCreate`, `join`, ... loads it.
//
//     const room = await client.joinOrCreate('cards', { channel: 'eu' });
//     room.on('Played', ({ card, seat }) => show(card, seat));
//     await room.request('Play', { card: 7 });
//     room.onLeave((why) => goHome(why));
//
// A room's routes are those of its handlers: what is asked here goes to this room, also when the session is in several.

import { GameServerError, guarded } from './gameserver.js';

/**
 * @typedef {import('./gameserver.js').Client} Client
 * @typedef {import('./gameserver-world.js').World} World
 * @typedef {() => void} Unsubscribe
 * @typedef {{ room: number, name: string, seat: number }} Place What joining is answered with.
 * @typedef {{ room: number, name: string, members: number, max_members: number, metadata: Record<string, any> }} Listing
 * @typedef {{ client: Client, shapeOf: (name: string) => unknown }} Host
 */

/** Pushes of one room that came before anybody listened to their route. */
const EARLY_MAX = 100;
/** ms; older ones are of no use to who listens then. */
const EARLY_AGE_MAX = 2_000;

/** A room in which the client's session has a seat. Made by the client's `joinOrCreate`, `create`, `join` and `joinById`. */
export class Room {
  /** What stands behind its routes: `Say@17`. @type {number} */
  number;
  /** The name of its class. @type {string} */
  name;
  /** The number of this client's seat: a room never gives it to another member. @type {number} */
  seat;
  /** What is seen of the room's world; null unless worlds were asked for: `connect(url, { world: true })`. @type {World | null} */
  world = null;
  #left = '';
  /** What the schema says of its world. @type {any} */
  #shape = {};
  /** @type {Set<(why: string) => void>} */
  #leaves = new Set();
  /** @type {Client} */
  #client;

  /** Use the client's `join` instead. @param {Client} client @param {Place} place */
  constructor(client, { room, name, seat }) {
    this.#client = client;
    [this.number, this.name, this.seat] = [room, name, seat];
  }

  /** Why the seat was given up: `left`, `kicked`, `disposed`, `shutdown`, or `lost` with its session; '' while it is held. */
  get left() {
    return this.#left;
  }

  /** The room's own fields, as of the newest snapshot; null: it has none, or they are not here yet. @returns {any} */
  get state() {
    return this.#rows('room')[0] ?? null;
  }

  /** The members' fields, by their `number`: that of this client's own is `seat`. @returns {any[]} */
  get members() {
    return this.#rows('member').sort((one, other) => one.number - other.number);
  }

  /** Asks the room; see `Client.request`. @param {string} route @param {unknown} [body] @param {{ timeout?: number, raw?: boolean }} [options] */
  request(route, body, options) {
    return this.#client.request(this.#address(route), body, options);
  }

  /** Tells the room; see `Client.notify`. @param {string} route @param {unknown} [body] */
  notify(route, body) {
    return this.#client.notify(this.#address(route), body);
  }

  /** Tells the room what the player does; see `Client.input`. @param {string} route @param {unknown} [body] */
  input(route, body) {
    this.#client.input(this.#address(route), body);
  }

  /**
   * Calls `listener` for each push of the room to `route`; see `Client.on`.
   *
   * @param {string} route
   * @param {(body: any, route: string) => void} listener
   * @param {{ raw?: boolean }} [options]
   * @returns {Unsubscribe}
   */
  on(route, listener, options) {
    return this.#client.on(this.#address(route), listener, options);
  }

  /** Calls `listener` once, when the seat is given up, with `left`. @param {(why: string) => void} listener @returns {Unsubscribe} */
  onLeave(listener) {
    this.#leaves.add(listener);
    return () => void this.#leaves.delete(listener);
  }

  /** Gives the seat up. Resolves once the server has answered; at once if it is given up already. */
  async leave() {
    if (this.#left) return;
    await this.#client.request('$leave_room', { room: this.number });
  }

  /** @internal A connection is there, whose schema says this of the room's world. @param {any} shape @param {boolean} goesOn */
  _begin(shape, goesOn) {
    this.#shape = shape ?? {};
    this.world?._begin(shape ?? undefined, goesOn);
  }

  /** @param {'room' | 'member'} key @returns {any[]} */
  #rows(key) {
    return [...(this.world?.entities[this.#shape[key]]?.values() ?? [])];
  }

  /** @internal @param {string} why */
  _end(why) {
    if (this.#left) return;
    this.#left = why;
    for (const listener of this.#leaves) guarded(() => listener(why));
    this.#client._roomEnded(this.number);
  }

  /** @param {string} route */
  #address(route) {
    return `${route}@${this.number}`;
  }
}

/** @internal The rooms of one client. */
export class Rooms {
  /** @type {Map<number, Room>} */
  #rooms = new Map();
  /** Pushes that nobody listened to yet, by room. @type {Map<number, { route: string, at: number, tell: () => void }[]>} */
  #early = new Map();
  #joining = 0;
  /** @type {typeof import('./gameserver-world.js').World | null} */
  #World;
  /** @type {Host} */
  #host;

  /** @param {Host} host @param {typeof import('./gameserver-world.js').World | null} World Of clients that show it. */
  constructor(host, World) {
    this.#host = host;
    this.#World = World;
    host.client.on('$left', ({ room, why }) => this.#rooms.get(room)?._end(String(why)));
    host.client.onReconnect(() => this.#rejoin());
  }

  /** @param {'$join_or_create' | '$create' | '$join' | '$join_by_id'} route @param {object} body @returns {Promise<Room>} */
  async join(route, body) {
    const { client } = this.#host;
    this.#joining += 1;
    try {
      const place = await client.request(route, body);
      const known = this.#rooms.get(place.room);
      if (known) return known; // the seat was there already
      const room = new Room(client, place);
      room.world = this.#World && new this.#World();
      room._begin(this.#host.shapeOf(room.name), false);
      this.#rooms.set(room.number, room);
      this.#listened(room.number, ({ route }) => route.startsWith('$w@'));
      return room;
    } finally {
      this.#joining -= 1;
      if (!this.#joining) for (const number of this.#early.keys()) if (!this.#rooms.has(number)) this.#early.delete(number);
    }
  }

  /** A push has come that nobody listens to. @param {string} route @param {() => void} tell Does so again. */
  early(route, tell) {
    const number = numberOf(route);
    if (!this.#rooms.has(number) && !this.#joining) return;
    const early = this.#early.get(number) ?? [];
    this.#early.set(number, early);
    if (early.length < EARLY_MAX) early.push({ route, at: performance.now(), tell });
  }

  /** Somebody listens now. @param {string} route */
  listened(route) {
    const number = numberOf(route);
    if (this.#early.has(number)) queueMicrotask(() => this.#listened(number, (early) => early.route === route));
  }

  /** @param {string} route @param {Uint8Array} body @param {() => void} tell @throws {Error} As `World._apply`. */
  snapshot(route, body, tell) {
    const room = this.#rooms.get(numberOf(route));
    if (room) room.world?._apply(body, performance.now());
    else this.early(route, tell);
  }

  /** A connection is there. @param {boolean} goesOn */
  begin(goesOn) {
    for (const room of this.#rooms.values()) room._begin(this.#host.shapeOf(room.name), goesOn);
  }

  /** @param {number} number */
  ended(number) {
    this.#rooms.delete(number);
    this.#early.delete(number);
  }

  /** The client is closed for good. */
  close() {
    for (const room of [...this.#rooms.values()]) room._end('lost');
  }

  /** There is a new session: the server has kept the seats of somebody whom it knows. */
  async #rejoin() {
    for (const room of [...this.#rooms.values()]) {
      try {
        const { seat } = await this.#host.client.request('$rejoin', { room: room.number });
        if (seat !== room.seat) room._end('lost');
      } catch (error) {
        // Cut again: the next connection asks again.
        if (!(error instanceof GameServerError) || error.code !== 'disconnected') room._end('lost');
      }
    }
  }

  /** @param {number} number @param {(early: { route: string }) => boolean} isWanted */
  #listened(number, isWanted) {
    const early = this.#early.get(number) ?? [];
    const since = performance.now() - EARLY_AGE_MAX;
    const rest = early.filter((one) => one.at >= since && !isWanted(one));
    if (rest.length) this.#early.set(number, rest);
    else this.#early.delete(number);
    for (const one of early) if (one.at >= since && isWanted(one)) one.tell();
  }
}

/** Of the room whose route it is; -1: of none. @param {string} route */
export function numberOf(route) {
  return Number(/@([1-9]\d*)$/.exec(route)?.[1] ?? -1);
}
