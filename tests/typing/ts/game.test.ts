// What `gameserver schema ts` makes of docs/wire.md's example, as a game uses it. Read by the compiler alone: tests/test_typescript.py.
import type { GameClient, Kind, Move, Moved } from './game.js';
import { connect } from '../../../clients/js/gameserver.js';

const client: GameClient = await connect('ws://127.0.0.1');

const moved: Moved = await client.request('Move', { path: [{ x: 1 }], kind: 'RUN', wait: 3, seen: new Map([['a', true]]) });
const ticks: number[] = moved.ticks;
const inRoom: Moved = await client.request('Move@17', { kind: 7, seen: { a: true }, by: null, jump: { x: 1 } });
const json: string = (await client.request('unlisted', { anything: [1] })).anything;
const raw: Uint8Array = await client.request('Move', {}, { raw: true, timeout: 1000 });
const bytes: Uint8Array = await client.request('Move', new Uint8Array(3));
const answered: number = (await client.request('Halt')).ticks.length;
const shout: bigint | undefined = (await client.request("it's\n\u{1f600}", { any: 1 })).wait;

const whole: Move = { path: [], kind: 'WALK', seen: {} };
client.notify('Move', whole);
client.notify('unlisted', { anything: [1] });

const off: () => void = client.on('Moved', ({ ticks }) => ticks.length);
client.on('Moved', (body) => body.byteLength, { raw: true });
client.on('$error', (error) => error.code + error.metadata['field']);
client.on('unlisted', (body) => body.anything);
client.off('Moved');

client.on('Moved', (message: Moved) => {
  const nth: number | undefined = message.ticks[0];
});
const kind: Kind = 'RUN';
const seen: boolean | undefined = whole.seen['a'];
const wait: bigint | undefined = whole.wait;

// @ts-expect-error No such field.
client.notify('Move', { dz: 1 });
// @ts-expect-error No such name.
client.notify('Move', { kind: 'FLY' });
// @ts-expect-error Of another type, deep inside.
client.notify('Move', { path: [{ x: '1' }] });
// @ts-expect-error 32 bits are no bigint.
client.notify('Move', { by: 3n });
// @ts-expect-error A list is none.
client.notify('Move', { path: { x: 1 } });
// @ts-expect-error The answer has no such field.
moved.path;
// @ts-expect-error The push has no such field.
client.on('Moved', (message) => message.path);
// @ts-expect-error It may be missing.
const jump: number = whole.jump.x;
// @ts-expect-error A number may be among them.
const name: string = whole.kind;
